"""The exact test of the order of units: was one model's order of units the start of another's?

Which of a model's interchangeable units comes first is decided by its random start and by nothing else: not by its
data, its recipe or its architecture. If suspect and reference have nothing in common but those, every order of the
reference's units is as likely as the one it has, whatever the suspect is and whatever was done to it. The statistic is

    T = trace(C),

where C[i, j] says how well the reference's unit i would suit place j, each row and column less its mean. Its p-value is
the share of random orders of the reference's units that give as much. Over all orders T has mean 0 and variance
|C|^2 / (n - 1) (Hoeffding, 1951), which gives a z where the count runs out. T is summed over blocks, and all blocks
with as many units are put into the same random order: that is as exact as an order for each, and remains so where
blocks of the reference began as copies of one another, as experts do, or layers of a model that was made deeper. For it
is then that one order which chance decided. There are two such C.

*By place*: C = H X Y' H, H = I - 11'/n. The reference's unit i suits place j as much as it is like the suspect's unit
that stands there. Both blocks must have the same number of units.

*By likeness*, for blocks from which units were left out, or to which some were added: the suspect may have any number
of units and heads. Every unit i of the reference looks for the unit of the suspect that it is most like; if that one in
turn is like no other unit of the reference more, the two are a pair, and C[i, j] is how alike they are, squared, times
the place of the suspect's unit times j. So T is a rank correlation of places (Zhu et al., 2025), in which clear pairs
count more. Whom a unit is paired with depends on the units themselves and not on where the reference's stand: put into
another order they take their pairs with them. If that order is one of chance, so is the order of their pairs, be there
ever so many units that all models have.

What must be chosen first, in which basis to compare, which block of the suspect to hold against which of the reference,
and which C to take, is chosen on some of the reference's units and the test made on the others: the choice cannot make
chance look like kinship. By likeness these are paired with all units of the suspect, for nothing is assumed about it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy import stats

from danlu.audit.alignment import from_tokens, procrustes
from danlu.audit.counting import N_ORDERS, counted_p
from danlu.audit.units import Component, DrawnUnits, Parameters, Units
from danlu.core.errors import CorruptError

__all__ = ["Comparison", "OrderTest", "compare_order", "detectable", "order_test"]

Comparison = Literal["place", "likeness"]
"""Which C is taken."""

Basis = Callable[[], torch.Tensor | None]
"""Finds a rotation ``[D, other D]``; None: there is none."""

_MOST_SEARCHED = 4096
"""Units of a suspect's block that are searched for pairs, drawn at random where there are more."""
_MOST_TO_CHOOSE = 256
"""The most units that a rotation is fitted to, and the most that what is compared is chosen by."""
_CLEAR = 5.0
"""A z of two blocks beyond which they are taken to belong together,"""
_PLENTY = 20.0
"""and of all blocks, beyond which no basis is fitted to units;"""
_AS_GOOD = 0.8
"""a plainer choice is preferred to more elaborate ones if it gives this share of the largest z."""
_ENOUGH = 16
"""Units of a head from which on all heads, too, are put into the same order."""
_SEED = 0

Sides = tuple[list[Units], list[Units]]
"""The units of every block of the reference, and of the suspect."""


@dataclass(frozen=True, kw_only=True)
class OrderTest:
    """What came of a test.

    Attributes:
        component: Whose units.
        p: Share of random orders, the reference's own among them, that agree as well: exact.
        z: Standard deviations by which T is above its mean, over all blocks.
        p_normal: That of a normal deviate of this size, where the count runs out; not exact.
        z_blocks: z of every block of the suspect.
        layer_map: The block of the reference that each block of the suspect was held against.
        basis: In which basis: ``same``, that of the ``tokens``, or that of the ``units``.
        n_orders: Random orders.
        n_units: Units tested, over all strata and blocks.
        n_numbers: Numbers compared.
        by: Whether units were compared by ``place`` or by ``likeness``.
        blocks: What the blocks of the suspect are, by :class:`danlu.audit.units.Block`,
        origins: and those that they were held against.
    """

    component: Component
    p: float
    z: float
    p_normal: float
    z_blocks: tuple[float, ...]
    layer_map: tuple[int, ...]
    basis: str
    n_orders: int
    n_units: int
    n_numbers: int
    by: Comparison = "place"
    blocks: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Choice:
    """What is compared with what."""

    basis: str
    rotation: torch.Tensor | None
    by: Comparison
    layer_map: tuple[int, ...]
    z: float


def order_test(
    suspect: Parameters | DrawnUnits,
    reference: Parameters | DrawnUnits,
    component: Component,
    n_orders: int = N_ORDERS,
) -> OrderTest | str:
    """Test whether a suspect's units have the order of the reference's.

    Args:
        suspect: The model that may be derived.
        reference: The model that it may be derived from; as :class:`DrawnUnits` it is read once for many tests.
        component: Which units.
        n_orders: Random orders that the count rests on, at the most.

    Returns:
        What came of it, or why it cannot be made.
    """
    theirs, ours = (each if isinstance(each, DrawnUnits) else DrawnUnits(each) for each in (suspect, reference))
    try:
        if (why := _cannot(theirs, ours, component)) is not None:
            return why
        units = (ours.units(component), theirs.units(component))
        if not any(_alike(mine, other) for mine in units[0] for other in units[1]):
            theirs = DrawnUnits(theirs.model, _MOST_SEARCHED)
            units = (units[0], theirs.units(component))
        bases = {"tokens": functools.partial(from_tokens, theirs.model, ours.model)}
        found = compare_order(*units, bases, component, n_orders)
    except CorruptError as error:
        return f"a matrix is missing or has no heads: {error.what} in {error.where}"
    if isinstance(found, str):
        return found
    origins = ours.blocks(component)
    held = tuple(str(origins[origin]) for origin in found.layer_map)
    return replace(found, blocks=tuple(map(str, theirs.blocks(component))), origins=held)


def _cannot(theirs: DrawnUnits, ours: DrawnUnits, component: Component) -> str | None:
    """Why the test cannot be made."""
    for each in (theirs, ours):
        if not each.blocks(component):
            what = "Transformer blocks" if not each.model.n_blocks else f"parts of kind {component}"
            return f"no {what} were found in {each.model.where}"
    if not ours.is_sure(component):
        return "parts of the reference were found by their shape alone, so that their order may not be one of chance"
    if ours.is_sorted(component):
        return "the units of the reference were put into an order by their size, so that it is no longer chance"
    return None


def compare_order(
    ours: list[Units],
    theirs: list[Units],
    bases: Mapping[str, Basis],
    component: Component = "feed-forward",
    n_orders: int = N_ORDERS,
) -> OrderTest | str:
    """The test itself.

    Args:
        ours: The units of each block of the reference, in the order in which :class:`DrawnUnits` draws them,
        theirs: and those of each block of the suspect.
        bases: Rotations that may bring the suspect into the reference's basis, besides none and one that is found here;
            a rotation is found only if those before it show too little.
        component: What they are the units of.
        n_orders: Random orders that the count rests on, at the most.
    """
    least = min(units.vectors.shape[1] for units in ours)
    if least < 8:
        return f"{least} units are too few to have an order"
    choice = _choose(ours, theirs, bases)
    if isinstance(choice, str):
        return choice
    draw = np.random.default_rng(_SEED)
    z_blocks, joint, n_units, n_numbers = [], dict[tuple[int, ...], torch.Tensor](), 0, 0
    for block, origin in enumerate(choice.layer_map):
        mine, other = ours[origin], theirs[block].turned(choice.rotation)
        by_place = choice.by == "place" and _alike(mine, other)
        c = _agreement(*(_testing(units) for units in (mine, other))) if by_place else _pairs(_testing(mine), other)
        z_blocks.append(_z(c))
        together = c / max(_scale(c), 1e-30)
        together = together.sum(0, keepdim=True) if c.shape[1] >= _ENOUGH else together
        same_order = (*mine.of, *c.shape)
        joint[same_order] = joint.get(same_order, torch.zeros_like(together)) + together
        n_units += c.shape[0] * c.shape[1]
        n_numbers += c.shape[0] * c.shape[1] * (math.prod(mine.vectors.shape[2:]) if by_place else 1)
    total = sum(_trace(c) for c in joint.values())
    p, n_drawn = counted_p(lambda n: np.sum([_drawn(c, draw, n) for c in joint.values()], axis=0), total, n_orders)
    z = total / max(math.sqrt(sum(_scale(c) ** 2 for c in joint.values())), 1e-30)
    return OrderTest(
        component=component,
        p=p,
        z=z,
        p_normal=float(stats.norm.sf(z)),
        z_blocks=tuple(z_blocks),
        layer_map=choice.layer_map,
        basis=choice.basis,
        n_orders=n_drawn,
        n_units=n_units,
        n_numbers=n_numbers,
        by=choice.by,
    )


def detectable(n_numbers: int, alpha: float, power: float = 0.99) -> float:
    """The smallest correlation of vectors, left of the start that they shared, that the test finds so often.

    Of vectors that are random but for it; those of trained models are not quite.
    """
    return float((stats.norm.isf(alpha) + stats.norm.ppf(power)) / math.sqrt(n_numbers))


def _n_chosen(units: Units) -> int:
    return min(units.vectors.shape[1] // 4, _MOST_TO_CHOOSE)


def _fitting(units: Units) -> Units:
    return units.part(0, _n_chosen(units))


def _choosing(units: Units) -> Units:
    return units.part(_n_chosen(units), 2 * _n_chosen(units))


def _testing(units: Units) -> Units:
    return units.part(2 * _n_chosen(units), units.vectors.shape[1])


def _alike(ours: Units, theirs: Units) -> bool:
    """Whether two blocks can be compared place by place."""
    return ours.of == theirs.of and ours.vectors.shape[:3] == theirs.vectors.shape[:3]


def _choose(ours: list[Units], theirs: list[Units], bases: Mapping[str, Basis]) -> _Choice | str:
    """In which basis, block against block, and by what to compare: whatever agrees best on the units to choose by.

    The plainest is taken that gives nearly as much as the best one, or nearly as much as a copy would.
    """
    most = _mapped(([_choosing(units) for units in ours],) * 2, None, "place")[1]
    found: list[_Choice] = []
    for basis, rotation, by in _candidates(ours, theirs, bases, found):
        sides = ([_choosing(units) for units in ours], theirs)
        if by == "place":
            sides = (sides[0], [_choosing(units) for units in theirs])
        layer_map, z = _mapped(sides, rotation, by)
        found.append(_Choice(basis, rotation, by, layer_map, z))
        if by == "place" and z >= _AS_GOOD * most:
            break
    if not found:
        return "the two have sequences of different width and too few tokens in common to compare them by"
    best = max(choice.z for choice in found)
    return next(choice for choice in found if choice.z >= min(best, _AS_GOOD * best))


def _candidates(
    ours: list[Units], theirs: list[Units], bases: Mapping[str, Basis], found: list[_Choice]
) -> Iterator[tuple[str, torch.Tensor | None, Comparison]]:
    """What may be compared, the plainest first: bases, by place; and where those show nothing, by likeness."""
    has_same = ours[0].vectors.shape[-1] == theirs[0].vectors.shape[-1]
    pairs = [pair for pair in zip(ours, theirs, strict=False) if _alike(*pair)]
    if any(_alike(mine, other) for mine in ours for other in theirs):
        yield from _plain(bases, has_same, "place")
        if pairs and all(choice.z < _PLENTY for choice in found):  # for a model whose token vectors were learnt anew
            ends = (torch.cat([_fitting(pair[side]).vectors.flatten(0, 2) for pair in pairs]) for side in (1, 0))
            yield "units", procrustes(*ends), "place"
    if all(choice.z < _CLEAR for choice in found):
        yield from _plain(bases, has_same, "likeness")


def _plain(
    bases: Mapping[str, Basis], has_same: bool, by: Comparison
) -> Iterator[tuple[str, torch.Tensor | None, Comparison]]:
    if has_same:
        yield "same", None, by
    for basis, find in bases.items():
        if (rotation := find()) is not None:
            yield basis, rotation, by


def _mapped(sides: Sides, rotation: torch.Tensor | None, by: Comparison) -> tuple[tuple[int, ...], float]:
    """For every block of the suspect the block that it agrees with, and how well all do."""
    ours, theirs = sides[0], [units.turned(rotation) for units in sides[1]]
    z = np.array([[_z(_compared(mine, other, by)) for mine in ours] for other in theirs])
    best = z.argmax(1)
    itself = np.arange(len(theirs)) if len(theirs) == len(ours) else best
    layer_map = np.where(z.max(1) > _CLEAR, best, itself)
    return tuple(layer_map.tolist()), float(z[np.arange(len(theirs)), layer_map].sum() / math.sqrt(len(theirs)))


def _compared(ours: Units, theirs: Units, by: Comparison) -> torch.Tensor:
    if by == "likeness":
        return _pairs(ours, theirs)
    return _agreement(ours, theirs) if _alike(ours, theirs) else torch.zeros(1, 2, 2)


def _agreement(ours: Units, theirs: Units) -> torch.Tensor:
    """C by place, of every stratum: ``[n_strata, n, n]``."""
    c = ours.vectors.flatten(2) @ theirs.vectors.flatten(2).mT
    return c - c.mean(1, keepdim=True) - c.mean(2, keepdim=True) + c.mean((1, 2), keepdim=True)


def _pairs(ours: Units, theirs: Units) -> torch.Tensor:
    """C by likeness, of every stratum: ``[n_strata, n, n]``; a head's channels may be found in any of the suspect's."""
    n_strata, n, n_vectors, _ = ours.vectors.shape
    if theirs.vectors.shape[2] != n_vectors:  # other branches, or other heads of queries: what both have is the first
        ours, theirs = ours.first(1), theirs.first(1)
    alike = ours.vectors.flatten(2).flatten(0, 1) @ theirs.vectors.flatten(2).flatten(0, 1).T
    likeness, partner = alike.max(1)
    mutual = alike.argmax(0)[partner] == torch.arange(len(alike))
    weight = (likeness.clamp(min=0.0).square() * mutual).double().reshape(n_strata, n)
    partners = (theirs.at[partner % theirs.vectors.shape[1]].double() / theirs.of[1]).reshape(n_strata, n)
    means = (weight * partners).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1e-30)
    places = ours.at.double() / ours.of[1]
    return ((weight * (partners - means))[:, :, None] * (places - places.mean())).float()


def _trace(c: torch.Tensor) -> float:
    return float(c.diagonal(dim1=1, dim2=2).sum())


def _scale(c: torch.Tensor) -> float:
    """Standard deviation of the trace over all orders."""
    return float((c.square().sum() / (c.shape[1] - 1)).sqrt())


def _z(c: torch.Tensor) -> float:
    return _trace(c) / max(_scale(c), 1e-30)


def _drawn(c: torch.Tensor, draw: np.random.Generator, n_orders: int) -> np.ndarray:
    """The trace of random orders, ``[n_orders]``."""
    total = np.zeros(n_orders)
    n = c.shape[1]
    at_once = max(1, 2**22 // n)
    for stratum in c.numpy():
        for start in range(0, n_orders, at_once):
            count = min(at_once, n_orders - start)
            orders = draw.permuted(np.tile(np.arange(n, dtype=np.int32), (count, 1)), axis=1)
            total[start : start + count] += stratum[np.arange(n), orders].sum(1)
    return total
