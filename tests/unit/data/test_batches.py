from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens, collate, cut_out, in_order, padding_share, shuffled

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=200).map(lambda lengths: np.array(lengths, np.int64))


def order(epoch: int = 0) -> np.random.Generator:
    return Seeds.new("1").generator("order", epoch)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 300))
def test_every_row_is_in_exactly_one_batch_and_no_batch_passes_its_budget(lengths, budget):
    for batches in (shuffled(lengths, budget, order()), in_order(lengths, budget)):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        for rows in batches:
            assert len(rows) == 1 or len(rows) * max(1, lengths[rows].max()) <= budget
        # The padding share is the share of positions that no token stands on.
        n_positions = sum(len(rows) * int(lengths[rows].max()) for rows in batches)
        share = padding_share(lengths, batches)
        assert share == pytest.approx(1 - lengths.sum() / n_positions if n_positions else 0)


def test_the_order_follows_from_the_generator_and_differs_from_epoch_to_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    first, again, next_epoch = (shuffled(lengths, 512, order(epoch)) for epoch in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in next_epoch]


def test_length_bucketing_leaves_little_padding_and_a_random_order():
    lengths = np.random.default_rng(0).geometric(1 / 30, 20_000).clip(max=128)
    batches = shuffled(lengths, 2048, order())
    assert padding_share(lengths, batches) < 0.05
    cut = np.split(np.arange(len(lengths)), range(32, len(lengths), 32))
    assert padding_share(lengths, cut) > 0.5  # 32 texts at a time as they come: what bucketing saves
    longest = np.array([lengths[rows].max() for rows in batches])
    # Neighbours are no more alike than chance: a run of short batches would bias the weights it ends with.
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.15


def test_batches_in_order_go_from_short_to_long():
    lengths = np.array([5, 1, 9, 1, 7])
    assert [rows.tolist() for rows in in_order(lengths, 10)] == [[1, 3], [0], [4], [2]]
    assert in_order(np.zeros(0, np.int64), 10) == []
    assert shuffled(np.zeros(0, np.int64), 10, order()) == []


def test_collating_pads_on_the_right():
    tokens = Tokens.of([[7, 8, 9], [], [5]])
    assert tokens.lengths.tolist() == [3, 0, 1]
    batch = collate(tokens, np.array([2, 0]), 0, np.array([0, 1, 2]))
    assert batch.tokens_BT.tolist() == [[5, 0, 0], [7, 8, 9]]
    assert batch.mask_BT.tolist() == [[True, False, False], [True, True, True]]
    assert batch.positions_BT.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.rows_B.tolist() == [2, 0]
    assert batch.labels_B is not None
    assert batch.labels_B.tolist() == [2, 0]
    assert {batch.tokens_BT.dtype, batch.rows_B.dtype, batch.labels_B.dtype} == {torch.int64}


def test_a_batch_of_empty_texts_has_one_position_of_padding():
    batch = collate(Tokens.of([[], []]), np.array([0, 1]), 3)
    assert batch.tokens_BT.tolist() == [[3], [3]]
    assert not batch.mask_BT.any()
    assert batch.labels_B is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=9), min_size=1, max_size=20))
def test_the_flat_array_gives_every_text_back(texts):
    tokens = Tokens.of(texts)
    assert len(tokens) == len(texts)
    batch = collate(tokens, np.arange(len(texts)), 0)
    assert [row[mask].tolist() for row, mask in zip(batch.tokens_BT, batch.mask_BT, strict=True)] == texts


def test_stretches_may_overlap_and_have_room_behind_them():
    ids = np.arange(10, 20)
    found, mask, positions = cut_out(ids, np.array([0, 2, 9, 4]), np.array([3, 4, 1, 0]), 7, room=2)
    assert found.tolist() == [
        [10, 11, 12, 7, 7, 7],
        [12, 13, 14, 15, 7, 7],
        [19, 7, 7, 7, 7, 7],
        [7, 7, 7, 7, 7, 7],
    ]
    assert torch.equal(mask, found != 7)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 4
    assert {found.dtype, positions.dtype} == {torch.int64}


def test_tokens_joined_are_the_texts_one_after_another() -> None:
    parts = [Tokens.of([[1, 2], [], [3]]), Tokens.of([]), Tokens.of([[4, 5, 6]])]
    joined = Tokens.joined(parts)
    assert joined.lengths.tolist() == [2, 0, 1, 3]
    assert joined.ids.tolist() == [1, 2, 3, 4, 5, 6]
