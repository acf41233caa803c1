"""How good translations are: chrF, BLEU, exact matches and placeholders kept, from a predictions file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.evaluate.chrf_bleu import N_CHRF, bleu_counts, bleu_of_sums, chrf_counts, chrf_of_sums, signatures
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.corpus import compare_sums, measure_slices, measure_sums
from danlu.evaluate.intervals import measure, wilson
from danlu.evaluate.metrics import Floats, Ints
from danlu.evaluate.pairing import different_test, match_records, paired_facts
from danlu.evaluate.placeholders import KINDS, keeps_placeholders, kinds_kept, placeholders
from danlu.evaluate.predictions import RowWriter, columns_of, latency, open_predictions
from danlu.evaluate.slices import length_quarters
from danlu.evaluate.tasks import Task

__all__ = ["TRANSLATION", "TranslationWriter", "compare_translations", "evaluate_translations"]


class TranslationWriter(RowWriter):
    """Writes translations; a context manager.

    The columns: ``id``, ``source``, ``reference``, ``hypothesis`` (string) and ``milliseconds`` (float32).

    Args:
        path: The parquet file to make.
    """

    def __init__(self, path: Path) -> None:
        texts = {name: pa.string() for name in ("id", "source", "reference", "hypothesis")}
        super().__init__(path, pa.schema({**texts, "milliseconds": pa.float32()}))

    def write(
        self,
        ids: Sequence[str],
        sources: Sequence[str],
        references: Sequence[str],
        hypotheses: Sequence[str],
        milliseconds_B: NDArray[np.floating],
    ) -> None:
        """Add a batch.

        Args:
            ids: B record ids, unique within the split.
            sources: What was to be translated.
            references: How a human translated it.
            hypotheses: How the model did.
            milliseconds_B: Time spent on each.
        """
        self._add(ids, sources, references, hypotheses, milliseconds_B)


def evaluate_translations(path: Path, config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Every metric with its interval, and what to look at.

    Args:
        path: A file by :class:`TranslationWriter`.
        config: Resamples, confidence, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``n`` sentences, ``confidence``, ``n_resamples``, sacrebleu's ``signatures``; ``metrics``: ``chrf`` and ``bleu``
        (0 to 100), ``exact_match`` (but for white space around it) and ``placeholders_kept`` (of the sentences that
        have any), each a ``value`` with ``low``, ``high``, ``n`` and ``method``; ``placeholders``, by kind the share
        ``kept`` and the share that the human ``reference`` keeps; ``slices`` by the source's length, in chrF; the
        ``worst`` and ``typical`` translations by their chrF, those with ``lost_placeholders``, the ``slowest``;
        ``latency_ms`` a sentence.

    Raises:
        UsageError: There is no such file, or sacrebleu is not installed.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    found = _read(path)
    parts = found.parts
    names, slice_B = length_quarters(np.array([len(source) for source in found.sources]))
    by_chrf = np.argsort(found.chrf, kind="stable")
    middle = max(0, (len(by_chrf) - config.examples) // 2)
    lost = np.flatnonzero(parts[:, _HAS] > parts[:, _KEPT])

    def share(hits: int, tried: int) -> dict[str, Any]:
        return measure(hits / tried if tried else np.nan, wilson(hits, tried, config.confidence), tried, "wilson")

    sums = parts.sum(0).astype(int).tolist()
    return {
        "n": len(found.ids),
        "confidence": config.confidence,
        "n_resamples": config.bootstrap,
        "signatures": signatures(),
        "metrics": {
            **measure_sums(parts, _overlap, config, rng),
            "exact_match": share(sums[_EXACT], len(found.ids)),
            "placeholders_kept": share(sums[_KEPT], sums[_HAS]),
        },
        "placeholders": _by_kind(found, share),
        "slices": {"n_chars": measure_slices(names, slice_B, parts, _chrf, config, rng)},
        "worst": found.examples(by_chrf[: config.examples]),
        "typical": found.examples(by_chrf[middle : middle + config.examples]),
        "lost_placeholders": found.examples(lost[: config.examples]),
        "slowest": found.examples(np.argsort(-found.milliseconds_B, kind="stable")[: config.examples]),
        "latency_ms": latency(found.milliseconds_B),
    }


def compare_translations(
    a_path: Path, b_path: Path, names: tuple[str, str], config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """Model A against model B on the sentences that both have translated.

    The permutation test is paired approximate randomisation and the interval a paired bootstrap, both over sentences,
    as in ``sacrebleu.significance`` but on all permutations at once; a test holds the p-values against that.

    Args:
        a_path: Predictions of A.
        b_path: Predictions of B; the records may be in another order.
        names: What to call A and B.
        config: Resamples, permutations, confidence, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``a``, ``b``, ``n``, ``confidence``, ``n_resamples``, ``n_permutations``; ``metrics`` (``chrf``, ``bleu``,
        ``exact_match``, ``placeholders_kept``), each with ``a``, ``b``, ``difference`` (A - B), ``low``, ``high``,
        ``p_bootstrap`` and ``p_permutation``; and the sentences that A translates better (``a_better``) and B does
        (``b_better``), by the difference in their chrF.

    Raises:
        UsageError: A file is missing, or sacrebleu is not installed.
        CorruptError: A file is not a predictions file.
        DataError: They are not predictions of the same test: ids, sources or references differ.
    """
    a, b = _read(a_path), _read(b_path)
    b = b.take(match_records(a.ids, b.ids, names))
    for row, (of_a, of_b) in enumerate(zip(a.texts, b.texts, strict=True)):
        if of_a[:2] != of_b[:2]:
            raise different_test(f"record {a.ids[row].as_py()} has two sources or references", names)
    gain_B = a.chrf - b.chrf
    by_gain = np.argsort(-gain_B, kind="stable")

    def examples(rows: Ints) -> list[dict[str, Any]]:
        return [
            {
                "id": a.ids[row].as_py(),
                "source": a.sources[row],
                "reference": a.references[row],
                "a": a.hypotheses[row],
                "b": b.hypotheses[row],
                "a_chrf": float(a.chrf[row]),
                "b_chrf": float(b.chrf[row]),
            }
            for row in rows.tolist()[: config.examples]
        ]

    return {
        **paired_facts(names, len(a.ids), config),
        "metrics": compare_sums(a.parts, b.parts, _all_metrics, config, rng),
        "a_better": examples(by_gain[gain_B[by_gain] > 0]),
        "b_better": examples(by_gain[::-1][gain_B[by_gain[::-1]] < 0]),
    }


TRANSLATION = Task(primary="chrf", higher_is_better=True, evaluate=evaluate_translations, compare=compare_translations)

# Columns of a sentence's numbers, after the counts of chrF and BLEU.
_EXACT, _ONE, _KEPT, _HAS = -4, -3, -2, -1


@dataclass(frozen=True)
class _Predictions:
    """The columns of a file of translations."""

    ids: pa.Array
    sources: list[str]
    references: list[str]
    hypotheses: list[str]
    milliseconds_B: NDArray[np.float32]

    @property
    def texts(self) -> list[tuple[str, str, str]]:
        """Source, reference and hypothesis of each record."""
        return list(zip(self.sources, self.references, self.hypotheses, strict=True))

    @cached_property
    def parts(self) -> Floats:
        """What the metrics sum: the counts of chrF and of BLEU; exact match, 1; placeholders kept, whether any."""
        exact = [hypothesis.strip() == reference.strip() for _, reference, hypothesis in self.texts]
        has = [bool(placeholders(source)) for source in self.sources]
        kept = [
            any_ and keeps_placeholders(source, text) for any_, (source, _, text) in zip(has, self.texts, strict=True)
        ]
        shares_BJ = np.array([exact, np.ones(len(exact)), kept, has], dtype=np.float64).T
        counts = chrf_counts(self.hypotheses, self.references), bleu_counts(self.hypotheses, self.references)
        return np.concatenate([*counts, shares_BJ], axis=1)

    @cached_property
    def chrf(self) -> Floats:
        """Of each sentence."""
        return chrf_of_sums(self.parts[:, :N_CHRF])

    def take(self, row_B: Ints) -> _Predictions:
        """These records, in this order."""
        sources, references, hypotheses = (
            [column[row] for row in row_B.tolist()] for column in (self.sources, self.references, self.hypotheses)
        )
        return _Predictions(self.ids.take(pa.array(row_B)), sources, references, hypotheses, self.milliseconds_B[row_B])

    def examples(self, rows: Ints) -> list[dict[str, Any]]:
        """Records as plain JSON, to be looked at."""
        return [
            {
                "id": self.ids[row].as_py(),
                "source": self.sources[row],
                "reference": self.references[row],
                "hypothesis": self.hypotheses[row],
                "chrf": float(self.chrf[row]),
                "milliseconds": float(self.milliseconds_B[row]),
            }
            for row in rows.tolist()
        ]


def _read(path: Path) -> _Predictions:
    with open_predictions(path) as table:
        column = columns_of(table, ("id", "source", "reference", "hypothesis", "milliseconds"))
        found = _Predictions(
            column["id"],
            column["source"].to_pylist(),
            column["reference"].to_pylist(),
            column["hypothesis"].to_pylist(),
            column["milliseconds"].to_numpy(),
        )
    return found


def _by_kind(found: _Predictions, share: Callable[[int, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """Each kind of placeholder that a source has: how many do, and the shares kept by the model and by the human."""
    by_model = [kinds_kept(source, hypothesis) for source, _, hypothesis in found.texts]
    by_human = [kinds_kept(source, reference) for source, reference, _ in found.texts]

    def of(kind: str, kept: list[dict[str, bool]]) -> dict[str, Any]:
        those = [each[kind] for each in kept if kind in each]
        return share(sum(those), len(those))

    return [
        {"kind": kind, "kept": of(kind, by_model), "reference": of(kind, by_human)}
        for kind in KINDS
        if any(kind in each for each in by_model)
    ]


def _chrf(sums_RJ: Floats) -> dict[str, Floats]:
    return {"chrf": chrf_of_sums(sums_RJ[:, :N_CHRF])}


def _overlap(sums_RJ: Floats) -> dict[str, Floats]:
    return {**_chrf(sums_RJ), "bleu": bleu_of_sums(sums_RJ[:, N_CHRF:_EXACT])}


def _all_metrics(sums_RJ: Floats) -> dict[str, Floats]:
    kept_R, has_R = sums_RJ[:, _KEPT], sums_RJ[:, _HAS]
    return {
        **_overlap(sums_RJ),
        "exact_match": sums_RJ[:, _EXACT] / sums_RJ[:, _ONE],
        "placeholders_kept": np.divide(kept_R, has_R, out=np.full_like(has_R, np.nan), where=has_R > 0),
    }
