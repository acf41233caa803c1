"""chrF and BLEU of a corpus, from counts of each sentence that can be summed over any choice of sentences.

The counts come from sacrebleu through its public functions (its scores of one sentence, its character n-grams), and the
scores computed from their sums are those of its ``corpus_score`` (a test holds it); only the resampling is our own. The
settings are sacrebleu's defaults, but for BLEU's tokenizer: ``zh`` parts Chinese characters and leaves words whole.

- chrF2 (Popović 2015): character n-grams of 1 to 6, recall twice as important as precision, white space ignored.
- BLEU (Papineni et al. 2002): word n-grams of 1 to 4, orders without a hit smoothed by ever halving (``exp``; NIST).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from danlu.core.errors import UsageError
from danlu.evaluate.metrics import Floats

__all__ = ["N_CHRF", "bleu_counts", "bleu_of_sums", "chrf_counts", "chrf_of_sums", "signatures"]

CHRF_ORDERS, BLEU_ORDERS = 6, 4
BETA = 2
N_CHRF = 3 * CHRF_ORDERS
"""Numbers of a sentence that chrF sums: n-grams of the hypothesis, of the reference, and of both, for each order."""


def chrf_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Floats:
    """The counts (B, 18) behind chrF: for order 1, then 2, ...: of the hypothesis, of the reference, of both.

    Raises:
        UsageError: sacrebleu is not installed.
    """
    ngrams = _sacrebleu().extract_char_ngrams

    def counts(hypothesis: str, reference: str) -> list[int]:
        found = []
        for order in range(1, CHRF_ORDERS + 1):
            ours, theirs = ngrams(hypothesis, order), ngrams(reference, order)
            # Where the reference is too short for an n-gram, the hypothesis is not blamed for having some.
            found += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
        return found

    return np.array([counts(*pair) for pair in zip(hypotheses, references, strict=True)], dtype=np.float64)


def chrf_of_sums(sums_RJ: Floats) -> Floats:
    """ChrF2 (R,), 0 to 100, from sums (R, 18) of :func:`chrf_counts`.

    Precision and recall are means over the orders that both sides have; their F score is 0 where nothing matches.
    """
    ours_RN, theirs_RN, both_RN = (sums_RJ[:, part::3] for part in range(3))
    known_RN = (ours_RN > 0) & (theirs_RN > 0)
    n_known_R = np.maximum(known_RN.sum(1), 1)
    precision_R, recall_R = (
        np.divide(both_RN, of_RN, out=np.zeros_like(both_RN), where=known_RN).sum(1) / n_known_R
        for of_RN in (ours_RN, theirs_RN)
    )
    below_R = BETA**2 * precision_R + recall_R
    above_R = (1 + BETA**2) * precision_R * recall_R
    chrf_R: Floats = 100 * np.divide(above_R, below_R, out=np.zeros_like(below_R), where=below_R > 0)
    return chrf_R


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Floats:
    """The counts (B, 10) behind BLEU: words of hypothesis and reference, hits of orders 1-4, n-grams of orders 1-4.

    Raises:
        UsageError: sacrebleu is not installed.
    """
    metric = _sacrebleu().BLEU(tokenize="zh")
    scores = (metric.corpus_score([ours], [[theirs]]) for ours, theirs in zip(hypotheses, references, strict=True))
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.float64)


def bleu_of_sums(sums_RJ: Floats) -> Floats:
    """BLEU (R,), 0 to 100, from sums (R, 10) of :func:`bleu_counts`.

    It is 0 where no word matches, or where no hypothesis has as many as four words.
    """
    n_ours_R, n_theirs_R = sums_RJ[:, 0], sums_RJ[:, 1]
    hits_RN, n_RN = sums_RJ[:, 2 : 2 + BLEU_ORDERS], sums_RJ[:, 2 + BLEU_ORDERS :]
    defined_R = (hits_RN > 0).any(1) & (n_RN > 0).all(1)
    # The first order without a hit counts as half a hit, the next as a quarter, and so on.
    smoothed_RN = np.where(hits_RN > 0, hits_RN, 0.5 ** np.cumsum(hits_RN == 0, axis=1))
    log_precision_R = np.log(smoothed_RN / np.maximum(n_RN, 1)).mean(1)
    log_brevity_R = np.minimum(0.0, 1 - n_theirs_R / np.maximum(n_ours_R, 1))
    return np.where(defined_R, 100 * np.exp(log_precision_R + log_brevity_R), 0.0)


def signatures() -> dict[str, str]:
    """What sacrebleu calls these settings, so that others can compute the same.

    Raises:
        UsageError: sacrebleu is not installed.
    """
    sacrebleu = _sacrebleu()
    found = {}
    for name, metric in {"chrf": sacrebleu.CHRF(), "bleu": sacrebleu.BLEU(tokenize="zh")}.items():
        metric.corpus_score(["x"], [["x"]])  # it must have seen how many references there are
        found[name] = str(metric.get_signature())
    return found


def _sacrebleu() -> ModuleType:
    try:
        import sacrebleu
    except ImportError as error:
        raise UsageError(
            "translations are scored by sacrebleu, which is not installed", advice="pip install 'danlu[mt]'"
        ) from error
    return sacrebleu
