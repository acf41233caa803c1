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

from danlu.audit.alignment import TOKENS, from_tokens, shared_rows
from danlu.audit.matching import BLOCK, Match, block_likeness, gain_of, match_units, places_in
from danlu.audit.unit_order import OrderTest
from danlu.audit.units import COMPONENTS, Component, Parameters, blocks_of, drawn_units, read_units

__all__ = ["PARTS", "Alignment", "Pair", "Part", "align", "pairs_of", "place"]

Part = Literal["embeddings", "attention", "feed-forward"]
PARTS: tuple[Part, ...] = ("embeddings", "attention", "feed-forward")

_CLEAR = 5.0
"""z of a test of order from which on its blocks and its basis are taken."""
_AS_GOOD = 0.8
"""A plainer choice is kept that gives no less than this share of the best one."""
_ALIKE = 0.3
"""Cosine from which on two matrices are taken to be of one origin."""
_ROUNDING = 1e-10
"""Squared length of a difference, as a share, that is rounding."""
_MOST_FITTED = 256
"""Units of a block that a rotation rests on."""


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
    matches: Mapping[tuple[int, Component], Match] = field(default_factory=dict)

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
        if (match := match_units(suspect, reference, component, (block, origin), found.rotation)) is not None
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
    rotation = _rotation(suspect, reference, best)
    return Alignment(layer_map=layer_map, basis=best.basis, rotation=rotation)


def pairs_of(suspect: Parameters, reference: Parameters, found: Alignment) -> Iterator[Pair]:
    """All matrices of the suspect that have a counterpart, one after another."""
    for name in suspect.names:
        match = BLOCK.fullmatch(name)
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


def _rotation(suspect: Parameters, reference: Parameters, test: OrderTest) -> torch.Tensor | None:
    """That of the basis in which a test of order was made."""
    if test.basis == "same":
        return None
    if test.basis == "tokens":
        return from_tokens(suspect, reference)
    product = torch.zeros(())
    for block, origin in enumerate(test.layer_map):
        both = ((suspect, block), (reference, origin))
        sizes = [read_units(each, test.component, number, torch.arange(1)).of for each, number in both]
        if sizes[0] != sizes[1]:
            continue
        rows = torch.from_numpy(drawn_units(sizes[0][1])[:_MOST_FITTED])
        theirs, ours = (read_units(each, test.component, number, rows).vectors for each, number in both)
        if theirs.shape[:3] == ours.shape[:3]:
            product = product + theirs.flatten(0, 2).T @ ours.flatten(0, 2)
    return _turning(product) if product.ndim else None


def _turning(product: torch.Tensor) -> torch.Tensor:
    """The rotation nearest to a product of vectors with what they were turned from."""
    u, _, v = torch.linalg.svd(product, full_matrices=False)
    rotation: torch.Tensor = u @ v
    return rotation


def _by_likeness(suspect: Parameters, reference: Parameters) -> Alignment:
    """Blocks and basis by how like a unit of the reference the most like unit of the suspect is."""
    n_theirs, n_ours = suspect.n_blocks, reference.n_blocks
    itself = tuple(min(block, n_ours - 1) for block in range(n_theirs))
    n_parts = [len(blocks_of(each, "feed-forward")) for each in (suspect, reference)]
    if n_parts != [n_theirs, n_ours] or 0 in n_parts:
        return Alignment(layer_map=itself, basis="same", rotation=None)
    first = [read_units(each, "feed-forward", 0, torch.arange(1)).vectors for each in (suspect, reference)]
    rotation = from_tokens(suspect, reference)
    bases: dict[str, torch.Tensor | None] = {"same": None} if first[0].shape[3] == first[1].shape[3] else {}
    bases |= {} if rotation is None else {"tokens": rotation}
    if not bases or first[0].shape[2] != first[1].shape[2]:
        return Alignment(layer_map=itself, basis="same", rotation=None)
    likeness = {basis: each.numpy() for basis, each in block_likeness(suspect, reference, bases).items()}
    most = max(float(each.max(1).mean()) for each in likeness.values())
    basis = next(name for name, each in likeness.items() if float(each.max(1).mean()) >= _AS_GOOD * most)
    best, values = likeness[basis].argmax(1), likeness[basis]
    at_itself = values[np.arange(n_theirs), itself]
    layer_map = np.where(at_itself >= _AS_GOOD * values.max(1), itself, best)
    return Alignment(layer_map=tuple(layer_map.tolist()), basis=basis, rotation=bases[basis])


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
    named = BLOCK.fullmatch(name)
    assert named is not None, "it is one of a block"
    block, half, owner, kind = named.groups()
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
        rows = places_in(match, kind, (b.shape[axis], a.shape[axis]))
        b, a = b.index_select(axis, rows[0]), a.index_select(axis, rows[1])
        if match.scale is not None and kind in ("up", "down", "v", "out"):
            scale = match.scale.repeat_interleave(len(rows[0]) // len(match.scale))
            b = b * scale if writes else b / scale[:, None]
            is_exact, is_scaled = False, True
    return Pair(name, "attention" if half == "attention" else "feed-forward", b, a, gain, is_exact, is_scaled)


def _plain(model: Parameters, rows: torch.Tensor) -> torch.Tensor:
    """Without what a LayerNorm takes away."""
    return rows if model.traits.rms else rows - rows.mean(-1, keepdim=True)


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
    return replace(found, rotation=found.rotation @ _turning(product))
