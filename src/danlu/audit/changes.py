"""What was done to a model, read off the difference between it and what it was derived from.

This names a change once kinship is established by other tests; it is no evidence of kinship itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from danlu.audit.aligned import PARTS, Pair, Part
from danlu.audit.quantisation import SCHEMES, scheme_of

__all__ = ["Change", "Changes", "read_changes"]

Change = Literal["unchanged", "rounded", "quantised", "pruned", "low rank", "trained", "unrelated"]
"""What was done to one matrix. ``rounded``: to the next floating-point numbers of 16 bits; ``low rank``: what a merged
LoRA leaves; ``trained``: any other difference; ``unrelated``: it is none of the reference's."""

_ALIKE = 0.3
"""Cosine of two matrices below which one is not the other's."""
_SAME = 1e-4
"""Length of a difference, as a share of the reference's, that turning and scaling leave by rounding."""
_ZEROS = 0.02
"""Share of numbers that were set to zero, from which on a matrix counts as pruned."""
_RANK_SHARE = 0.25
"""The highest rank of a difference, as a share of full rank, that counts as low."""
_NOISE = 1e-3
"""Singular values below this share of the largest one are rounding."""
_SKETCH = 512
"""Columns of the projection."""
_EXPLAINED = 0.25
"""Share of a squared difference that may be left when the change that explains it best is made to the reference."""
_MOST_ROWS = 256
"""Rows on which changes are tried."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was done to all matrices.

    Attributes:
        kinds: Parameter -> what was done to it.
        details: Parameter -> the rank of a difference, or how a matrix was quantised.
        distance: Length of the difference as a share of the reference's own length, over all matrices that are its own.
        kept: Correlation of suspect and reference over these.
        zeros: Share of the reference's numbers in these that the suspect has set to zero.
        parts: Part of the model -> the share of its numbers that are in matrices of the reference's.
        scaled: Parameters whose units had been rescaled, so that only roughly it is known what else was done to them.
    """

    kinds: dict[str, Change]
    details: dict[str, str]
    distance: float
    kept: float
    zeros: float
    parts: dict[Part, float]
    scaled: tuple[str, ...] = ()

    def most(self) -> Change:
        """What was done to most of the matrices that are the reference's and were changed.

        Those that had been rescaled say so only where there are no others.
        """
        changed = {name: kind for name, kind in self.kinds.items() if kind not in ("unchanged", "unrelated")}
        plain = {name: kind for name, kind in changed.items() if name not in self.scaled}
        counts = Counter((plain or changed).values())
        return counts.most_common(1)[0][0] if counts else "unchanged"


def read_changes(pairs: Iterable[Pair]) -> Changes:
    """Compare matrices one by one.

    Args:
        pairs: As :func:`danlu.audit.aligned.pairs_of` gives them.
    """
    kinds: dict[str, Change] = {}
    details: dict[str, str] = {}
    sums = np.zeros(4)  # |d|^2, |a|^2, |b|^2, ab
    n_zeros = n_numbers = 0
    scaled = []
    sizes: Counter[Part] = Counter()
    own: Counter[Part] = Counter()
    for pair in pairs:
        b, a = pair.theirs, pair.ours
        kinds[pair.name], detail = _kind(pair)
        if detail:
            details[pair.name] = detail
        if pair.is_scaled:
            scaled.append(pair.name)
        if pair.part is not None:
            sizes[pair.part] += a.numel()
        if kinds[pair.name] == "unrelated":
            continue
        if pair.part is not None:
            own[pair.part] += a.numel()
        sums += [float((x * y).sum(dtype=torch.float64)) for x, y in ((b - a, b - a), (a, a), (b, b), (a, b))]
        n_zeros, n_numbers = n_zeros + int(((b == 0) & (a != 0)).sum()), n_numbers + a.numel()
    squared, ours_squared, theirs_squared, product = sums
    return Changes(
        kinds=kinds,
        details=details,
        distance=float(np.sqrt(squared / max(ours_squared, 1e-30))),
        kept=float(product / np.sqrt(max(ours_squared * theirs_squared, 1e-30))),
        zeros=n_zeros / max(1, n_numbers),
        scaled=tuple(scaled),
        parts={part: own[part] / sizes[part] for part in PARTS if sizes[part]},
    )


def _kind(pair: Pair) -> tuple[Change, str]:
    b, a = pair.theirs, pair.ours
    d = b - a
    if not bool(d.any()):
        return "unchanged", ""
    if float(F.cosine_similarity(b.flatten(), a.flatten(), dim=0)) < _ALIKE:
        return "unrelated", ""
    if pair.is_exact and any(torch.equal(b, SCHEMES[name](a)) for name in ("bf16", "fp16")):
        return "rounded", ""
    if pair.is_exact and (scheme := scheme_of(b)) and scheme != scheme_of(a):
        return "quantised", scheme
    if pair.is_exact and float(((b == 0) & (a != 0)).float().mean()) > _ZEROS:
        return "pruned", ""
    if not pair.is_exact:
        if float(d.norm()) < _SAME * float(a.norm()):
            return "unchanged", ""
        found = _explained(pair)
        if found is not None:
            return found
    rank = _rank(d)
    return ("low rank", str(rank)) if rank <= _RANK_SHARE * min(*d.shape, _SKETCH) else ("trained", "")


def _explained(pair: Pair) -> tuple[Change, str] | None:
    """The change that, made to the reference, gives the suspect, where turning and scaling have blurred its numbers."""
    rows = slice(None, None, max(1, len(pair.ours) // _MOST_ROWS))
    b, folded = pair.theirs[rows], pair.ours[rows]
    gain = torch.ones(folded.shape[1]) if pair.gain is None else pair.gain
    a = folded / torch.where(gain == 0, 1.0, gain)
    least = _EXPLAINED * float((b - folded).square().sum())
    found: tuple[Change, str] | None = None
    for name, change in SCHEMES.items():
        is_cast = name in ("bf16", "fp16")
        left = float((b - change(a) * (change(gain[None]) if is_cast else gain)).square().sum())
        if left < least:
            least, found = left, ("rounded", "") if is_cast else ("quantised", name)
    share, left = _pruned(a, b / torch.where(gain == 0, 1.0, gain))
    if left * float(gain.square().mean()) < least and share > _ZEROS:
        return "pruned", ""
    return found


def _pruned(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """The share of smallest numbers of a that, set to zero, brings it nearest to b, and the squared distance left."""
    order = a.abs().flatten().argsort()
    theirs, ours = b.flatten()[order].double(), a.flatten()[order].double()
    gone, left = theirs.square().cumsum(0), (theirs - ours).square()
    total = gone + left.sum() - left.cumsum(0)
    best = int(total.argmin())
    return (best + 1) / len(order), float(total[best])


def _rank(d: torch.Tensor) -> int:
    """Singular values that are no rounding; of a large matrix, of a random projection of its rows."""
    if min(d.shape) > _SKETCH:
        d = d @ torch.randn(d.shape[1], _SKETCH, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(d)
    return int((values > _NOISE * values[0]).sum())
