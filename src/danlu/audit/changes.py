"""What was done to a model, read off the difference between it and what it was derived from.

This names a change once kinship is established by other tests; it is no evidence of kinship itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Literal

import torch

from danlu.audit.aligned import PARTS, Pair, Part
from danlu.audit.noise import is_noise
from danlu.audit.quantisation import SCHEMES, scheme_of

__all__ = ["Change", "Changes", "read_changes"]

Change = Literal["unchanged", "rounded", "quantised", "pruned", "low rank", "noise", "trained", "unrelated"]
"""What was done to one matrix. ``rounded``: to the next floating-point numbers of 16 bits; ``low rank``: what a merged
LoRA leaves; ``noise``: to each of its numbers a normal one was added; ``trained``: any other difference; ``unrelated``:
it is none of the reference's."""

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
"""Columns of the projection,"""
_FOLDED = 1024
"""and its rows."""
_EXPLAINED = 0.25
"""Share of a squared difference that may be left when the change that explains it best is made to the reference."""
_AT_ONCE = 2**18
"""Numbers of a matrix that are looked at together."""
_MOST_ROWS = 256
"""Rows on which changes are tried."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was done to all matrices.

    Attributes:
        kinds: Parameter -> what was done to it.
        details: Parameter -> the rank of a difference, how a matrix was quantised, or how large noise is beside it.
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
    total = _Sums()
    scaled = []
    sizes: Counter[Part] = Counter()
    own: Counter[Part] = Counter()
    for pair in pairs:
        sums = _summed(pair)
        kinds[pair.name], detail = _kind(pair, sums)
        if detail:
            details[pair.name] = detail
        if pair.is_scaled:
            scaled.append(pair.name)
        if pair.part is not None:
            sizes[pair.part] += sums.n
        if kinds[pair.name] == "unrelated":
            continue
        if pair.part is not None:
            own[pair.part] += sums.n
        total += sums
        del pair  # before the next one is read: tables of tokens are large
    return Changes(
        kinds=kinds,
        details=details,
        distance=total.distance,
        kept=total.cosine,
        zeros=total.n_zeros / max(1, total.n),
        scaled=tuple(scaled),
        parts={part: own[part] / sizes[part] for part in PARTS if sizes[part]},
    )


@dataclass(frozen=True)
class _Sums:
    """Over all numbers of one or more matrices: d is the difference, a the reference's, b the suspect's."""

    dd: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    n_zeros: int = 0
    n: int = 0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def distance(self) -> float:
        """Length of the difference as a share of the reference's."""
        return math.sqrt(self.dd / max(self.aa, 1e-30))

    @property
    def cosine(self) -> float:
        """Cosine of the two."""
        return self.ab / math.sqrt(max(self.aa * self.bb, 1e-30))


def _pieces(pair: Pair) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of both matrices, so few that they stay near the processor."""
    rows = max(1, _AT_ONCE // pair.ours.shape[1])
    yield from zip(torch.split(pair.theirs, rows), torch.split(pair.ours, rows), strict=True)


def _summed(pair: Pair) -> _Sums:
    sums = _Sums()
    for rows in _pieces(pair):
        b, a = (each.flatten() for each in rows)
        d = b - a
        dd, aa, bb, ab = (float(x.dot(y)) for x, y in ((d, d), (a, a), (b, b), (a, b)))
        sums += _Sums(dd, aa, bb, ab, int(((b == 0) & (a != 0)).sum()), len(a))
    return sums


def _kind(pair: Pair, sums: _Sums) -> tuple[Change, str]:
    b, a = pair.theirs, pair.ours
    if torch.equal(b, a):
        return "unchanged", ""
    if sums.cosine < _ALIKE:
        return "unrelated", ""
    if pair.is_exact and any(_is_rounded(pair, SCHEMES[name]) for name in ("bf16", "fp16")):
        return "rounded", ""
    if pair.is_exact and (scheme := scheme_of(b)) and scheme != scheme_of(a):
        return "quantised", scheme
    if pair.is_exact and sums.n_zeros > _ZEROS * sums.n:
        return "pruned", ""
    if not pair.is_exact:
        if sums.distance < _SAME:
            return "unchanged", ""
        found = _explained(pair)
        if found is not None:
            return found
    if is_noise(*_unfolded(pair)):
        return "noise", f"{sums.distance:.3g}"
    rank = _rank(pair)
    return ("low rank", str(rank)) if rank <= _RANK_SHARE * min(*a.shape, _SKETCH) else ("trained", "")


def _unfolded(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Both matrices before the reference's gains were multiplied in."""
    if pair.gain is None:
        return pair.theirs, pair.ours
    gain = torch.where(pair.gain == 0, 1.0, pair.gain)
    return pair.theirs / gain, pair.ours / gain


def _is_rounded(pair: Pair, scheme: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    return all(torch.equal(b, scheme(a)) for b, a in _pieces(pair))


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


def _rank(pair: Pair) -> int:
    """Singular values of the difference that are no rounding; of a large one, of a random projection of both sides.

    Rows that are so many apart are added, each with a sign drawn at random (Charikar et al., 2002).
    """
    n, width = pair.ours.shape
    if min(n, width) <= _SKETCH:
        d = pair.theirs - pair.ours
    else:
        draw = torch.Generator().manual_seed(0)
        folded, signs = torch.zeros(_FOLDED, width), torch.randint(2, (n, 1), generator=draw).float() * 2 - 1
        for some in torch.split(torch.arange(n), _FOLDED):
            rows = slice(int(some[0]), int(some[-1]) + 1)
            folded[: len(some)] += (pair.theirs[rows] - pair.ours[rows]) * signs[rows]
        d = folded @ torch.randn(width, _SKETCH, generator=draw)
    values = torch.linalg.svdvals(d)
    return int((values > _NOISE * values[0]).sum())
