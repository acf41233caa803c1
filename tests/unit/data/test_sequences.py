from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.batch import NOT_PREDICTED
from danlu.data.batches import Tokens
from danlu.data.sequences import collate_pairs, collate_windows, windows
from danlu.data.tokenizer import PAD, SpecialTokens

BEGIN, END = 2, 3
SPECIAL = SpecialTokens(mask=4, begin=BEGIN, end=END)
LENGTHS = st.lists(st.integers(0, 70), min_size=1, max_size=12)


def texts_of(lengths):
    """Every token a number of its own, so that none can be taken for another."""
    numbers = iter(range(10, 10**6))
    return [[next(numbers) for _ in range(length)] for length in lengths]


@given(LENGTHS, st.integers(2, 40), st.data())
def test_every_token_and_every_end_is_asked_for_exactly_once(lengths, max_len, data):
    overlap = data.draw(st.integers(0, max_len - 1), label="overlap")
    texts = texts_of(lengths)
    found = windows(Tokens.of(texts), SPECIAL, max_len, overlap)
    batch = collate_windows(found, np.arange(len(found.lengths)))
    tokens_BT, mask_BT, positions_BT = batch.text
    assert int(mask_BT.sum(1).max()) <= max_len
    assert torch.equal(mask_BT.sum(1), torch.from_numpy(found.lengths))
    assert bool((tokens_BT[~mask_BT] == PAD).all())
    assert bool((batch.targets[~mask_BT] == NOT_PREDICTED).all())
    assert torch.equal(positions_BT, torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT))
    for number, text in enumerate(texts):
        rows = np.flatnonzero(found.texts == number)
        expected_read, expected_asked = [BEGIN, *text], [*text, END]
        asked, place = [], 0
        for first, row in enumerate(rows):
            read = tokens_BT[row][mask_BT[row]].tolist()
            start = first * (max_len - overlap)
            assert read == expected_read[start : start + max_len]
            targets = batch.targets[row][mask_BT[row]].tolist()
            # What is asked for is what comes next; what was asked for before is context, all but for the first window.
            n_context = 0 if first == 0 else overlap
            assert targets[:n_context] == [NOT_PREDICTED] * n_context
            assert targets[n_context:] == expected_asked[start + n_context : start + max_len]
            assert len(targets) > n_context, "no window asks for nothing"
            asked += targets[n_context:]
            place = start + len(targets)
        assert asked == expected_asked
        assert place == len(expected_asked)


def test_windows_by_hand():
    found = windows(Tokens.of([[10, 11, 12, 13, 14], [], [15]]), SPECIAL, 4, 2)
    assert found.texts.tolist() == [0, 0, 1, 2]
    batch = collate_windows(found, np.array([1, 0, 3, 2]))
    no = NOT_PREDICTED
    assert batch.rows_B.tolist() == [1, 0, 3, 2]
    assert batch.text[0].tolist() == [[11, 12, 13, 14], [BEGIN, 10, 11, 12], [BEGIN, 15, 0, 0], [BEGIN, 0, 0, 0]]
    assert batch.targets.tolist() == [[no, no, 14, END], [10, 11, 12, 13], [15, END, no, no], [END, no, no, no]]
    assert {batch.text[0].dtype, batch.targets.dtype, batch.rows_B.dtype} == {torch.int64}


def test_no_text_has_no_window():
    found = windows(Tokens.of([]), SPECIAL, 4, 2)
    assert len(found.lengths) == len(found.texts) == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=10))
def test_a_pair_is_a_source_with_its_end_and_a_translation_between_both(lengths):
    sources, targets = texts_of(a for a, _ in lengths), texts_of(b for _, b in lengths)
    rows = np.arange(len(lengths))[::-1].copy()
    found = windows(Tokens.of(targets), SPECIAL, 21, 0)
    batch = collate_pairs(Tokens.of(sources), found, rows, SPECIAL)
    source_BS, source_mask_BS = batch.source
    assert batch.rows_B.tolist() == rows.tolist()
    for place, row in enumerate(rows):
        assert source_BS[place][source_mask_BS[place]].tolist() == [*sources[row], END]
        assert batch.text[0][place][batch.text[1][place]].tolist() == [BEGIN, *targets[row]]
        assert batch.targets[place][batch.text[1][place]].tolist() == [*targets[row], END]
    assert bool((source_BS[~source_mask_BS] == PAD).all())
    assert bool((batch.targets[~batch.text[1]] == NOT_PREDICTED).all())
    assert bool(source_mask_BS.any(0)[-1]), "the longest source has no padding"
    assert batch.count() == (
        int(source_mask_BS.sum() + batch.text[1].sum()),
        source_mask_BS.numel() + batch.text[1].numel(),
    )


def test_without_translations_a_batch_begins_them():
    batch = collate_pairs(Tokens.of([[10, 11], [], [12]]), None, np.array([2, 0, 1]), SPECIAL)
    assert batch.source[0].tolist() == [[12, END, PAD], [10, 11, END], [END, PAD, PAD]]
    assert batch.source[1].tolist() == [[True, True, False], [True] * 3, [True, False, False]]
    assert batch.text[0].tolist() == [[BEGIN]] * 3
    assert bool(batch.text[1].all())
    assert batch.text[2].tolist() == [[0]] * 3
    assert batch.targets_BT is None
    assert batch.rows_B.tolist() == [2, 0, 1]
