"""What each part of a text did to the answer of a classifier, on the text as the classifier reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from danlu.core.batch import Output
from danlu.core.errors import UsageError
from danlu.data.batches import Tokens, collate
from danlu.data.tokenizer import PAD
from danlu.explain.alignment import Extent, align, joined
from danlu.explain.gradients import integrated_gradients, margin
from danlu.model.base import Model
from danlu.model.classifier import NeuralClassifier
from danlu.model.ensemble import Ensemble
from danlu.model.families import Answerer
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.tfidf import TfidfLogisticRegression

__all__ = ["Shares", "gives_reasons", "shares_of_text"]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """A change of the margin, shared out among parts of a text.

    Attributes:
        extents: The parts, in order; none shares a character with another.
        weights: float64, one a part.
        change: The margin of the text minus that of a text that says nothing.
        gap: What the weights miss of it.
        method: How it was found, for people.
    """

    extents: Sequence[Extent]
    weights: np.ndarray
    change: float
    gap: float
    method: str

    def moved(self, extents: Sequence[Extent]) -> Shares:
        """The same for other characters that the parts stand for; where these overlap, the weights are added."""
        parts = joined(extents)
        weights = np.array([self.weights[numbers].sum() for _, numbers in parts], np.float64)
        return replace(self, extents=[extent for extent, _ in parts], weights=weights)

    def by_character(self, n_characters: int) -> np.ndarray:
        """The weights, each spread evenly over its characters; float64."""
        spread = np.zeros(n_characters)
        for (start, end), weight in zip(self.extents, self.weights, strict=True):
            spread[start:end] += weight / (end - start)
        return spread


def gives_reasons(answerer: Answerer) -> bool:
    """Whether :func:`shares_of_text` knows how a classifier of texts comes to its answers."""
    if isinstance(answerer, Ensemble):
        return all(gives_reasons(member) for member in answerer.members.values())
    if isinstance(answerer, NeuralClassifier):
        return len(_embeddings(answerer.module)) == 1
    return isinstance(answerer, TfidfLogisticRegression)


def shares_of_text(answerer: Answerer, text: str, label: int) -> Shares:
    """Share out how far a text moves a classifier towards a class.

    Args:
        answerer: The classifier.
        text: The text as it was made standard.
        label: The number of the class.

    Raises:
        UsageError: It is of a kind that is not explained here.
    """
    if isinstance(answerer, NeuralClassifier):
        return _of_tokens(answerer, text, label)
    if isinstance(answerer, TfidfLogisticRegression):
        return _of_ngrams(answerer, text, label)
    if isinstance(answerer, Ensemble):
        return _of_members(answerer, text, label)
    advice = "neural classifiers, the baseline and ensembles of them can be explained"
    raise UsageError(f"a {type(answerer).__name__} gives no reasons for its answers", advice=advice)


def _of_tokens(model: NeuralClassifier, text: str, label: int) -> Shares:
    """Integrated gradients on the token vectors, from a text whose tokens are all hidden.

    The vector of a hidden token (that of padding, where a tokenizer has no such token) is what the model was trained to
    read as "not known". Padding was masked in training, and its vector means nothing. What a pretrained tokenizer
    puts around every text is the same in both texts, so that it gets no share.
    """
    tokens = model.encode([text])
    encoding = model.tokenizer.encode(text)
    n_all, n = len(encoding.ids), len(tokens.ids)
    kept = [*range(n // 2), *range(n_all - n + n // 2, n_all)]  # of a long text the beginning and the end are read
    assert [encoding.ids[number] for number in kept] == tokens.ids.tolist()
    read = [place for place, number in enumerate(kept) if not encoding.special_tokens_mask[number]]
    method = "integrated gradients, from a text whose tokens are hidden"
    if not read:
        return Shares(extents=[], weights=np.zeros(0), change=0.0, gap=0.0, method=method)

    embedding = _embedding(model.module)
    device = embedding.tokens.weight.device
    ids_T = torch.from_numpy(tokens.ids.astype(np.int64)).to(device)
    baseline_T = ids_T.clone()
    baseline_T[read] = model.special.mask

    def score(points_BTD: torch.Tensor) -> torch.Tensor:
        n_points = len(points_BTD)
        batch = collate(Tokens.of([tokens.ids.tolist()] * n_points), np.arange(n_points), PAD).to(device)
        handle = embedding.tokens.register_forward_hook(lambda *_: points_BTD)
        try:
            answer: Output = model.module(batch)
        finally:
            handle.remove()
        return margin(answer.logits.float(), label)

    with torch.no_grad():
        vectors = embedding.tokens.weight[torch.stack([baseline_T, ids_T])].float()
    found = integrated_gradients(score, vectors[0], vectors[1])
    if not found.converged:
        method += f", {found.n_nodes} steps were not enough"
    if n < n_all:
        method += f"; only the first {n // 2} and the last {n - n // 2} tokens are read"
    weights = found.weights.sum(1)[read]
    whole = Shares(extents=[], weights=weights, change=found.change, gap=found.gap, method=method)
    return whole.moved([_extent(encoding.offsets[kept[place]], len(text)) for place in read])


def _embeddings(module: Model) -> list[TokenEmbedding]:
    return [layer for layer in module.modules() if isinstance(layer, TokenEmbedding)]


def _embedding(module: Model) -> TokenEmbedding:
    if len(found := _embeddings(module)) != 1:
        what = f"a {module.config.family} has {len(found)} token embeddings; an explanation starts from one"
        raise UsageError(what, advice="use danlu.model.layers.embedding.TokenEmbedding once in the family's module")
    return found[0]


def _extent(offsets: Extent, n_characters: int) -> Extent:
    """The characters of a token; of one that stands for none, the next."""
    start, end = offsets
    if start < end:
        return start, end
    start = min(start, n_characters - 1)
    return start, start + 1


def _of_ngrams(model: TfidfLogisticRegression, text: str, label: int) -> Shares:
    """What each n-gram adds (coefficient times value), shared evenly by its characters: exact, for the model is linear.

    The text that says nothing is the empty one, of which the intercepts are left.
    """
    read = model.read(text)
    logits = {ngram: added_N.astype(np.float64)[None] for ngram, added_N in model.contributions(text).items()}
    added = {ngram: float(margin(added_1N, label)[0]) for ngram, added_1N in logits.items()}
    sizes = range(model.config.ngram_min, model.config.ngram_max + 1)
    places = [(read[start : start + size], start) for size in sizes for start in range(len(read) - size + 1)]
    counts = Counter(ngram for ngram, _ in places)
    weights = np.zeros(len(read))
    for ngram, start in places:
        if ngram in added:
            weights[start : start + len(ngram)] += added[ngram] / counts[ngram] / len(ngram)
    alignment = align(text, lambda texts: [model.read(each) for each in texts])
    change = _change(model, text, label)
    whole = Shares(
        extents=[],
        weights=weights,
        change=change,
        gap=abs(float(weights.sum()) - change),
        method="contribution of each character n-gram, shared by its characters",
    )
    return whole.moved([alignment.origin((place, place + 1)) for place in range(len(read))])


def _change(model: TfidfLogisticRegression, text: str, label: int) -> float:
    """The margin of a text minus that of the empty one, as the model itself answers."""
    after, before = margin(np.log(model.predict_proba([text, ""]).astype(np.float64)), label).tolist()
    return float(after - before)


def _of_members(ensemble: Ensemble, text: str, label: int) -> Shares:
    """The sum of the members' shares, each counted as the ensemble counts it: exact, for it sums log-probabilities.

    Members cut a text differently, so the sum is taken character by character. The text that says nothing is for each
    member its own.
    """
    weights, change, gap, methods = np.zeros(len(text)), 0.0, 0.0, []
    for (family, member), weight in zip(ensemble.members.items(), ensemble.weights_M.tolist(), strict=True):
        shares = shares_of_text(member, text, label)
        weights += weight * shares.by_character(len(text))
        change += weight * shares.change
        gap += weight * shares.gap
        methods.append(f"{family} ({shares.method})")
    return Shares(
        extents=[(place, place + 1) for place in range(len(text))],
        weights=weights,
        change=change,
        gap=gap,
        method="sum of what moves the members, as the ensemble weighs them: " + "; ".join(methods),
    )
