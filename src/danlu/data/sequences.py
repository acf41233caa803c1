"""Batches for models that write text: what a model reads, and what it is to write next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.data.batches import Tokens, cut_out
from danlu.data.tokenizer import PAD, SpecialTokens

__all__ = ["Windows", "collate_pairs", "collate_windows", "windows"]


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
