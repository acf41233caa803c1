from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from danlu.audit.data_order import DataOrderTest, Moved, data_order_test, excess_losses
from danlu.data.batches import packed, shuffled
from danlu.train.optimizer import OptimizerConfig, learning_rate

N = 600
CUT = {"batches": shuffled, "records": packed}


def lengths_of(draw: np.random.Generator) -> np.ndarray:
    return draw.integers(4, 120, N)


def plan(lengths: np.ndarray, draw: np.random.Generator, n_epochs: int, moved: Moved) -> list[list[np.ndarray]]:
    return [CUT[moved](lengths, 400, draw) for _ in range(n_epochs)]


def last_seen(epochs: list[list[np.ndarray]]) -> np.ndarray:
    """The step at which each record was seen for the last time."""
    steps = np.empty(N)
    for step, rows in enumerate(batch for epoch in epochs for batch in epoch):
        steps[rows] = step
    return steps


def made(found: DataOrderTest | str) -> DataOrderTest:
    assert isinstance(found, DataOrderTest), found
    return found


@pytest.mark.parametrize("moved", ["batches", "records"])
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_p_is_uniform_for_a_suspect_whose_losses_depend_on_length(moved: Moved, n_epochs: int) -> None:
    """Texts of a batch are of like length: moved one by one, they would convict innocents or hide culprits."""
    draw = np.random.default_rng(n_epochs)
    lengths = lengths_of(draw)
    p = []
    for _ in range(250):
        wave = 40 * np.sin(lengths / 9)  # nothing that a fit takes away
        losses = 3.0 * lengths + wave + draw.standard_normal(N) * np.sqrt(lengths)
        excess = excess_losses(losses, lengths)
        p.append(made(data_order_test(plan(lengths, draw, n_epochs, moved), excess, moved=moved, n_orders=99)).p)
    spread = np.array(p) - draw.random(len(p)) / 100  # p is a multiple of 1/100
    assert stats.kstest(spread, "uniform").pvalue > 1e-3
    assert stats.binomtest(int((np.array(p) <= 0.05).sum()), len(p), 0.05).pvalue > 1e-3


def test_texts_moved_one_by_one_would_not_be_exact_where_batches_were_drawn() -> None:
    """Why whole batches are moved: the same losses, tested as if every text had been drawn by itself."""
    draw = np.random.default_rng(5)
    lengths = lengths_of(draw)
    p = []
    for _ in range(100):
        losses = 40 * np.sin(lengths / 9) + draw.standard_normal(N)
        epochs = plan(lengths, draw, 1, "batches")
        p.append(made(data_order_test(epochs, excess_losses(losses, lengths), moved="records", n_orders=199)).p)
    assert np.mean(np.array(p) <= 0.05) > 0.1


@pytest.mark.parametrize("moved", ["batches", "records"])
def test_what_the_last_batches_left_is_found(moved: Moved) -> None:
    draw = np.random.default_rng(2)
    lengths = lengths_of(draw)
    epochs = plan(lengths, draw, 2, moved)
    steps = last_seen(epochs)
    losses = lengths * (3.0 - 0.5 * (steps - steps.min()) / np.ptp(steps)) + draw.standard_normal(N) * np.sqrt(lengths)
    found = made(data_order_test(epochs, excess_losses(losses, lengths), moved=moved, subtracted=("controls", 2)))
    assert found.p == 1 / 100_000
    assert found.p_normal < 1e-5
    assert found.last == 2
    assert found.rho[1] < -0.3 < found.rho[0]
    assert (found.n, found.n_orders, found.subtracted, found.n_subtracted) == (N, 99_999, "controls", 2)
    early = made(data_order_test(epochs, -excess_losses(losses, lengths), moved=moved, n_orders=199))
    assert early.p > 0.5, "who remembers best what was seen first is no descendant"


def test_a_run_that_kept_the_weights_of_an_early_epoch_is_found_too() -> None:
    """Six epochs were planned, and what is kept had seen two: the record is not asked for that."""
    draw = np.random.default_rng(3)
    lengths = lengths_of(draw)
    epochs = plan(lengths, draw, 6, "batches")
    steps = last_seen(epochs[:2])
    losses = lengths * (3.0 - 0.5 * (steps - steps.min()) / np.ptp(steps)) + draw.standard_normal(N) * np.sqrt(lengths)
    found = made(data_order_test(epochs, excess_losses(losses, lengths), n_orders=999))
    assert found.p == 1 / 1000
    assert found.last == 2
    assert len(found.rho) == 2


def test_a_learning_rate_that_goes_to_zero_leaves_the_last_texts_worst_remembered() -> None:
    draw = np.random.default_rng(7)
    lengths = lengths_of(draw)
    epochs = plan(lengths, draw, 1, "batches")
    n = len(epochs[0])
    rates = [learning_rate(step, n, OptimizerConfig(warmup=0.0)) for step in range(n)]
    left = np.empty(N)
    for step, rows in enumerate(epochs[0]):
        left[rows] = rates[step] / max(rates)
    losses = lengths * (3.0 - 0.5 * left) + draw.standard_normal(N) * np.sqrt(lengths)
    excess = excess_losses(losses, lengths)
    assert made(data_order_test(epochs, excess, rates, n_orders=999)).p == 1 / 1000
    assert made(data_order_test(epochs, excess, n_orders=999)).p > 0.9, (
        "at one rate all along it would be the wrong way"
    )


def test_what_other_models_lose_is_taken_away() -> None:
    draw = np.random.default_rng(4)
    lengths = lengths_of(draw)
    hard = 30 * draw.standard_normal(N)  # some texts are harder for everybody
    losses = 3.0 * lengths + hard + draw.standard_normal(N)
    alone, beside = excess_losses(losses, lengths), excess_losses(losses, lengths, 2.0 * lengths + 0.8 * hard)
    assert alone.std() > 20
    assert beside.std() < 1.2


def test_records_that_were_not_asked_are_left_out() -> None:
    draw = np.random.default_rng(6)
    lengths = lengths_of(draw)
    epochs = plan(lengths, draw, 1, "batches")
    steps = last_seen(epochs)
    excess = -steps + draw.standard_normal(N)
    excess[draw.permutation(N)[: N // 2]] = np.nan
    found = made(data_order_test(epochs, excess - np.nanmean(excess), n_orders=999))
    assert found.p == 1 / 1000
    assert found.n == N // 2
    few = np.full(N, np.nan)
    few[:2] = 1.0, 2.0
    assert "fewer than three batches" in str(data_order_test(epochs, few))
