from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.core.batch import Batch
from danlu.core.errors import DataError
from danlu.core.seeds import Seeds
from danlu.data.batches import padding_share
from danlu.train.ahead import Ahead
from danlu.train.config import TrainConfig
from danlu.train.feed import PlannedFeed

LENGTHS = np.random.default_rng(0).integers(1, 60, 300)


def feed_of(seed="1", **train):
    config = TrainConfig(**{"epochs": 3, "batch_tokens": 512} | train)
    return PlannedFeed(LENGTHS, lambda rows, step: (rows, step), config, Seeds.new(seed))


def epochs(feed, n_epochs=3):
    """The rows of each epoch, in order."""
    rows = np.concatenate([feed.rows(step) for step in range(feed.n_steps)])
    return np.split(rows, n_epochs)


def test_every_row_is_taken_once_an_epoch_each_time_in_another_order():
    found = epochs(feed_of())
    assert all(sorted(rows.tolist()) == list(range(len(LENGTHS))) for rows in found)
    assert not np.array_equal(found[0], found[1])


def test_the_plan_follows_from_the_seed():
    first, again, other = (np.concatenate(epochs(feed_of(seed))) for seed in ("1", "1", "2"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_longer_run_begins_as_a_shorter_one():
    long, short = feed_of(epochs=3), feed_of(epochs=2)
    assert all(np.array_equal(long.rows(step), short.rows(step)) for step in range(short.n_steps))


def test_a_batch_is_made_when_it_is_asked_for_and_the_same_each_time():
    feed = feed_of()
    (rows, step), (again, _) = feed.batch(7), feed.batch(7)
    assert step == 7
    assert rows is again is feed.rows(7)


@pytest.mark.parametrize("per_epoch", [1, 2, 5, 1000])
def test_evaluations_are_spread_over_each_epoch_and_the_last_step_is_one(per_epoch):
    feed = feed_of(evaluations_per_epoch=per_epoch)
    after = sorted(feed.evaluate_after)
    assert after[-1] == feed.n_steps
    assert after[0] > 0
    assert len(after) == min(3 * per_epoch, feed.n_steps)
    if per_epoch == 1:  # each after a whole epoch
        assert [sum(len(feed.rows(s)) for s in range(end)) for end in after] == [300, 600, 900]


def test_counts_of_tokens_and_positions():
    feed = feed_of()
    assert feed.n_tokens == 3 * LENGTHS.sum()
    n_positions = sum(feed.size(step) for step in range(feed.n_steps))
    batches = [feed.rows(step) for step in range(feed.n_steps)]
    n_expected = sum(len(rows) * LENGTHS[rows].max() for rows in batches)
    assert n_positions == n_expected
    assert padding_share(LENGTHS, batches[: len(batches) // 3]) < 0.1


def test_of_records_with_two_texts_the_longer_counts_towards_the_budget_and_both_are_counted():
    both = np.stack([LENGTHS, np.random.default_rng(1).integers(1, 60, 300)], axis=1)
    config = TrainConfig(epochs=2, batch_tokens=512)
    feed = PlannedFeed(both, lambda rows, step: (rows, step), config, Seeds.new("1"))
    alone = PlannedFeed(both.max(1), lambda rows, step: (rows, step), config, Seeds.new("1"))
    assert feed.n_tokens == 2 * both.sum()
    for step in range(feed.n_steps):
        rows = feed.rows(step)
        assert np.array_equal(rows, alone.rows(step))
        assert len(rows) == 1 or len(rows) * both[rows].max() <= 512
        assert feed.size(step) == len(rows) * (both[rows, 0].max() + both[rows, 1].max())
    assert feed.evaluate_after == alone.evaluate_after


@pytest.mark.parametrize("share", [0.3, 1.0, 1.5, 3.0, 9.0])
def test_a_run_of_so_many_steps_begins_as_a_longer_one_and_ends_with_an_evaluation(share):
    whole = feed_of()
    n_epoch = whole.n_steps // 3
    short = feed_of(max_steps=int(share * n_epoch), evaluations_per_epoch=2)
    assert short.n_steps == min(whole.n_steps, int(share * n_epoch))
    assert all(np.array_equal(short.rows(step), whole.rows(step)) for step in range(short.n_steps))
    assert short.n_tokens == sum(LENGTHS[short.rows(step)].sum() for step in range(short.n_steps))
    assert max(short.evaluate_after) == short.n_steps
    assert len(short.evaluate_after) == 2 * min(3, int(np.ceil(share)))


def test_batches_made_ahead_are_those_of_the_feed_in_any_order(monkeypatch):
    """As for a GPU, which this pretends to have."""
    made = []

    class Counting:
        n_steps, evaluate_after = 5, frozenset({5})

        def batch(self, step):
            made.append(step)
            return Batch(rows_B=torch.tensor([step]))

    monkeypatch.setattr(Batch, "pinned", lambda self: self)
    with Ahead(Counting(), torch.device("cuda")) as ahead:
        got = [int(ahead.batch(step).rows_B) for step in (0, 1, 2, 2, 4, 3)]
    assert got == [0, 1, 2, 2, 4, 3]
    assert made[:4] == [0, 1, 2, 3]
    with Ahead(Counting(), torch.device("cpu")) as ahead:
        made.clear()
        ahead.batch(1)
    assert made == [1]


def test_what_goes_wrong_ahead_is_told_at_its_own_step(monkeypatch):
    class Broken:
        n_steps, evaluate_after = 3, frozenset({3})

        def batch(self, step):
            if step == 1:
                raise DataError("a broken record")
            return Batch(rows_B=torch.tensor([step]))

    monkeypatch.setattr(Batch, "pinned", lambda self: self)
    with Ahead(Broken(), torch.device("cuda")) as ahead:
        assert int(ahead.batch(0).rows_B) == 0
        with pytest.raises(DataError, match="a broken record"):
            ahead.batch(1)
