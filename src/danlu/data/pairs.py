"""Texts cut in two, for a model that is to tell whether one part follows another (Devlin et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from danlu.core.batch import Batch
from danlu.data.batches import Tokens, cut_out
from danlu.data.tokenizer import PAD, SpecialTokens

__all__ = ["N_MARKS", "Halves", "collate_halves", "halves"]

N_MARKS = 3
"""Special tokens of a pair: before the first part, between both, and after the second."""


@dataclass(frozen=True)
class Halves:
    """Texts and where each is cut.

    Attributes:
        tokens: The texts.
        cuts: int64 [n]; tokens of the first part.
    """

    tokens: Tokens
    cuts: np.ndarray


def halves(tokens: Tokens, ends: np.ndarray) -> Halves:
    """Cut every text after a sentence's end, the one nearest to its middle; in the middle where it has none.

    Args:
        tokens: The texts.
        ends: bool [V]; which tokens end a sentence.
    """
    lengths = tokens.lengths
    cuts = lengths // 2
    text = np.repeat(np.arange(len(tokens)), lengths)
    place = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], lengths) + 1  # tokens up to here
    found = np.flatnonzero(ends[tokens.ids] & (place < lengths[text]))
    if len(found):
        # The nearest first, so that the first of every text is the one wanted.
        order = np.lexsort((place[found], np.abs(2 * place[found] - lengths[text[found]]), text[found]))
        texts, first = np.unique(text[found][order], return_index=True)
        cuts[texts] = place[found][order][first]
    return Halves(tokens, cuts)


def collate_halves(found: Halves, rows: np.ndarray, special: SpecialTokens, generator: np.random.Generator) -> Batch:
    """A batch of pairs, about half of them with a second part from another text of the batch.

    Args:
        found: The texts.
        rows: int [B]; which of them.
        special: What stands before, between and after the parts.
        generator: Chooses which pairs are false, and whose second part they get.

    Returns:
        A batch with ``segments_BT`` (1 from the second part on) and ``labels_B`` (1 where it follows the first).
    """
    everything = np.arange(len(rows))
    second = everything.copy()
    false = generator.permutation(np.flatnonzero(generator.random(len(rows)) < 0.5))
    second[false] = np.roll(false, 1)  # in a circle, so that none gets its own back; a single one stays true
    starts, lengths, cuts = found.tokens.offsets[rows], found.tokens.lengths[rows], found.cuts[rows]
    first_BT, first_mask_BT, _ = cut_out(found.tokens.ids, starts, cuts, PAD)
    rest_BT, rest_mask_BT, _ = cut_out(found.tokens.ids, (starts + cuts)[second], (lengths - cuts)[second], PAD)
    parts = [
        [special.begin, *first[in_first].tolist(), special.end, *rest[in_rest].tolist(), special.end]
        for first, in_first, rest, in_rest in zip(first_BT, first_mask_BT, rest_BT, rest_mask_BT, strict=True)
    ]
    pairs = Tokens.of(parts)
    tokens_BT, mask_BT, positions_BT = cut_out(pairs.ids, pairs.offsets[everything], pairs.lengths, PAD)
    return Batch(
        rows_B=torch.from_numpy(rows.astype(np.int64)),
        tokens_BT=tokens_BT,
        mask_BT=mask_BT,
        positions_BT=positions_BT,
        segments_BT=(positions_BT >= torch.from_numpy(cuts + 2)[:, None]).long() * mask_BT,
        labels_B=torch.from_numpy((second == everything).astype(np.int64)),
    )
