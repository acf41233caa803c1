"""The same text with different labels: at least one of them is wrong, and nothing in the data says which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Conflicts", "OnConflict", "label_conflicts"]

OnConflict = Literal["drop", "majority", "keep"]


@dataclass(frozen=True)
class Conflicts:
    """The records whose text also bears another label.

    Attributes:
        drop: bool [N]; those to be dropped.
        seen: For each of these, by its number, the labels of its text and how often each.
    """

    drop: NDArray[np.bool_]
    seen: dict[int, str]


def label_conflicts(groups: NDArray[np.int64], labels: list[str], policy: OnConflict) -> Conflicts:
    """Finds texts with more than one label and says which records to drop.

    Args:
        groups: int64 [N]; equal where the texts are the same.
        labels: N labels.
        policy: ``drop`` all of such a text; keep the ``majority`` label (none on a tie); ``keep`` all.

    Returns:
        What to drop and why.
    """
    names, codes = np.unique(np.array(labels, dtype=object).astype(str), return_inverse=True)
    drop = np.zeros(len(groups), dtype=bool)
    if policy == "keep" or len(groups) == 0:
        return Conflicts(drop, {})
    pairs, inverse, counts = np.unique(groups * len(names) + codes, return_inverse=True, return_counts=True)
    pair_group, pair_label = np.divmod(pairs, len(names))
    n_labels = np.bincount(pair_group)
    mixed = n_labels[groups] > 1
    most = np.zeros(len(n_labels), dtype=np.int64)
    np.maximum.at(most, pair_group, counts)
    n_winners = np.bincount(pair_group, weights=counts == most[pair_group])
    wins = (counts == most[pair_group]) & (n_winners[pair_group] == 1)
    drop = mixed & ~wins[inverse] if policy == "majority" else mixed

    seen: dict[int, str] = {}
    for row in np.flatnonzero(drop).tolist():
        begin, end = np.searchsorted(pair_group, [groups[row], groups[row] + 1]).tolist()
        seen[row] = ", ".join(f"{names[pair_label[at]]}: {counts[at]}" for at in range(begin, end))
    return Conflicts(drop, seen)
