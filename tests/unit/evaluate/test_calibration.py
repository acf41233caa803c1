from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from danlu.evaluate.calibration import (
    apply_temperature,
    bin_edges,
    ece,
    ece_if_calibrated,
    ece_interval,
    fit_temperature,
    p_calibrated,
    reliability,
)
from danlu.evaluate.intervals import resample
from danlu.evaluate.metrics import together


def ece_by_hand(confidence_B, correct_B, n_bins):
    edges, total = [-1.0, *bin_edges(confidence_B, n_bins).tolist()], 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence_B > low) & (confidence_B <= high)
        total += inside.mean() * abs(correct_B[inside].mean() - confidence_B[inside].mean())
    return total


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60), st.integers(2, 15))
def test_ece_is_its_definition_in_any_order_of_records(records, n_bins):
    confidence_B = np.array([c / 20 for c, _ in records])
    correct_B = np.array([right for _, right in records])
    ones = np.ones((1, len(records)), np.int64)
    value = ece(confidence_B, correct_B, n_bins)(ones)[0]
    assert value == pytest.approx(ece_by_hand(confidence_B, correct_B, n_bins), abs=1e-12)
    assert value == pytest.approx(ece(confidence_B[::-1], correct_B[::-1], n_bins)(ones)[0], abs=1e-12)
    bins = reliability(confidence_B, correct_B, n_bins, 0.95)
    assert sum(b["n"] for b in bins) == len(records)
    gaps = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / len(records)
    assert gaps == pytest.approx(value, abs=1e-12)
    assert all(b["low"] <= b["accuracy"] + 1e-12 and b["accuracy"] <= b["high"] + 1e-12 for b in bins)


def test_bins_hold_equally_many_unless_confidences_are_equal():
    confidence_B = np.random.default_rng(0).random(1000)
    bins = reliability(confidence_B, confidence_B > 0.5, 10, 0.95)
    assert [b["n"] for b in bins] == [100] * 10
    assert len(reliability(np.full(1000, 0.7), confidence_B > 0.5, 10, 0.95)) == 1


def test_calibration_is_rejected_as_seldom_as_it_should_be_and_its_interval_covers_zero():
    """A calibrated model, 200 test sets: 5% rejections expected; a model 10 points too sure: nearly always."""
    rng = np.random.default_rng(4)
    rejected = {0.0: 0, 0.1: 0}
    for excess in rejected:
        for _ in range(200):
            confidence_B = rng.uniform(0.6, 1, 400)
            correct_B = rng.random(400) < confidence_B - excess
            metric = ece(confidence_B, correct_B, 10)
            value = metric(np.ones((1, 400), np.int64))[0]
            chance = ece_if_calibrated(confidence_B, 10, 200, rng)
            rejected[excess] += p_calibrated(value, chance) < 0.05
    assert 1 <= rejected[0.0] <= 22
    assert rejected[0.1] >= 190

    draws = resample(np.ones(400, np.int64), together({"ece": metric}), 300, rng)["ece"]
    low, high = ece_interval(value, draws, chance, 0.95)
    assert 0 < low <= 0.1 <= high
    confidence_B = rng.uniform(0.6, 1, 400)
    quiet = float(np.median(chance))
    assert ece_interval(quiet, chance + quiet, chance, 0.95).low == 0.0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_recovered_and_applied(temperature):
    rng = np.random.default_rng(2)
    logits_BN = rng.normal(scale=2.0, size=(20_000, 3))
    true_BN = softmax(logits_BN, axis=1)
    label_B = (true_BN.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    shown_BN = softmax(logits_BN * temperature, axis=1)
    fitted = fit_temperature(shown_BN, label_B)
    assert fitted == pytest.approx(temperature, rel=0.03)
    np.testing.assert_allclose(apply_temperature(shown_BN, temperature), true_BN, atol=1e-9)


def test_temperature_is_the_minimum_of_the_log_loss():
    rng = np.random.default_rng(3)
    p_BN, label_B = rng.dirichlet(np.ones(4), 200), rng.integers(4, size=200)

    def loss(temperature):
        return -np.log(apply_temperature(p_BN, temperature)[np.arange(200), label_B]).mean()

    fitted = fit_temperature(p_BN, label_B)
    assert loss(fitted) <= min(loss(t) for t in np.geomspace(0.1, 100, 400)) + 1e-9
