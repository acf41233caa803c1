from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from danlu.core.errors import DataError
from danlu.monitor.accuracy import ConfidenceLevels


def answers(n: int, hard: float, rng: np.random.Generator):
    """An overconfident model: it is right with chance 0.3 + 0.6 c at confidence c; hard requests have low c."""
    confidence = np.where(rng.random(n) < hard, rng.uniform(0.3, 0.6, n), rng.uniform(0.8, 1.0, n))
    return confidence, rng.random(n) < 0.3 + 0.6 * confidence


def truth(hard: float) -> float:
    return 0.3 + 0.6 * (hard * 0.45 + (1 - hard) * 0.9)


@pytest.mark.parametrize("hard", [0.2, 0.5, 0.9])
def test_intervals_cover_the_accuracy_and_its_drop(hard: float):
    rng = np.random.default_rng(0)
    n_accuracy = n_drop = 0
    for _ in range(400):
        levels = ConfidenceLevels.measure(*answers(1500, 0.2, rng))
        found = levels.estimate(answers(200, hard, rng)[0], 0.9)
        n_accuracy += found.interval.low <= truth(hard) <= found.interval.high
        n_drop += found.drop.low <= truth(0.2) - truth(hard) <= found.drop.high
    assert n_accuracy / 400 > 0.85
    assert n_drop / 400 > 0.85


def test_the_p_value_keeps_to_its_level_and_has_power():
    rng = np.random.default_rng(1)

    def p_value(hard: float) -> float:
        return ConfidenceLevels.measure(*answers(1000, 0.2, rng)).estimate(answers(200, hard, rng)[0], 0.9).drop.p

    null = np.array([p_value(0.2) for _ in range(500)])
    assert stats.binomtest(int((null <= 0.05).sum()), 500, 0.05, alternative="greater").pvalue > 0.001
    assert np.mean([p_value(0.4) < 0.05 for _ in range(50)]) > 0.9


def test_it_is_the_mean_over_levels():
    confidence = np.repeat([0.6, 0.9], 50)
    correct = np.concatenate([np.arange(50) < 20, np.arange(50) < 40])
    levels = ConfidenceLevels.measure(confidence, correct, n_levels=2)
    found = levels.estimate(np.array([0.6, 0.6, 0.6, 0.95]), 0.95)
    assert found.accuracy == pytest.approx((3 * 20.5 + 40.5) / 51 / 4)
    assert found.drop.effect == pytest.approx((20.5 + 40.5) / 51 / 2 - found.accuracy)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="100 records"):
        ConfidenceLevels.measure(np.full(99, 0.5), np.ones(99, bool))
    with pytest.raises(DataError, match=r"1\.5, not between"):
        ConfidenceLevels.measure(np.full(200, 1.5), np.ones(200, bool))
