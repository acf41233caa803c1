"""One text, several translations: a model that is to give one answer is shown the most frequent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Translations", "choose_translations"]

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Translations:
    """The translation chosen for the text of each of N records.

    Attributes:
        drop: bool [N]; whether the record's own translation is another.
        chosen: int64 [N]; the first record that has the chosen one.
        n_votes: int64 [N]; how many records have it.
        n_texts: int64 [N]; how many records have the text.
    """

    drop: NDArray[np.bool_]
    chosen: _Ints
    n_votes: _Ints
    n_texts: _Ints


def choose_translations(texts: _Ints, targets: _Ints) -> Translations:
    """For each text the translation that most of its records have, on a tie the one that came first.

    Args:
        texts: int64 [N]; equal where the texts are the same.
        targets: int64 [N]; equal where the translations are.
    """
    pairs, first, pair, votes = np.unique(
        np.stack([texts, targets]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -votes, pairs[0]))
    best = np.zeros(len(order), dtype=bool)
    best[order[np.flatnonzero(np.diff(pairs[0][order], prepend=-1))]] = True
    _, text = np.unique(texts, return_inverse=True)
    winner = np.flatnonzero(best)[text]  # pairs are sorted by text, and so are the winners
    return Translations(~best[pair], first[winner], votes[winner], np.bincount(text, minlength=1)[text])
