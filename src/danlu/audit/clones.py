"""Units that were put into another order: found again one by one, and counted.

If the units of a model are another one's in another order, then matching them by what they read finds that order, and
matching them by what they write finds the same order once more. Two models that have nothing in common give two orders
that agree at about one place. How often at more places nobody can calculate, because training leads unrelated models to
some units that are alike: only models known to be unrelated tell, so this test may support a verdict and never make one
alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from danlu.audit.units import Parameters, Units, read_units

__all__ = ["Clones", "count_clones", "matched"]

_MOST_UNITS = 2048


@dataclass(frozen=True, kw_only=True)
class Clones:
    """How far two ways to match units agree.

    Attributes:
        share: Of the units, those that both ways match alike.
        blocks: That of every block compared.
        moved: Of those, the units that stand at another place in the suspect.
    """

    share: float
    blocks: tuple[float, ...]
    moved: float


def count_clones(
    suspect: Parameters, reference: Parameters, layer_map: tuple[int, ...], rotation: torch.Tensor | None
) -> Clones:
    """Match the hidden units of feed-forward parts.

    Args:
        suspect: The model that may be derived.
        reference: The model that it may be derived from.
        layer_map: The block of the reference for each of the suspect.
        rotation: Brings the suspect into the reference's basis.
    """
    shares, n_moved, n_same = [], 0, 0
    for block, origin in enumerate(layer_map):
        ours = read_units(reference, "feed-forward", origin)
        theirs = read_units(suspect, "feed-forward", block).turned(rotation)
        same, moved = matched(_some(ours), _some(theirs))
        shares.append(len(same) / min(ours.vectors.shape[1], theirs.vectors.shape[1], _MOST_UNITS))
        n_same += len(same)
        n_moved += moved
    return Clones(share=float(np.mean(shares)), blocks=tuple(shares), moved=n_moved / n_same if n_same else 0.0)


def matched(ours: Units, theirs: Units) -> tuple[list[tuple[int, int]], int]:
    """Units that are matched alike by their first and by their second vectors, and how many of them moved.

    Where there is a gate these are what the gate and what the other branch reads; else what a unit reads and writes.
    """
    first, second = (set(_orders(ours.vectors[0, :, k], theirs.vectors[0, :, k])) for k in range(2))
    same = sorted(first & second)
    return same, sum(a != b for a, b in same)


def _orders(ours: torch.Tensor, theirs: torch.Tensor) -> list[tuple[int, int]]:
    rows, columns = linear_sum_assignment(-(ours @ theirs.T).numpy())
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _some(units: Units) -> Units:
    return units.part(0, _MOST_UNITS)
