"""What was done to a model, read off the difference between it and what it was derived from.

This names a change once kinship is established by other tests; it is no evidence of kinship itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from danlu.audit.quantisation import scheme_of
from danlu.audit.units import Parameters

__all__ = ["Change", "Changes", "read_changes"]

Change = Literal["unchanged", "quantised", "pruned", "low rank", "trained"]
"""What was done to one matrix. ``low rank``: what a merged LoRA leaves; ``trained``: any other difference."""

_ZEROS = 0.02
"""Share of numbers that were set to zero, from which on a matrix counts as pruned."""
_RANK_SHARE = 0.25
"""The highest rank of a difference, as a share of full rank, that counts as low."""
_NOISE = 1e-3
"""Singular values below this share of the largest one are rounding."""
_SKETCH = 512
"""Columns of the projection."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was done to all matrices.

    Attributes:
        kinds: Parameter -> what was done to it.
        details: Parameter -> the rank of a difference, or how a matrix was quantised.
        distance: Length of the difference as a share of the reference's own length, over all matrices.
        kept: Correlation of suspect and reference over all matrices.
        zeros: Share of the reference's numbers that the suspect has set to zero.
    """

    kinds: dict[str, Change]
    details: dict[str, str]
    distance: float
    kept: float
    zeros: float

    def most(self) -> Change:
        """What was done to most of the matrices that were changed."""
        changed = Counter(kind for kind in self.kinds.values() if kind != "unchanged")
        return changed.most_common(1)[0][0] if changed else "unchanged"


def read_changes(suspect: Parameters, reference: Parameters, names: Sequence[tuple[str, str]]) -> Changes:
    """Compare matrices one by one.

    Args:
        suspect: The derived model.
        reference: What it was derived from, in the same basis and with its units in the same order.
        names: Pairs of parameters, the suspect's and the reference's, of the same shape.
    """
    kinds: dict[str, Change] = {}
    details: dict[str, str] = {}
    sums = np.zeros(4)  # |d|^2, |a|^2, |b|^2, ab
    n_zeros = n_numbers = 0
    for theirs, ours in names:
        b, a = suspect.read(theirs), reference.read(ours)
        d = b - a
        sums += [float((x * y).sum(dtype=torch.float64)) for x, y in ((d, d), (a, a), (b, b), (a, b))]
        zeros = (b == 0) & (a != 0)
        n_zeros, n_numbers = n_zeros + int(zeros.sum()), n_numbers + a.numel()
        kinds[theirs], detail = _kind(a, b, d, zeros)
        if detail:
            details[theirs] = detail
    squared, ours_squared, theirs_squared, product = sums
    return Changes(
        kinds=kinds,
        details=details,
        distance=float(np.sqrt(squared / max(ours_squared, 1e-30))),
        kept=float(product / np.sqrt(max(ours_squared * theirs_squared, 1e-30))),
        zeros=n_zeros / max(1, n_numbers),
    )


def _kind(a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, zeros: torch.Tensor) -> tuple[Change, str]:
    if not bool(d.any()):
        return "unchanged", ""
    if (scheme := scheme_of(b)) and scheme != scheme_of(a):
        return "quantised", scheme
    if float(zeros.float().mean()) > _ZEROS:
        return "pruned", ""
    rank = _rank(d)
    return ("low rank", str(rank)) if rank <= _RANK_SHARE * min(*d.shape, _SKETCH) else ("trained", "")


def _rank(d: torch.Tensor) -> int:
    """Singular values that are no rounding; of a large matrix, of a random projection of its rows."""
    if min(d.shape) > _SKETCH:
        d = d @ torch.randn(d.shape[1], _SKETCH, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(d)
    return int((values > _NOISE * values[0]).sum())
