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

from danlu.audit.units import Parameters, Units, blocks_of, drawn_units, read_units

__all__ = ["Clones", "count_clones", "matched"]

_MOST_UNITS = 1024
"""Units of a block of the reference that are looked for, drawn at random where there are more."""
_MOST_BLOCKS = 16
"""Blocks of the suspect that are looked at, evenly spaced where there are more."""
_AT_ONCE = 2048
"""Units of the suspect that are read together."""


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
        layer_map: The block of the reference for each of the suspect, by their numbers in
            :func:`danlu.audit.units.blocks_of`.
        rotation: Brings the suspect into the reference's basis.
    """
    shares, n_moved, n_same = [], 0, 0
    of_reference = blocks_of(reference, "feed-forward")
    compared = np.unique(np.linspace(0, len(layer_map) - 1, _MOST_BLOCKS).round().astype(int))
    for block in compared.tolist():
        origin = layer_map[block]
        n_ours = reference.shape(of_reference[origin].down)[1]
        rows = torch.from_numpy(drawn_units(n_ours)[:_MOST_UNITS])
        ours = read_units(reference, "feed-forward", origin, rows).first(2)
        likeness = _likeness(suspect, block, ours, rotation)
        same, moved = matched(likeness, ours.at)
        shares.append(len(same) / min(*likeness.shape[1:]))
        n_same += len(same)
        n_moved += moved
    return Clones(share=float(np.mean(shares)), blocks=tuple(shares), moved=n_moved / n_same if n_same else 0.0)


def matched(likeness: torch.Tensor, places: torch.Tensor) -> tuple[list[tuple[int, int]], int]:
    """Units that are matched alike by their first and by their second vectors, and how many of them moved.

    Where there is a gate these are what the gate and what the other branch reads; else what a unit reads and writes.

    Args:
        likeness: ``[2, n, n of the suspect]``; how alike units are by each.
        places: int64 [n]; where the reference's stand.
    """
    first, second = (set(_orders(each)) for each in likeness)
    same = sorted(first & second)
    return same, sum(int(places[a]) != b for a, b in same)


def _likeness(suspect: Parameters, block: int, ours: Units, rotation: torch.Tensor | None) -> torch.Tensor:
    """Cosines of the reference's units to all of the suspect's, of which only some are in memory at a time."""
    at = blocks_of(suspect, "feed-forward")[block]
    rows = torch.split(torch.arange(suspect.shape(at.down)[1]), _AT_ONCE)
    found = []
    for some in rows:
        theirs = read_units(suspect, "feed-forward", block, some).first(2).turned(rotation)
        found.append(torch.einsum("nkd,mkd->knm", ours.vectors[0], theirs.vectors[0]))
    return torch.cat(found, dim=2)


def _orders(likeness: torch.Tensor) -> list[tuple[int, int]]:
    rows, columns = linear_sum_assignment(-likeness.numpy())
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
