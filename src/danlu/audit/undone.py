"""Disguises of single matrices, undone pair by pair: heads whose channels were turned, gains that changed places.

Queries and keys of a head may be turned by one rotation, and so may its values if what writes them is turned back; a
gain may be divided out of the norm and multiplied into the matrices that read from it. The model computes the same. A
rotation is found from one of the two matrices that share it and must hold for the other. Like
:mod:`danlu.audit.aligned` this names what was done, and is no evidence of kinship itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from danlu.audit.aligned import Alignment, Pair
from danlu.audit.alignment import procrustes
from danlu.audit.matching import gain_of
from danlu.audit.units import Parameters

__all__ = ["undone"]

_ALIKE = 0.3
"""Cosine from which on two matrices are taken to be of one origin."""
_BETTER = 0.8
"""Share of the cosine afterwards that there may have been before, or else"""
_NEARER = 0.1
"""share of the squared distance that may be left, once heads are turned back or gains multiplied in; with more of both,
they are left as they are."""
_SAME = 1e-4
"""Length of a difference, as a share of the reference's, that is rounding."""
_MOST_ROWS = 1024
"""Rows by which that is seen of gains, evenly spaced where there are more,"""
_MOST_CHANNELS = 512
"""and channels of the sequence by which it is of heads."""
_HEADS = re.compile(r"blocks\.(\d+)\.attention\.(q|k|v|out)\.weight")
_PARTNERS = {"q": ("q", "k"), "k": ("q", "k"), "v": ("v", "out"), "out": ("v", "out")}


def undone(
    pairs: Iterable[Pair], suspect: Parameters, reference: Parameters, found: Alignment, seen: set[str]
) -> Iterator[Pair]:
    """The pairs, with what is found undone.

    Args:
        pairs: As :func:`danlu.audit.aligned.pairs_of` gives them.
        suspect: The suspect,
        reference: and the reference.
        found: How they stand to each other.
        seen: Gets ``heads turned`` and ``rescaled`` where that is found.
    """
    waiting: defaultdict[tuple[str, tuple[str, str]], dict[str, Pair]] = defaultdict(dict)
    widths: dict[str, int] = {}
    d_value = suspect.traits.d_value
    for pair in pairs:
        match = _HEADS.fullmatch(pair.name)
        pair = _with_gain(pair, suspect, reference, found, seen)
        if match is None or d_value is None or d_value != reference.traits.d_value:
            yield pair
            continue
        block, kind = match.groups()
        both = waiting[block, _PARTNERS[kind]]
        both[kind] = pair
        if kind == "out":
            widths[block] = pair.ours.shape[1] // d_value  # heads of queries
        if len(both) == 2 and (kind in ("v", "out") or block in widths):
            yield from _heads(waiting.pop((block, _PARTNERS[kind])), d_value, widths[block], seen)
    for (block, _), both in waiting.items():
        if d_value is not None and len(both) == 2 and block in widths:
            yield from _heads(both, d_value, widths[block], seen)
        else:
            yield from both.values()


def _with_gain(pair: Pair, suspect: Parameters, reference: Parameters, found: Alignment, seen: set[str]) -> Pair:
    """With gains multiplied in, where the two are much nearer so."""
    if found.rotation is not None or pair.part in (None, "embeddings") or _writes(pair.name):
        return pair
    gains = gain_of(suspect, pair.name), gain_of(reference, found.counterpart(pair.name))
    if (
        gains[0] is None
        or gains[1] is None
        or len(gains[0]) != pair.theirs.shape[1]
        or gains[0].shape != gains[1].shape
    ):
        return pair
    some = slice(None, None, max(1, len(pair.ours) // _MOST_ROWS))
    b, a = pair.theirs[some], pair.ours[some]
    if _distance(b * gains[0], a * gains[1]) >= _NEARER * _distance(b, a) or torch.equal(pair.theirs, pair.ours):
        return pair
    seen.add("rescaled")
    return replace(pair, theirs=pair.theirs * gains[0], ours=pair.ours * gains[1], gain=gains[1], is_exact=False)


def _heads(both: dict[str, Pair], d_value: int, n_queries: int, seen: set[str]) -> Iterator[Pair]:
    """Two matrices that share the channels of heads, with these turned back where they were turned."""
    if "v" in both:
        first, second, width = both["v"], both["out"], d_value
        columns = True
    else:
        first, second, width = both["q"], both["k"], both["q"].ours.shape[0] // n_queries
        columns = False
    if any(len(each) % width for each in (first.theirs, first.ours)):  # some channels only were found again
        yield from both.values()
        return
    sides = [_by_head(first.theirs, width), _by_head(first.ours, width)]
    others = [_by_head(each.T if columns else each, width) for each in (second.theirs, second.ours)]
    if sides[0].shape != sides[1].shape or others[0].shape != others[1].shape:
        yield from both.values()
        return
    n_groups = min(len(sides[0]), len(others[0]))
    # A head of keys or values may be shared by several heads of queries: these have one rotation.
    fitted = [each.reshape(n_groups, -1, width, each.shape[-1]) for each in sides]
    checked = [each.reshape(n_groups, -1, width, each.shape[-1]) for each in others]
    theirs, ours = map(_some, checked)
    if not _is_nearer(theirs, ours, _turns(*map(_some, fitted))):
        yield from both.values()
        return
    seen.add("heads turned")
    turns = _turns(*fitted)
    of_first, of_second = (_turned(each[0], turns).flatten(0, 2) for each in (fitted, checked))
    yield replace(first, theirs=of_first, is_exact=False)
    yield replace(second, theirs=of_second.T if columns else of_second, is_exact=False)


def _turns(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """The rotations that bring heads nearest to ours, one a group: ``[groups, width, width]``.

    Args:
        theirs: ``[groups, heads, width, D]``,
        ours: and likewise.
    """
    sides = zip(theirs, ours, strict=True)
    return torch.stack([procrustes(*(each.transpose(1, 2).flatten(0, 1) for each in pair)) for pair in sides])


def _turned(heads: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Heads ``[groups, heads, width, D]``, turned."""
    return turns.mT[:, None] @ heads


def _some(heads: torch.Tensor) -> torch.Tensor:
    """Heads ``[groups, heads, width, D]`` in some channels of the sequence."""
    return heads[..., :: -(-heads.shape[-1] // _MOST_CHANNELS)]


def _is_nearer(theirs: torch.Tensor, ours: torch.Tensor, turns: torch.Tensor) -> bool:
    """Whether heads that the rotations were not fitted to are far more like ours for being turned by them."""
    turned = _turned(theirs, turns)
    before, after = _distance(theirs, ours), _distance(turned, ours)
    if before < _SAME**2 or _cosine(turned, ours) < _ALIKE:
        return False
    return after < _NEARER * before or _cosine(theirs, ours) < _BETTER * _cosine(turned, ours)


def _by_head(matrix: torch.Tensor, width: int) -> torch.Tensor:
    """``[heads, width, D]``."""
    return matrix.reshape(-1, width, matrix.shape[1])


def _writes(name: str) -> bool:
    return name.endswith(("out.weight", "down.weight"))


def _cosine(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    b, a = theirs.flatten(), ours.flatten()
    return float(a @ b / (a.norm() * b.norm()).clamp(min=1e-30))


def _distance(b: torch.Tensor, a: torch.Tensor) -> float:
    return float((b - a).square().sum() / a.square().sum().clamp(min=1e-30))
