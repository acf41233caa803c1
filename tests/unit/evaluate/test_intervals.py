from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from danlu.evaluate import intervals
from danlu.evaluate.intervals import Interval, basic, mean_of_runs, measure, observed, percentile, resample, wilson
from danlu.evaluate.metrics import class_statistic, mean, together


def test_wilson_is_that_of_scipy():
    for n_hits, n in [(0, 10), (3, 10), (10, 10), (850, 1000)]:
        expected = stats.binomtest(n_hits, n).proportion_ci(0.95, method="wilson")
        assert wilson(n_hits, n, 0.95) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert math.isnan(wilson(0, 0, 0.95).low)


def test_percentile_leaves_out_undefined_resamples():
    draws = np.concatenate([np.arange(101.0), [math.nan] * 50])
    assert percentile(draws, 0.9) == pytest.approx((5.0, 95.0))
    assert basic(40.0, draws, 0.9) == pytest.approx((-15.0, 75.0))
    assert math.isnan(percentile(np.array([math.nan]), 0.9).low)


def test_cells_resample_as_records_do():
    """A multinomial over cells and the ordinary bootstrap of records have one distribution."""
    label_M, predicted_M, count_M = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([50, 10, 8, 22])
    of_cells = resample(count_M, class_statistic(label_M, predicted_M, 2), 4000, np.random.default_rng(0))
    records = np.repeat(np.arange(4), count_M)
    of_record = class_statistic(label_M[records], predicted_M[records], 2)
    of_records = resample(np.ones(90, np.int64), of_record, 4000, np.random.default_rng(1))
    rng, naive = np.random.default_rng(2), []
    for _ in range(1000):
        drawn = rng.choice(records, size=90)
        hits = label_M[drawn] == predicted_M[drawn]
        naive.append(hits.mean())
    assert stats.ks_2samp(of_cells["macro_f1"], of_records["macro_f1"]).pvalue > 0.01
    assert stats.ks_2samp(of_cells["accuracy"], naive).pvalue > 0.01
    assert stats.ks_2samp(of_records["accuracy"], naive).pvalue > 0.01


def test_resampling_is_deterministic_and_does_not_depend_on_the_chunk(monkeypatch):
    value_B = np.random.default_rng(0).normal(size=64)
    statistic = together({"mean": mean(value_B)})
    ones_B, twos_B = np.ones(64, np.int64), np.full(64, 2)
    for count_B in (ones_B, twos_B):
        whole = resample(count_B, statistic, 50, np.random.default_rng(5))["mean"]
        monkeypatch.setattr(intervals, "CHUNK", 200)
        pieces = resample(count_B, statistic, 50, np.random.default_rng(5))["mean"]
        monkeypatch.undo()
        np.testing.assert_allclose(whole, pieces, rtol=1e-9)  # a matrix product may sum in another order
        assert len(np.unique(whole)) == 50


def test_metrics_of_one_draw_are_paired():
    value_B = np.random.default_rng(0).normal(size=30)
    both = together({"a": mean(value_B), "b": mean(value_B + 1)})
    draws = resample(np.ones(30, np.int64), both, 100, np.random.default_rng(0))
    np.testing.assert_allclose(draws["b"] - draws["a"], 1.0)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """400 test sets of 150 records in three unequal classes; at 95% ± 4 standard errors (0.011) of 400 trials."""
    rng = np.random.default_rng(11)
    label_M, predicted_M = np.divmod(np.arange(9), 3)
    share_M = np.array([[0.48, 0.08, 0.04], [0.04, 0.22, 0.04], [0.01, 0.01, 0.08]]).ravel()
    statistic = class_statistic(label_M, predicted_M, 3)
    truth = observed((share_M * 10_000).astype(int), statistic)
    n_sets, covered = 400, {"macro_f1": 0, "accuracy": 0}
    for _ in range(n_sets):
        count_M = rng.multinomial(150, share_M)
        low, high = percentile(resample(count_M, statistic, 400, rng)["macro_f1"], 0.95)
        covered["macro_f1"] += low <= truth["macro_f1"] <= high
        low, high = wilson(int(count_M[label_M == predicted_M].sum()), 150, 0.95)
        covered["accuracy"] += low <= truth["accuracy"] <= high
    for n_covered in covered.values():
        assert 0.906 <= n_covered / n_sets <= 0.994


def test_measure_is_plain_json_with_null_for_undefined():
    found = measure(math.nan, Interval(0.25, 0.75), 4, "bootstrap")
    assert found == {"value": None, "low": 0.25, "high": 0.75, "n": 4, "method": "bootstrap"}


def test_the_mean_of_runs_has_students_interval() -> None:
    values = [0.81, 0.84, 0.86]
    found = mean_of_runs([{"value": value, "low": 0.0, "high": 1.0, "n": 100, "method": "x"} for value in values], 0.95)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    np.testing.assert_allclose([found["low"], found["high"]], expected, rtol=1e-12)
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["n"] == 3
    alone = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 100, "method": "wilson"}
    assert mean_of_runs([alone], 0.95) == alone
