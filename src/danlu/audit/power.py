"""What a test could have seen: "no evidence" says little without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from danlu.audit.unit_order import OrderTest, compare_order, detectable
from danlu.audit.units import Component, DrawnUnits, Units

__all__ = ["Power", "power_of"]

_PLANTED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_ENOUGH = 2
"""Planted correlations that were found, after which stronger ones are not tried."""
_MOST_BLOCKS = 8
"""Blocks that are planted in, evenly spaced where there are more: with all of them, the test sees more."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the test of the order of units could have seen.

    Attributes:
        correlation: The correlation of vectors that it finds in 99 of 100 cases, were they random but for it.
        planted: Correlation -> whether the test, at its level, found it where it was planted in the reference's own
            units, in some blocks only where there are many; no stronger one is tried once two were found.
    """

    correlation: float
    planted: Mapping[float, bool]


def power_of(reference: DrawnUnits, order: Mapping[Component, OrderTest | str], alpha: float) -> dict[Component, Power]:
    """Plant ever weaker kinship in copies of the reference, and test for it.

    Args:
        reference: The reference.
        order: The tests that were made of it.
        alpha: The level of each.
    """
    found: dict[Component, Power] = {}
    for component, test in order.items():
        if not isinstance(test, OrderTest):
            continue
        units = reference.units(component)
        kept = np.unique(np.linspace(0, len(units) - 1, _MOST_BLOCKS).round().astype(int))
        ours = [units[block] for block in kept]
        planted = {}
        for correlation in _PLANTED:
            copies = [_copy(units, correlation) for units in ours]
            made = compare_order(ours, copies, {}, component, n_orders=math.ceil(1 / alpha))
            planted[correlation] = isinstance(made, OrderTest) and made.p <= alpha
            if sum(planted.values()) == _ENOUGH:
                break
        found[component] = Power(correlation=detectable(test.n_numbers, alpha), planted=planted)
    return found


def _copy(units: Units, correlation: float) -> Units:
    """Units that keep so much of the reference's, the rest being others of its units, each with another one's place."""
    n = units.vectors.shape[1]
    others = units.vectors[:, torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    mixed = correlation * units.vectors + math.sqrt(1 - correlation**2) * others
    return Units(F.normalize(mixed, dim=-1), units.places, units.whole)
