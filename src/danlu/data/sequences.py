"""Batches for models that write text: what a model reads, and what it is to write next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.data.batches import Tokens, cut_out
from danlu.data.tokenizer import PAD, SpecialTokens

__all__ = ["Windows", "collate_packed", "collate_pairs", "collate_windows", "pack", "windows"]


@dataclass(frozen=True)
class Windows:
    """Stretches of texts, each no longer than a model can see.

    Attributes:
        ids: int32; the tokens of all texts one after another, each between a begin and an end token.
        starts: int64 [n]; where in ``ids`` a window begins.
        lengths: int64 [n]; tokens that the model reads in a window; the last of them asks for the one after it.
        n_context: int64 [n]; tokens at the beginning that were asked for in the window before.
        texts: int64 [n]; the number of the text that a window is of.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    n_context: np.ndarray
    texts: np.ndarray


def windows(tokens: Tokens, special: SpecialTokens, max_len: int, overlap: int) -> Windows:
    """Cut texts into windows in which every token, and the end, is asked for exactly once.

    Args:
        tokens: The texts.
        special: Their begin and end.
        max_len: The most tokens that a model reads at a time.
        overlap: Tokens of a window that were in the one before, so that none is asked for without context.
    """
    lengths = tokens.lengths + 1  # the begin token is read, the end token asked for
    n_windows = np.maximum(1, -(-(lengths - overlap) // (max_len - overlap)))
    texts = np.repeat(np.arange(len(tokens)), n_windows)
    number = np.arange(len(texts)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    offsets = tokens.offsets[:-1] + 2 * np.arange(len(tokens))
    ids = np.full(len(tokens.ids) + 2 * len(tokens), special.end, np.int32)
    ids[offsets] = special.begin
    inside = np.arange(len(tokens.ids)) + 2 * np.repeat(np.arange(len(tokens)), tokens.lengths) + 1
    ids[inside] = tokens.ids
    start = number * (max_len - overlap)
    return Windows(
        ids=ids,
        starts=offsets[texts] + start,
        lengths=np.minimum(max_len, lengths[texts] - start),
        n_context=np.where(number > 0, overlap, 0),
        texts=texts,
    )


def collate_windows(found: Windows, rows: np.ndarray) -> Batch:
    """A batch that asks for the next token at every place that was not asked for before.

    Args:
        found: The windows.
        rows: int [B]; which of them.
    """
    lengths = found.lengths[rows]
    tokens_BT, mask_BT, positions_BT = cut_out(found.ids, found.starts[rows], lengths, PAD)
    targets_BT, _, _ = cut_out(found.ids, found.starts[rows] + 1, lengths, NOT_PREDICTED)
    context_BT = positions_BT < torch.from_numpy(found.n_context[rows])[:, None]
    return Batch(
        rows_B=torch.from_numpy(rows.astype(np.int64)),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        positions_BT=positions_BT,
        targets_BT=targets_BT.masked_fill(context_BT, NOT_PREDICTED),
    )


def pack(lengths: np.ndarray, max_len: int) -> list[list[int]]:
    """Put texts into as few rows as first-fit decreasing finds (at most 11/9 of the fewest: Johnson, 1973).

    Args:
        lengths: int [n]; none is larger than ``max_len``.
        max_len: Tokens of a row.

    Returns:
        The texts of every row.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for text in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[text])
        row = next((row for row, left in enumerate(room) if left >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(max_len)
        rows[row].append(text)
        room[row] -= length
    return rows


def collate_packed(found: Windows, rows: np.ndarray, max_len: int) -> Batch:
    """A batch whose rows hold several windows each, every one with positions of its own.

    Args:
        found: The windows.
        rows: int [n]; which of them.
        max_len: Tokens of a row.

    Returns:
        ``texts_BT`` says which window of its row a token is of; ``rows_B`` is the first window of each row.
    """
    lengths = found.lengths[rows]
    places = pack(lengths, max_len)
    shape = (len(places), max_len)
    tokens_BT, targets_BT = np.full(shape, PAD, np.int64), np.full(shape, NOT_PREDICTED, np.int64)
    positions_BT, texts_BT = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    for row, windows_in_it in enumerate(places):
        at = 0
        for text, window in enumerate(windows_in_it):
            start, length = int(found.starts[rows[window]]), int(lengths[window])
            here, asked = slice(at, at + length), int(found.n_context[rows[window]])
            tokens_BT[row, here] = found.ids[start : start + length]
            targets_BT[row, at + asked : at + length] = found.ids[start + asked + 1 : start + length + 1]
            positions_BT[row, here] = np.arange(length)
            texts_BT[row, here] = text
            at += length
    texts = torch.from_numpy(texts_BT)
    return Batch(
        rows_B=torch.from_numpy(rows[[windows_in_it[0] for windows_in_it in places]].astype(np.int64)),
        tokens_BT=torch.from_numpy(tokens_BT),
        mask_BT=texts >= 0,
        positions_BT=torch.from_numpy(positions_BT),
        texts_BT=texts,
        targets_BT=torch.from_numpy(targets_BT),
    )


def collate_pairs(sources: Tokens, targets: Windows | None, rows: np.ndarray, special: SpecialTokens) -> Batch:
    """A batch of texts to translate, each with an end token, and of their translations where there are any.

    Args:
        sources: The texts to translate.
        targets: One window a translation; None: the batch begins translations and asks for none.
        rows: int [B]; which of them.
        special: Begin and end of a text.
    """
    lengths = sources.lengths[rows]
    source_BS, _, positions_BS = cut_out(sources.ids, sources.offsets[rows], lengths, PAD, room=1)
    ends_BS = positions_BS == torch.from_numpy(lengths)[:, None]
    if targets is None:
        begin_BT = torch.full((len(rows), 1), special.begin)
        text = Batch(
            rows_B=torch.from_numpy(rows.astype(np.int64)),
            tokens_BT=begin_BT,
            mask_BT=torch.ones_like(begin_BT, dtype=torch.bool),
            positions_BT=torch.zeros_like(begin_BT),
        )
    else:
        text = collate_windows(targets, rows)
    return replace(
        text,
        source_BS=source_BS.masked_fill(ends_BS, special.end),
        source_mask_BS=positions_BS <= torch.from_numpy(lengths)[:, None],
    )
