"""The exact test of the order of units: was one model's order of units the start of another's?

Which of a model's interchangeable units comes first is decided by its random start and by nothing else: not by its
data, its recipe or its architecture. If suspect and reference have nothing in common but those, every order of the
reference's units is as likely as the one it has, whatever the suspect is and whatever was done to it. The statistic is
how well the units at the same places agree,

    T = trace(C),  C = H X Y' H,  H = I - 11'/n,

and its p-value the share of random orders of the reference's units that agree as well. Over all orders T has mean 0 and
variance |C|^2 / (n - 1) (Hoeffding, 1951), which gives a z where the count runs out.

What must be chosen first, in which basis to compare and which block of the suspect to hold against which of the
reference, is chosen on some of the units and the test made on the others: the choice cannot make chance look like
kinship.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from danlu.audit.alignment import from_tokens, procrustes
from danlu.audit.units import Component, Parameters, Units, n_strata, read_lengths, read_units
from danlu.core.errors import CorruptError

__all__ = ["N_ORDERS", "OrderTest", "compare_order", "detectable", "drawn_units", "order_test"]

N_ORDERS = 9999
"""Random orders that the count rests on."""
_MOST_UNITS = 1024
"""Units of a stratum that are looked at, drawn at random where there are more."""
_MOST_TO_CHOOSE = 256
"""Of those, the most that a rotation is fitted to, and the most that what is compared is chosen by."""
_CLEAR = 5.0
"""A z of two blocks beyond which they are taken to belong together."""
_AS_GOOD = 0.8
"""A basis is preferred to more elaborate ones that give no more than this share of the largest z."""
_SORTED = 6.0
"""Standard deviations of a rank correlation of place and length beyond which units were put into an order."""
_SEED = 0


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


def order_test(
    suspect: Parameters, reference: Parameters, component: Component, n_orders: int = N_ORDERS
) -> OrderTest | str:
    """Test whether a suspect's units have the order of the reference's.

    Args:
        suspect: The model that may be derived.
        reference: The model that it may be derived from.
        component: Which units.
        n_orders: Random orders that the count rests on.

    Returns:
        What came of it, or why it cannot be made.
    """
    if not suspect.n_blocks or not reference.n_blocks:
        return "there are no Transformer blocks in one of the two"
    if n_strata(suspect, component) != n_strata(reference, component):
        return "the two have different numbers of heads"
    try:
        shapes = [tuple(read_units(each, component, 0).vectors.shape[1:3]) for each in (reference, suspect)]
        if shapes[0] != shapes[1]:
            return f"the two have different numbers of units or of their matrices: {shapes[0]} and {shapes[1]}"
        if any(_in_order(read_lengths(reference, component, block)) for block in range(reference.n_blocks)):
            return "the units of the reference were put into an order by their size, so that it is no longer chance"
        rows = drawn_units(shapes[0][0])
        ours, theirs = (
            [read_units(each, component, block).pick(rows) for block in range(each.n_blocks)]
            for each in (reference, suspect)
        )
    except CorruptError as error:
        return f"a matrix is missing: {error.what} in {error.where}"
    rotation = from_tokens(suspect, reference)
    bases = {} if rotation is None else {"tokens": rotation}
    return compare_order(ours, theirs, bases, component, n_orders)


def drawn_units(n: int) -> np.ndarray:
    """Which of n units are looked at, in which order: drawn without a look at them, the same for every model."""
    return np.random.default_rng(_SEED).permutation(n)[:_MOST_UNITS]


def compare_order(
    ours: list[Units],
    theirs: list[Units],
    bases: dict[str, torch.Tensor],
    component: Component = "feed-forward",
    n_orders: int = N_ORDERS,
) -> OrderTest | str:
    """The test itself.

    Args:
        ours: The units of each block of the reference, as :func:`drawn_units` has them,
        theirs: and those of each block of the suspect.
        bases: Rotations that may bring the suspect into the reference's basis, besides none and one that is found here.
        component: What they are the units of.
        n_orders: Random orders that the count rests on.
    """
    n = ours[0].vectors.shape[1]
    n_chosen = min(n // 4, _MOST_TO_CHOOSE)
    if n_chosen < 2:
        return f"{n} units are too few to have an order"
    fitting, choosing, testing = (
        ([units.part(start, end) for units in ours], [units.part(start, end) for units in theirs])
        for start, end in ((0, n_chosen), (n_chosen, 2 * n_chosen), (2 * n_chosen, n))
    )
    basis, rotation = _best_basis(fitting, choosing, bases)
    layer_map, _ = _mapped(*choosing, rotation)
    draw = np.random.default_rng(_SEED)
    z_blocks, joint = [], dict[int, torch.Tensor]()
    for block, origin in enumerate(layer_map):
        c = _agreement(testing[0][origin], testing[1][block].turned(rotation))
        z_blocks.append(_z(c))
        joint[origin] = joint.get(origin, torch.zeros_like(c)) + c / _scale(c)
    total = sum(_trace(c) for c in joint.values())
    drawn = sum((_drawn(c, draw, n_orders) for c in joint.values()), np.zeros(n_orders))
    z = total / math.sqrt(sum(_scale(c) ** 2 for c in joint.values()))
    n_strata, n_tested, *rest = testing[0][0].vectors.shape
    return OrderTest(
        component=component,
        p=(1 + int((drawn >= total).sum())) / (n_orders + 1),
        z=z,
        p_normal=float(stats.norm.sf(z)),
        z_blocks=tuple(z_blocks),
        layer_map=layer_map,
        basis=basis,
        n_orders=n_orders,
        n_units=n_strata * n_tested * len(layer_map),
        n_numbers=n_strata * n_tested * len(layer_map) * math.prod(rest),
    )


def detectable(n_numbers: int, alpha: float, power: float = 0.99) -> float:
    """The smallest correlation of vectors, left of the start that they shared, that the test finds so often.

    Of vectors that are random but for it; those of trained models are not quite.
    """
    return float((stats.norm.isf(alpha) + stats.norm.ppf(power)) / math.sqrt(n_numbers))


def _in_order(lengths: torch.Tensor) -> bool:
    """Whether units stand in the order of the length of some vector of theirs, as tools that prune leave them."""
    n = lengths.shape[1]
    ranks = lengths.argsort(dim=1).argsort(dim=1).double()
    places = torch.arange(n, dtype=torch.float64)
    spread = (n * n - 1) / 12
    correlation = ((ranks - ranks.mean(1, keepdim=True)) * (places - places.mean())[:, None]).mean(1) / spread
    return bool((correlation.abs() * math.sqrt(n - 1) > _SORTED).any())


def _best_basis(
    fitting: tuple[list[Units], list[Units]],
    choosing: tuple[list[Units], list[Units]],
    bases: dict[str, torch.Tensor],
) -> tuple[str, torch.Tensor | None]:
    """The basis in which the units to choose by agree best."""
    found: dict[str, torch.Tensor | None] = {**bases}
    if fitting[0][0].vectors.shape[-1] == fitting[1][0].vectors.shape[-1]:
        found = {"same": None, **found}
    pairs = list(zip(*fitting, strict=False))
    theirs, ours = (torch.cat([pair[side].vectors.flatten(0, 2) for pair in pairs]) for side in (1, 0))
    found["units"] = procrustes(theirs, ours)  # for a model whose token vectors were learnt anew
    z = {name: _mapped(*choosing, rotation)[1] for name, rotation in found.items()}
    most = max(z.values())
    best = next(name for name in found if z[name] >= min(most, _AS_GOOD * most))
    return best, found[best]


def _mapped(ours: list[Units], theirs: list[Units], rotation: torch.Tensor | None) -> tuple[tuple[int, ...], float]:
    """For every block of the suspect the block that it agrees with, and how well all do."""
    turned = [units.turned(rotation) for units in theirs]
    z = np.array([[_z(_agreement(mine, other)) for mine in ours] for other in turned])
    best = z.argmax(1)
    itself = np.arange(len(theirs)) if len(theirs) == len(ours) else best
    layer_map = np.where(z.max(1) > _CLEAR, best, itself)
    return tuple(layer_map.tolist()), float(z[np.arange(len(theirs)), layer_map].sum() / math.sqrt(len(theirs)))


def _agreement(ours: Units, theirs: Units) -> torch.Tensor:
    """C of every stratum, ``[n_strata, n, n]``: the reference's units by the suspect's."""
    c = ours.vectors.flatten(2) @ theirs.vectors.flatten(2).mT
    return c - c.mean(1, keepdim=True) - c.mean(2, keepdim=True) + c.mean((1, 2), keepdim=True)


def _trace(c: torch.Tensor) -> float:
    return float(c.diagonal(dim1=1, dim2=2).sum())


def _scale(c: torch.Tensor) -> float:
    """Standard deviation of the trace over all orders."""
    return float((c.square().sum() / (c.shape[1] - 1)).sqrt())


def _z(c: torch.Tensor) -> float:
    return _trace(c) / _scale(c)


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
