"""Token ids in one flat array, and batches cut from it by a budget of tokens.

Texts of like length share a batch, so that little is spent on padding: within a window of shuffled texts, sorted by
length, a batch takes texts until its number of rows times its longest row would pass the budget; then the batches
themselves are shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from danlu.core.batch import Batch

__all__ = ["Tokens", "collate", "cut_out", "in_order", "packed", "padding_share", "shuffled"]

_WINDOW_BATCHES = 64
"""Batches to a shuffling window: enough that lengths match, few enough that an epoch's order stays near random."""


@dataclass(frozen=True)
class Tokens:
    """The token ids of many texts.

    Attributes:
        ids: int32, all texts one after another.
        offsets: int64 [n + 1]; text i is ``ids[offsets[i]:offsets[i + 1]]``.
    """

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, texts: list[list[int]]) -> Tokens:
        """From lists of ids."""
        lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.fromiter(chain.from_iterable(texts), np.int32, int(offsets[-1]))
        return cls(ids, offsets)

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """The texts of several, one after another."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens in each text."""
        return np.diff(self.offsets)


def shuffled(lengths: np.ndarray, batch_tokens: int, order: np.random.Generator) -> list[np.ndarray]:
    """The batches of one epoch, in the order in which they are to be taken.

    Args:
        lengths: int [n]; tokens in each text.
        batch_tokens: The most tokens, padding included, that a batch may hold; a longer text is a batch of its own.
        order: The epoch's generator.

    Returns:
        Row numbers of each batch; every row is in exactly one.
    """
    rows = order.permutation(len(lengths))
    window = max(1, _WINDOW_BATCHES * batch_tokens // max(1, int(lengths.mean()))) if len(lengths) else 1
    batches: list[np.ndarray] = []
    for start in range(0, len(rows), window):
        part = rows[start : start + window]
        batches += _cut(part[np.argsort(lengths[part], kind="stable")], lengths, batch_tokens)
    return [batches[i] for i in order.permutation(len(batches))]


def packed(lengths: np.ndarray, batch_tokens: int, order: np.random.Generator) -> list[np.ndarray]:
    """The batches of one epoch for rows that hold several texts: as many texts as come to the budget, at random.

    Args and returns as in :func:`shuffled`.
    """
    rows = order.permutation(len(lengths))
    total = np.cumsum(lengths[rows])
    batches, done = [], 0
    while done < len(rows):
        before = total[done - 1] if done else 0
        end = max(done + 1, int(np.searchsorted(total, before + batch_tokens, side="right")))
        batches.append(rows[done:end])
        done = end
    return batches


def in_order(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Batches from the shortest text to the longest, for where the order does not matter.

    Args and returns as in :func:`shuffled`.
    """
    return _cut(np.argsort(lengths, kind="stable"), lengths, batch_tokens)


def padding_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """The share of positions that hold padding, from 0 to 1."""
    total = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
    return 1.0 - float(lengths.sum()) / total if total else 0.0


def collate(tokens: Tokens, rows: np.ndarray, pad: int, labels: np.ndarray | None = None) -> Batch:
    """Cut rows out of the flat array into one padded batch.

    Args:
        tokens: The texts.
        rows: int [B]; which of them.
        pad: The id that fills up.
        labels: int [n]; the class of every text, where there is one.
    """
    tokens_BT, mask_BT, positions_BT = cut_out(tokens.ids, tokens.offsets[rows], tokens.lengths[rows], pad)
    return Batch(
        rows_B=torch.from_numpy(rows.astype(np.int64)),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        positions_BT=positions_BT,
        labels_B=None if labels is None else torch.from_numpy(labels[rows].astype(np.int64)),
    )


def cut_out(
    ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, pad: int, room: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stretches of a flat array side by side, padded on the right.

    Args:
        ids: The flat array.
        starts: int [B]; where each stretch begins, and
        lengths: int [B]; how long it is.
        pad: What fills up.
        room: How much padding the longest has.

    Returns:
        int64 ids ``[B, T]``, bool ``[B, T]`` that is False on padding, and int64 positions ``[B, T]``.
    """
    steps = np.arange(max(1, int(lengths.max()) + room))
    mask_BT = steps[None, :] < lengths[:, None]
    where_BT = np.where(mask_BT, starts[:, None] + steps[None, :], 0)
    ids_BT = np.where(mask_BT, ids[where_BT] if len(ids) else pad, pad)
    positions_BT = torch.from_numpy(steps.astype(np.int64)).expand(len(lengths), -1)
    return torch.from_numpy(ids_BT.astype(np.int64)), torch.from_numpy(mask_BT), positions_BT


def _cut(rows: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Cut rows, sorted by length, wherever one more would pass the budget."""
    batches = []
    start = 0
    for end, longest in enumerate(np.maximum(lengths[rows], 1)):
        if end > start and (end - start + 1) * longest > batch_tokens:
            batches.append(rows[start:end])
            start = end
    if start < len(rows):
        batches.append(rows[start:])
    return batches
