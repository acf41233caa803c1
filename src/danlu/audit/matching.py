"""Which units of a suspect's block are which of the reference's, wherever they stand and however they were scaled.

Vectors are held against each other by some of their channels, the same ones for all units, and by all of them where
there are few: that is enough to tell units from each other, and of a large model it is all that memory and time allow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from danlu.audit.units import Component, Parameters, blocks_of, drawn_units, read_units

__all__ = ["BLOCK", "Match", "block_likeness", "gain_of", "match_units", "places_in"]

_AS_GOOD = 0.8
"""Units count as being at their places where those give no less than this share of what the best places give."""
_MOVED = 0.5
"""Share of units that must stand elsewhere before they count as put into another order,"""
_TURNED = 0.25
"""and share of neighbours that must be turned round where there are more or fewer units than there were: leaving some
out moves the others and turns none round; a random order turns half."""
_ONE = 0.45
"""Cosine from which on two units are one; channels of a head that was turned are nearer to one of its own than matrices
are by chance."""
_SCALED = 0.2
"""Standard deviation of the logarithm of how much longer units' inputs have become, that training does not bring."""
_FOUND = 0.3
"""Share of units that must be found again before their places mean anything."""
_MOST_CHANNELS = 256
"""Channels by which units are compared; drawn at random where there are more than twice as many."""
_MOST_LOOKED_FOR = 128
"""Units of a block that are looked for where blocks are compared, the first ones;"""
_MOST_PLACES = 512
"""and those by which it is seen that units are at their places, evenly spaced where there are more."""
_AT_ONCE = 2048
"""Units that are read, or looked for, together."""

BLOCK = re.compile(
    r"blocks\.(\d+)\.(attention|feedforward)\.((?:experts\.\d+\.|shared\.)?)(q|k|v|out|gate|up|down)\.weight"
)
"""A matrix of a block: its number, half, expert and kind."""
_NORMS = {"attention": "attention_norm", "feedforward": "feedforward_norm"}


@dataclass(frozen=True)
class Match:
    """Units of a block of the suspect, and those of the reference that they are.

    Attributes:
        theirs: int64 [n]; the suspect's, by their places,
        ours: int64 [n]; and the reference's.
        heads: Heads of values and the channels of each, in both, where these are channels of values.
        scale: float [n]; by how much what the suspect's read is longer, and what they write shorter; None: as it was.
    """

    theirs: torch.Tensor
    ours: torch.Tensor
    heads: tuple[tuple[int, int], tuple[int, int]] | None = None
    scale: torch.Tensor | None = None

    @property
    def is_moved(self) -> bool:
        """Whether they stand in another order; units that others were taken from between them do not."""
        turned = (self.ours[self.theirs.argsort()].diff() < 0).float().mean()
        as_many = self.theirs.max() == self.ours.max()
        return bool((self.theirs != self.ours).float().mean() > _MOVED and (as_many or turned > _TURNED))


def block_likeness(
    suspect: Parameters, reference: Parameters, bases: Mapping[str, torch.Tensor | None]
) -> dict[str, torch.Tensor]:
    """How like a hidden unit of the reference the most like unit of the suspect is, on average, block by block.

    Args:
        suspect: The suspect,
        reference: and the reference; their feed-forward parts are as their blocks.
        bases: Rotations that bring the suspect into the reference's basis, by name; None: it is in it.

    Returns:
        ``[their blocks, our blocks]`` for every basis.
    """
    ours = []
    for number, block in enumerate(blocks_of(reference, "feed-forward")):
        rows = torch.arange(min(_MOST_LOOKED_FOR, reference.shape(block.down)[1]))
        ours.append(_channels(reference, "feed-forward", number, [None], rows)[0].flatten(0, 1))
    n_vectors, sizes = ours[0].shape[1], [len(units) for units in ours]
    looked_for = torch.cat(ours).flatten(1)
    found: dict[str, list[torch.Tensor]] = {basis: [] for basis in bases}
    for number in range(len(blocks_of(suspect, "feed-forward"))):
        sides = _channels(suspect, "feed-forward", number, list(bases.values()))
        for basis, theirs in zip(bases, sides, strict=True):
            best = (looked_for @ theirs.flatten(0, 1).flatten(1).T).amax(1) / n_vectors
            found[basis].append(torch.stack([units.mean() for units in torch.split(best, sizes)]))
    return {basis: torch.stack(values) for basis, values in found.items()}


def _channels(
    model: Parameters,
    component: Component,
    block: int,
    turns: Sequence[torch.Tensor | None],
    rows: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """Some channels of the units of a block, brought to length 1, once for each of some rotations.

    Args:
        model: The model.
        component: Which units.
        block: Its number in :func:`danlu.audit.units.blocks_of`.
        turns: What they are turned by.
        rows: The numbers of the units in every stratum; None: all of them.

    Returns:
        ``[strata, n, n_vectors, channels]`` for every rotation.
    """
    one = read_units(model, component, block, torch.arange(1))
    width, rows = one.vectors.shape[-1], torch.arange(one.of[1]) if rows is None else rows
    found: list[list[torch.Tensor]] = [[] for _ in turns]
    for some in torch.split(rows, _AT_ONCE):
        vectors = read_units(model, component, block, some).vectors
        for turn, pieces in zip(turns, found, strict=True):
            kept = _drawn_channels(width if turn is None else turn.shape[1])
            pieces.append(F.normalize(vectors[..., kept] if turn is None else vectors @ turn[:, kept], dim=-1))
    return [torch.cat(pieces, dim=1) for pieces in found]


def _drawn_channels(width: int) -> torch.Tensor:
    if width <= 2 * _MOST_CHANNELS:
        return torch.arange(width)
    return torch.from_numpy(drawn_units(width)[:_MOST_CHANNELS]).sort().values


def match_units(
    suspect: Parameters, reference: Parameters, component: Component, at: tuple[int, int], turn: torch.Tensor | None
) -> Match | None:
    """Which units of a block are which; None: each at its own place and scale, or nothing can be said.

    Args:
        suspect: The suspect,
        reference: and the reference.
        component: Which units.
        at: The block of the suspect, and that of the reference.
        turn: Brings the suspect into the reference's basis; None: it is in it.
    """
    names = {"feed-forward": ("feedforward.up", "feedforward.down"), "values": ("attention.v", "attention.out")}
    paths = [[f"blocks.{n}.{name}.weight" for name in names[component]] for n in at]
    if not all(name in each for each, of_side in zip((suspect, reference), paths, strict=True) for name in of_side):
        return None
    if any(len(blocks_of(each, component)) != each.n_blocks for each in (suspect, reference)):
        return None
    if component == "values" and (suspect.traits.d_value is None or reference.traits.d_value is None):
        return None
    if turn is None and suspect.shape(paths[0][0])[1] != reference.shape(paths[1][0])[1]:
        return None
    models = (suspect, reference)
    sizes = [read_units(each, component, n, torch.arange(1)).of for each, n in zip(models, at, strict=True)]
    n_theirs, n_ours = (math.prod(size) for size in sizes)
    where: tuple[torch.Tensor, torch.Tensor] | None = (torch.arange(n_ours), torch.arange(n_ours))
    few = torch.arange(0, sizes[1][1], max(1, sizes[1][1] // _MOST_PLACES))
    # Where units are this like those at their own places, no others can be much more.
    if sizes[0] != sizes[1] or _alike(*_both(models, component, at, turn, few)) < _AS_GOOD:
        where = _places(*_both(models, component, at, turn, None))
    if where is None:
        return None
    scale = _scale(suspect, reference, component, paths, where)
    if torch.equal(*where) and scale is None and n_theirs == n_ours:
        return None
    return Match(*where, (sizes[0], sizes[1]) if component == "values" else None, scale)


def _both(
    models: tuple[Parameters, Parameters],
    component: Component,
    at: tuple[int, int],
    turn: torch.Tensor | None,
    rows: torch.Tensor | None,
) -> list[torch.Tensor]:
    """The suspect's units and the reference's, ``[n, n_vectors, channels]``."""
    sides = zip(models, at, (turn, None), strict=True)
    return [_channels(model, component, block, [turned], rows)[0].flatten(0, 1) for model, block, turned in sides]


def _alike(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """The mean cosine of units and those at their own places."""
    return float((theirs * ours).sum(-1).mean()) if theirs.shape == ours.shape else -1.0


def _places(theirs: torch.Tensor, ours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Which of theirs are which of ours, by their numbers; None: too few are found to say."""
    if theirs.shape[1:] != ours.shape[1:]:
        return None
    places, at_places = torch.arange(len(ours)), _alike(theirs, ours)
    theirs, ours = (side.flatten(1) / side.shape[1] ** 0.5 for side in (theirs, ours))
    best, partner, chosen_by = _nearest(theirs, ours)
    if len(theirs) == len(ours) and at_places >= _AS_GOOD * float(best.mean()):
        return places, places
    mutual = (chosen_by[partner] == places) & (best > _ONE)
    if float(mutual.sum()) < _FOUND * min(len(theirs), len(ours)):
        return None
    return partner[mutual], places[mutual]


def _nearest(theirs: torch.Tensor, ours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How like ours the most like of theirs are, and which these are; and for each of theirs the most like of ours."""
    best, partner = [], []
    most, chosen_by = torch.full((len(theirs),), -2.0), torch.zeros(len(theirs), dtype=torch.int64)
    for number, some in enumerate(torch.split(ours, _AT_ONCE)):
        cosines = some @ theirs.T
        values, which = cosines.max(1)
        best.append(values)
        partner.append(which)
        values, which = cosines.max(0)
        chosen_by = torch.where(values > most, which + number * _AT_ONCE, chosen_by)
        most = torch.maximum(values, most)
    return torch.cat(best), torch.cat(partner), chosen_by


def _scale(
    suspect: Parameters,
    reference: Parameters,
    component: Component,
    paths: list[list[str]],
    where: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor | None:
    """By how much units read more and write less, or the other way round; None: by no more than training brings."""
    lengths = []
    for model, (reads, writes), units in zip((suspect, reference), paths, where, strict=True):
        gain = gain_of(model, reads)
        matrix = model.read(reads)
        written = model.read(writes).norm(dim=0)
        if component == "values":
            width = model.traits.d_value or 1
            written = written.reshape(len(matrix) // width, -1, width).norm(dim=1).flatten()
        lengths.append(((matrix if gain is None else matrix * gain).norm(dim=1)[units], written[units]))
    theirs, ours = (torch.stack(each).clamp(min=1e-30).log() for each in lengths)
    read, written = theirs - ours
    if float(read.std()) < _SCALED or float(torch.corrcoef(torch.stack([read, written]))[0, 1]) > -0.9:
        return None
    by: torch.Tensor = ((read - written) / 2).exp()
    return by


def gain_of(model: Parameters, name: str) -> torch.Tensor | None:
    """What a matrix is multiplied by from the norm that it reads from."""
    match = BLOCK.fullmatch(name)
    norm = f"blocks.{match[1]}.{_NORMS[match[2]]}.weight" if match is not None else "norm.weight"
    return model.read(norm) if model.traits.norm_first and norm in model else None


def places_in(match: Match, kind: str, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows or columns of both matrices that are matched.

    Args:
        match: Of the units of the half of the block that they belong to.
        kind: Which matrix of that half.
        sizes: Rows or columns that the two matrices have.
    """
    if match.heads is None or kind == "v":
        return match.theirs, match.ours
    if kind == "out":
        their_heads, our_heads = match.heads
        return _columns(match.theirs, their_heads, sizes[0]), _columns(match.ours, our_heads, sizes[1])
    return _heads(match, sizes)


def _columns(units: torch.Tensor, of: tuple[int, int], n: int) -> torch.Tensor:
    """Those that channels of values are written by, for every query head that shares their head."""
    n_heads, width = of
    heads, channels, shared = units // width, units % width, n // (n_heads * width)
    return ((heads[:, None] * shared + torch.arange(shared)) * width + channels[:, None]).flatten()


def _heads(match: Match, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of queries or keys, head by head, each where most of its values come from."""
    assert match.heads is not None
    (_, their_width), (n, width) = match.heads
    theirs, ours = match.theirs // their_width, match.ours // width
    from_head = torch.stack([torch.bincount(theirs[ours == head], minlength=n).argmax() for head in range(n)])
    rows = torch.arange(sizes[1])
    if sizes[0] != sizes[1] or sizes[1] % n or len(set(from_head.tolist())) < n:
        return torch.arange(sizes[0]), rows
    size = sizes[1] // n
    return (from_head[:, None] * size + torch.arange(size)).flatten(), rows
