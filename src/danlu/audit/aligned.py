"""A suspect's matrices beside those of the reference that they come from, once what hid them is undone.

A copy may have its sequence turned and its gains folded, its blocks repeated or left out, its units put into another
order and scaled. Where that is found, matrices are turned back, sorted back and scaled back before they are compared.
This looks for the likeness that it then shows, so it serves to name what was done once kinship is established by other
tests, and is no evidence of kinship itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from danlu.audit.alignment import TOKENS, from_tokens, procrustes, shared_rows
from danlu.audit.unit_order import OrderTest
from danlu.audit.units import COMPONENTS, Component, Parameters, blocks_of, read_units

__all__ = ["PARTS", "Alignment", "Pair", "Part", "align", "gain_of", "pairs_of", "place"]

Part = Literal["embeddings", "attention", "feed-forward"]
PARTS: tuple[Part, ...] = ("embeddings", "attention", "feed-forward")

_CLEAR = 5.0
"""z of a test of order from which on its blocks and its basis are taken."""
_AS_GOOD = 0.8
"""A plainer choice is kept that gives no less than this share of the best one."""
_MOVED = 0.5
"""Share of units that must stand elsewhere before they count as put into another order,"""
_TURNED = 0.25
"""and share of neighbours that must be turned round where there are more or fewer units than there were: leaving some
out moves the others and turns none round; a random order turns half."""
_ALIKE = 0.3
"""Cosine from which on two matrices are taken to be of one origin,"""
_ONE = 0.45
"""and two units; channels of a head that was turned are nearer to one of its own than matrices are by chance."""
_SCALED = 0.2
"""Standard deviation of the logarithm of how much longer units' inputs have become, that training does not bring."""
_FOUND = 0.3
"""Share of units that must be found again before their places mean anything."""
_ROUNDING = 1e-10
"""Squared length of a difference, as a share, that is rounding."""
_MOST_LOOKED_FOR = 128
"""Units of a block that are looked for where blocks are compared."""
_BLOCK = re.compile(
    r"blocks\.(\d+)\.(attention|feedforward)\.((?:experts\.\d+\.|shared\.)?)(q|k|v|out|gate|up|down)\.weight"
)
_NORMS = {"attention": "attention_norm", "feedforward": "feedforward_norm"}


@dataclass(frozen=True)
class _Match:
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


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a suspect stands to a reference.

    Attributes:
        layer_map: The block of the reference for each of the suspect.
        basis: In which basis they agree: ``same``, that of the ``tokens``, or that of the ``units``.
        rotation: Brings the suspect into the reference's basis; None: it is in it.
        matches: Units of the suspect's blocks that are the reference's at other places, or at another scale.
    """

    layer_map: tuple[int, ...]
    basis: str
    rotation: torch.Tensor | None
    matches: Mapping[tuple[int, Component], _Match] = field(default_factory=dict)

    def counterpart(self, name: str) -> str:
        """What the reference calls what the suspect calls so."""
        found = re.match(r"blocks\.(\d+)\.(.*)", name)
        if found is None or int(found[1]) >= len(self.layer_map):
            return name
        return f"blocks.{self.layer_map[int(found[1])]}.{found[2]}"

    @property
    def disguises(self) -> tuple[str, ...]:
        """What was done that no training does: ``rotated``, ``reordered``, ``rescaled``."""
        matches = self.matches.values()
        found = {
            "rotated": self.rotation is not None,
            "reordered": any(match.is_moved for match in matches),
            "rescaled": any(match.scale is not None for match in matches),
        }
        return tuple(name for name, is_so in found.items() if is_so)


@dataclass(frozen=True)
class Pair:
    """A matrix of the suspect and that of the reference that it comes from, in one basis.

    Attributes:
        name: The suspect's name for it.
        part: Which part of the model it belongs to; None: to none that is known.
        theirs: float32,
        ours: and of the same shape.
        gain: What was folded into the reference's matrix; None: nothing.
        is_exact: Whether every bit is as the suspect has it.
        is_scaled: Whether its units had been rescaled; how much is known about as well as they are alike.
    """

    name: str
    part: Part | None
    theirs: torch.Tensor
    ours: torch.Tensor
    gain: torch.Tensor | None
    is_exact: bool
    is_scaled: bool = False


def align(suspect: Parameters, reference: Parameters, order: Mapping[Component, OrderTest | str]) -> Alignment:
    """Find how a suspect stands to a reference, down to its units."""
    found = place(suspect, reference, order)
    matches = {
        (block, component): match
        for component in COMPONENTS
        for block, origin in enumerate(found.layer_map)
        if (match := _match(suspect, reference, component, (block, origin), found.rotation)) is not None
    }
    found = replace(found, matches=matches)
    return found if found.rotation is None else _refined(suspect, reference, found)


def place(suspect: Parameters, reference: Parameters, order: Mapping[Component, OrderTest | str]) -> Alignment:
    """Find the blocks and the basis alone: by the tests of order where they are clear, else by likeness."""
    tests = [test for test in order.values() if isinstance(test, OrderTest) and test.z > _CLEAR]
    best = max(tests, key=lambda test: test.z, default=None)
    if best is None:
        return _by_likeness(suspect, reference)
    both = list(zip(best.blocks, best.origins, strict=True))
    layers = {int(block.split()[0]): int(origin.split()[0]) for block, origin in reversed(both)}
    layer_map = tuple(layers.get(layer, min(layer, reference.n_blocks - 1)) for layer in range(suspect.n_blocks))
    rotation = _rotation(suspect, reference, best, layer_map)
    return Alignment(layer_map=layer_map, basis=best.basis, rotation=rotation)


def pairs_of(suspect: Parameters, reference: Parameters, found: Alignment) -> Iterator[Pair]:
    """All matrices of the suspect that have a counterpart, one after another."""
    for name in suspect.names:
        match = _BLOCK.fullmatch(name)
        ours = found.counterpart(name)
        if match is not None and match[3] and ours not in reference:
            ours = ours.replace(match[3], "")  # an expert that a whole feed-forward part was made into
        if ours not in reference or len(suspect.shape(name)) != 2 or len(reference.shape(ours)) != 2:
            continue
        if match is not None:
            pair = _of_block(suspect, reference, found, name, ours)
        elif name == TOKENS:
            pair = _of_tokens(suspect, reference, found)
        elif found.rotation is None:
            pair = Pair(name, None, suspect.read(name), reference.read(ours), None, is_exact=True)
        else:
            continue
        if pair is not None and pair.theirs.shape == pair.ours.shape:
            yield pair


def _rotation(
    suspect: Parameters, reference: Parameters, test: OrderTest, layer_map: tuple[int, ...]
) -> torch.Tensor | None:
    """That of the basis in which a test of order was made."""
    if test.basis == "same":
        return None
    if test.basis == "tokens":
        return from_tokens(suspect, reference)
    sides: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for block, origin in enumerate(layer_map):
        both = ((suspect, block), (reference, origin))
        theirs, ours = (read_units(each, test.component, number).vectors for each, number in both)
        if theirs.shape[:3] == ours.shape[:3]:
            sides[0].append(theirs.flatten(0, 2))
            sides[1].append(ours.flatten(0, 2))
    return procrustes(torch.cat(sides[0]), torch.cat(sides[1])) if sides[0] else None


def _by_likeness(suspect: Parameters, reference: Parameters) -> Alignment:
    """Blocks and basis by how like a unit of the reference the most like unit of the suspect is."""
    n_theirs, n_ours = suspect.n_blocks, reference.n_blocks
    itself = tuple(min(block, n_ours - 1) for block in range(n_theirs))
    n_parts = [len(blocks_of(each, "feed-forward")) for each in (suspect, reference)]
    if n_parts != [n_theirs, n_ours] or 0 in n_parts:
        return Alignment(layer_map=itself, basis="same", rotation=None)
    ours = [read_units(reference, "feed-forward", n).vectors[0] for n in range(n_ours)]
    theirs = [read_units(suspect, "feed-forward", n).vectors[0] for n in range(n_theirs)]
    rotation = from_tokens(suspect, reference)
    bases: dict[str, torch.Tensor | None] = {"same": None} if ours[0].shape[2] == theirs[0].shape[2] else {}
    bases |= {} if rotation is None else {"tokens": rotation}
    if not bases or ours[0].shape[1] != theirs[0].shape[1]:
        return Alignment(layer_map=itself, basis="same", rotation=None)
    likeness = {
        basis: np.array([[_likeness(mine, _turned(other, turn)) for mine in ours] for other in theirs])
        for basis, turn in bases.items()
    }
    most = max(float(each.max(1).mean()) for each in likeness.values())
    basis = next(name for name, each in likeness.items() if float(each.max(1).mean()) >= _AS_GOOD * most)
    best, values = likeness[basis].argmax(1), likeness[basis]
    at_itself = values[np.arange(n_theirs), itself]
    layer_map = np.where(at_itself >= _AS_GOOD * values.max(1), itself, best)
    return Alignment(layer_map=tuple(layer_map.tolist()), basis=basis, rotation=bases[basis])


def _turned(vectors: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
    return vectors if rotation is None else F.normalize(vectors @ rotation, dim=-1)


def _likeness(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    some = ours[:_MOST_LOOKED_FOR]
    return float((some.flatten(1) @ theirs.flatten(1).T).amax(1).mean()) / ours.shape[1]


def _match(
    suspect: Parameters, reference: Parameters, component: Component, at: tuple[int, int], turn: torch.Tensor | None
) -> _Match | None:
    """Which units of a block are which; None: each at its own place and scale, or nothing can be said."""
    names = {"feed-forward": ("feedforward.up", "feedforward.down"), "values": ("attention.v", "attention.out")}
    paths = [[f"blocks.{n}.{name}.weight" for name in names[component]] for n in at]
    if not all(name in each for each, of_side in zip((suspect, reference), paths, strict=True) for name in of_side):
        return None
    if any(len(blocks_of(each, component)) != each.n_blocks for each in (suspect, reference)):
        return None
    if component == "values" and (suspect.traits.d_value is None or reference.traits.d_value is None):
        return None
    theirs, ours = (read_units(each, component, n) for each, n in zip((suspect, reference), at, strict=True))
    if theirs.vectors.shape[2] != ours.vectors.shape[2]:
        return None
    sides = [_turned(theirs.vectors, turn).flatten(0, 1).flatten(1), ours.vectors.flatten(0, 1).flatten(1)]
    if sides[0].shape[1] != sides[1].shape[1]:
        return None
    cosines = sides[1] @ sides[0].T / ours.vectors.shape[2]
    best, partner = cosines.max(1)
    places = torch.arange(len(cosines))
    same_size = cosines.shape[0] == cosines.shape[1]
    if same_size and float(cosines.diagonal().mean()) >= _AS_GOOD * float(best.mean()):
        where = places, places
    else:
        mutual = (cosines.argmax(0)[partner] == places) & (best > _ONE)
        if float(mutual.sum()) < _FOUND * min(cosines.shape):
            return None
        where = partner[mutual], places[mutual]
    scale = _scale(suspect, reference, component, paths, where)
    if torch.equal(*where) and scale is None and same_size:
        return None
    return _Match(*where, (theirs.of, ours.of) if component == "values" else None, scale)


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
    match = _BLOCK.fullmatch(name)
    norm = f"blocks.{match[1]}.{_NORMS[match[2]]}.weight" if match is not None else "norm.weight"
    return model.read(norm) if model.traits.norm_first and norm in model else None


def _of_tokens(suspect: Parameters, reference: Parameters, found: Alignment) -> Pair | None:
    theirs, ours = suspect.read(TOKENS), reference.read(TOKENS)
    rows = shared_rows(suspect, reference)  # tokens may have been given other numbers
    if rows is not None and not (torch.equal(*rows) and len(theirs) == len(ours)):
        theirs, ours = theirs[rows[0]], ours[rows[1]]
    elif len(theirs) != len(ours):
        return None
    if found.rotation is not None:
        theirs = theirs @ found.rotation
    return Pair(TOKENS, "embeddings", theirs, ours, None, is_exact=found.rotation is None)


def _of_block(suspect: Parameters, reference: Parameters, found: Alignment, name: str, ours: str) -> Pair | None:
    """A matrix of a block, as the reference has it."""
    b, a = suspect.read(name), reference.read(ours)
    is_exact, is_scaled, gain = found.rotation is None, False, None
    block, half, owner, kind = _BLOCK.fullmatch(name).groups()  # type: ignore[union-attr]  # it is one of a block
    writes = kind in ("out", "down")
    if found.rotation is not None:
        if writes:
            b, a = (_plain(model, matrix.T).T for model, matrix in ((suspect, b), (reference, a)))
            b = found.rotation.T @ b
        else:
            gain, theirs = gain_of(reference, ours), gain_of(suspect, name)
            a = _plain(reference, a if gain is None else a * gain)
            b = _plain(suspect, b if theirs is None else b * theirs) @ found.rotation
    of_units: Component = "values" if half == "attention" else "feed-forward"
    match = None if owner else found.matches.get((int(block), of_units))
    if match is not None:
        axis = 1 if writes else 0
        rows = _places(match, kind, (b.shape[axis], a.shape[axis]))
        b, a = b.index_select(axis, rows[0]), a.index_select(axis, rows[1])
        if match.scale is not None and kind in ("up", "down", "v", "out"):
            scale = match.scale.repeat_interleave(len(rows[0]) // len(match.scale))
            b = b * scale if writes else b / scale[:, None]
            is_exact, is_scaled = False, True
    return Pair(name, "attention" if half == "attention" else "feed-forward", b, a, gain, is_exact, is_scaled)


def _plain(model: Parameters, rows: torch.Tensor) -> torch.Tensor:
    """Without what a LayerNorm takes away."""
    return rows if model.traits.rms else rows - rows.mean(-1, keepdim=True)


def _places(match: _Match, kind: str, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows or columns of both matrices that are matched.

    Args:
        match: Of the units of the half of the block that they belong to.
        kind: Which matrix of that half.
        sizes: Rows or columns that the two matrices have.
    """
    if match.heads is None or kind == "v":
        return match.theirs, match.ours
    if kind == "out":
        return tuple(_columns(*each) for each in zip((match.theirs, match.ours), match.heads, sizes, strict=True))  # type: ignore[return-value]  # there are two
    return _heads(match, sizes)


def _columns(units: torch.Tensor, of: tuple[int, int], n: int) -> torch.Tensor:
    """Those that channels of values are written by, for every query head that shares their head."""
    n_heads, width = of
    heads, channels, shared = units // width, units % width, n // (n_heads * width)
    return ((heads[:, None] * shared + torch.arange(shared)) * width + channels[:, None]).flatten()


def _heads(match: _Match, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
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


def _refined(suspect: Parameters, reference: Parameters, found: Alignment) -> Alignment:
    """With a rotation that rests on all matrices of one origin; the less one differs, the more it counts.

    Those that were not changed then decide, where there are any.
    """
    assert found.rotation is not None
    product = torch.zeros(found.rotation.shape[1], found.rotation.shape[1])
    for pair in pairs_of(suspect, reference, found):
        theirs, ours = pair.theirs, pair.ours
        if float(F.cosine_similarity(theirs.flatten(), ours.flatten(), dim=0)) < _ALIKE:
            continue
        by_rows = not pair.name.endswith(("out.weight", "down.weight"))
        squared = float((theirs - ours).square().sum()) + _ROUNDING * float(ours.square().sum())
        product += (theirs.T @ ours if by_rows else theirs @ ours.T) / squared
    u, _, v = torch.linalg.svd(product)
    return replace(found, rotation=found.rotation @ (u @ v))
