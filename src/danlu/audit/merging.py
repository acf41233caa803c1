"""Of which models a suspect was merged, and by which weights.

Models that were trained from one base may be merged number by number. Such a suspect B is, up to what the merge left
out, a weighted sum of its parents W_k with weights that add up to 1,

    B - W_0 = sum over k > 0 of a_k (W_k - W_0) + rest,    a_0 = 1 - sum of the others,

which least squares solve in each matrix and over all. Only products of differences are needed, so each matrix is read
once. How sure the weights are is seen by drawing matrices anew, with replacement (Efron, 1979). Where a sum leaves much
out and some of the numbers follow one exactly (:mod:`danlu.audit.agreed`), weights are those of these numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from danlu.audit.agreed import agreed_weights
from danlu.audit.aligned import Pair

__all__ = ["Merge", "decompose"]

_N_DRAWS = 1000
_COVERED = (2.5, 97.5)
"""Percentiles between which a weight lies."""
_LEAST = 0.03
"""The lower end of a parent's weight from which on it is one of those that were merged,"""
_MOST_LEFT = 0.7
"""and the share of the difference that may be left unexplained at the most."""
_EXPLAINED = 0.01
"""The share that may be left of a weighted sum that is all that was done."""
_N_NUMBERS = 2000
"""Numbers of each matrix that are looked at one by one."""
_COLLINEAR = 0.05
"""The share of what one parent adds to the others below which its weight cannot be told from theirs."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What a suspect is made of.

    Attributes:
        parents: Names, in the order that they were given.
        weights: Of each; they add up to 1.
        intervals: Of each, 95%.
        by_layer: Block -> the weights in it.
        left: Squared length of what no weighted sum explains, as a share of the squared distance to the parent that is
            nearest.
        agreeing: Share of numbers that weights were found by, where parents were left out number by number (TIES);
            None: by all numbers.
        is_merged: Whether two or more parents have a weight that is clearly above zero and most is explained.
        collinear: Parents whose weight can hardly be told from those of the others.
    """

    parents: tuple[str, ...]
    weights: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    by_layer: dict[str, tuple[float, ...]]
    left: float
    agreeing: float | None
    is_merged: bool
    collinear: tuple[str, ...]


@dataclass(frozen=True)
class _Products:
    """Products of differences from the first parent, in one or more matrices.

    Attributes:
        among: ``[K, K]``; of the other parents,
        with_suspect: ``[K]``; of these and the suspect,
        of_suspect: and the suspect's with itself.
    """

    among: np.ndarray
    with_suspect: np.ndarray
    of_suspect: float

    def weights(self) -> np.ndarray:
        """Least squares; of several solutions the shortest."""
        solved: np.ndarray = np.linalg.lstsq(self.among, self.with_suspect, rcond=1e-10)[0]
        return np.concatenate([[1.0 - solved.sum()], solved])

    def left(self) -> float:
        """Squared length of the rest."""
        a = self.weights()[1:]
        return max(0.0, float(self.of_suspect - 2 * a @ self.with_suspect + a @ self.among @ a))

    def nearest(self) -> float:
        """Squared distance to the nearest parent."""
        return float(min(self.of_suspect, *(self.of_suspect - 2 * self.with_suspect + self.among.diagonal())))


def decompose(matrices: Iterable[Sequence[Pair]], names: Sequence[str]) -> Merge | str:
    """Find by which weights a suspect was merged.

    Args:
        matrices: Every matrix of the suspect beside that of each possible parent, two or more of one architecture.
        names: What the parents are called.

    Returns:
        What was found, or why nothing can be.
    """
    found: dict[str, _Products] = {}
    some: dict[str, list[np.ndarray]] = {}
    draw = np.random.default_rng(0)
    for pairs in matrices:
        if len({pair.ours.shape for pair in pairs}) == 1:
            theirs, ours = pairs[0].theirs, [pair.ours for pair in pairs]
            found[pairs[0].name] = _products(theirs, ours)
            drawn = torch.from_numpy(draw.permutation(theirs.numel())[:_N_NUMBERS])
            some[pairs[0].name] = [each.flatten()[drawn].double().numpy() for each in (theirs, *ours)]
    total = _sum(list(found.values()))
    if not found or total.nearest() <= 0.0:
        return "the suspect is one of its possible parents, or they have no matrices in common"
    left, agreeing = total.left() / total.nearest(), None
    if left > _EXPLAINED and (alike := _agreeing(some)) is not None:
        found, agreeing = alike
    weights, low, high = _with_intervals(list(found.values()), draw)
    layers: defaultdict[str, list[_Products]] = defaultdict(list)
    for name, products in found.items():
        head, _, rest = name.partition(".")
        layers[rest.partition(".")[0] if head == "blocks" else head].append(products)
    return Merge(
        parents=tuple(names),
        weights=tuple(weights.tolist()),
        intervals=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        by_layer={layer: tuple(_sum(of_layer).weights().tolist()) for layer, of_layer in layers.items()},
        left=left,
        agreeing=agreeing,
        is_merged=int((low > _LEAST).sum()) > 1 and (agreeing is not None or left < _MOST_LEFT),
        collinear=tuple(name for name, adds in zip(names, _adds(total.among), strict=True) if adds < _COLLINEAR),
    )


def _with_intervals(every: Sequence[_Products], draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights, and between what they lie."""
    drawn = (_sum([every[n] for n in draw.integers(len(every), size=len(every))]) for _ in range(_N_DRAWS))
    low, high = np.percentile([each.weights() for each in drawn], _COVERED, axis=0)
    return _sum(every).weights(), low, high


def _agreeing(some: Mapping[str, Sequence[np.ndarray]]) -> tuple[dict[str, _Products], float] | None:
    """The products of the numbers alone at which all that were merged were taken, and the share of them."""
    suspect, *parents = (np.concatenate(each) for each in zip(*some.values(), strict=True))
    agreed = agreed_weights(suspect, parents)
    if agreed is None:
        return None
    _, shows = agreed
    ends = np.cumsum([len(theirs) for theirs, *_ in some.values()])
    found = {}
    for (name, numbers), here in zip(some.items(), np.split(shows, ends[:-1]), strict=True):
        if here.any():
            theirs, *ours = (torch.from_numpy(each[here]) for each in numbers)
            found[name] = _products(theirs, ours)
    return found, float(shows.mean())


def _products(suspect: torch.Tensor, parents: Sequence[torch.Tensor]) -> _Products:
    base = parents[0]
    differences = torch.stack([(parent - base).flatten() for parent in parents[1:]]).double()
    own = (suspect - base).flatten().double()
    return _Products((differences @ differences.T).numpy(), (differences @ own).numpy(), float(own @ own))


def _sum(products: Sequence[_Products]) -> _Products:
    among, with_suspect = (sum(each.among for each in products), sum(each.with_suspect for each in products))
    return _Products(np.asarray(among), np.asarray(with_suspect), sum(each.of_suspect for each in products))


def _adds(among: np.ndarray) -> list[float]:
    """For each parent the share of its squared distance to another that no weighted sum of the others explains."""
    n = len(among) + 1
    products = np.zeros((n, n))
    products[1:, 1:] = among
    found = []
    for number in range(n):
        first, *rest = (each for each in range(n) if each != number)
        seen = np.eye(n)[[*rest, number]] - np.eye(n)[first]  # the others and this one, seen from one of the others
        gram = seen @ products @ seen.T
        own, squared = gram[:-1, -1], float(gram[-1, -1])
        explained = float(own @ np.linalg.lstsq(gram[:-1, :-1], own, rcond=1e-10)[0]) if rest else 0.0
        found.append((squared - explained) / max(squared, 1e-300))
    return found
