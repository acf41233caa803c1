from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from danlu.core.errors import DataError
from danlu.monitor.classifier_test import auc_interval, classifier_shift


def test_the_auc_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    score_0, score_1 = rng.integers(0, 9, 50).astype(float), rng.integers(3, 12, 30).astype(float)
    auc, interval = auc_interval(score_0, score_1, 0.95)
    assert auc == pytest.approx(roc_auc_score(np.repeat([0, 1], [50, 30]), np.concatenate([score_0, score_1])))
    assert interval.low < auc < interval.high


def test_the_interval_covers():
    rng = np.random.default_rng(0)
    truth, hits = stats.norm.cdf(1 / np.sqrt(2)), 0
    for _ in range(500):
        _, (low, high) = auc_interval(rng.normal(size=60), rng.normal(1, 1, size=40), 0.9)
        hits += low <= truth <= high
    assert stats.binomtest(hits, 500, 0.9).pvalue > 0.001


def test_sides_that_part_wholly_still_have_a_width():
    auc, (low, high) = auc_interval(np.arange(30.0), np.arange(30.0) + 100, 0.95)
    assert (auc, high) == (1.0, 1.0)
    assert 0.7 < low < 0.8


def test_no_drift_is_not_found_and_drift_is():
    rng = np.random.default_rng(3)

    def p_value() -> float:
        return classifier_shift(rng.normal(size=(60, 4)), rng.normal(size=(60, 4)), 0.95, rng).p

    p = np.array([p_value() for _ in range(100)])
    assert stats.binomtest(int((p <= 0.1).sum()), 100, 0.1, alternative="greater").pvalue > 0.001
    moved = rng.normal([2.0, 0.0, 0.0, 0.0], 1.0, size=(200, 4))
    found = classifier_shift(rng.normal(size=(300, 4)), moved, 0.95, rng)
    assert found.p < 1e-6
    assert 0.8 < found.low < found.effect < found.high


def test_too_few_are_refused():
    with pytest.raises(DataError, match="20 records"):
        classifier_shift(np.ones((50, 2)), np.ones((19, 2)), 0.95, np.random.default_rng(0))
