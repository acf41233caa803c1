from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from danlu.core.errors import DataError
from danlu.monitor.drift import bandwidth_of, ks_distance, ks_shift, mmd_distance, one_hot, psi_distance
from danlu.monitor.shift import measure_shift, observed_shift


def test_ks_is_that_of_scipy_with_and_without_ties():
    rng = np.random.default_rng(0)
    for draw in (lambda n: rng.normal(size=n), lambda n: rng.integers(0, 6, n).astype(float)):
        reference, window = draw(80), draw(33)
        distance = ks_distance(np.concatenate([reference, window]))
        assert observed_shift(distance, 80, 33) == pytest.approx(stats.ks_2samp(reference, window).statistic)


def test_psi_is_its_definition():
    classes = np.array([0, 0, 0, 1, 2, 2, 0, 1, 1])
    r, w = np.array([3.5, 1.5, 1.5]) / 6.5, np.array([1.5, 2.5, 1.5]) / 5.5
    expected = ((w - r) * np.log(w / r)).sum()
    assert observed_shift(psi_distance(one_hot(classes, 3)), 5, 4) == pytest.approx(expected)


def test_mmd_is_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(1, 1, size=(7, 3))
    both = np.concatenate([x, y])

    def kernel(a, b):
        return np.exp(-(cdist(a, b) ** 2) / (2 * 1.7**2)).mean()

    expected = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    assert observed_shift(mmd_distance(both, 1.7), 12, 7) == pytest.approx(expected)
    assert bandwidth_of(both) == pytest.approx(np.median(cdist(both, both)[np.triu_indices(19, 1)]))


def test_the_p_value_is_that_of_all_deals():
    """Against every way to deal 9 records to sides of 5 and 4."""
    value = np.array([0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0])
    distance = ks_distance(value)
    observed = observed_shift(distance, 5, 4)
    deals = np.zeros((126, 9))
    for row, chosen in enumerate(itertools.combinations(range(9), 4)):
        deals[row, list(chosen)] = 1
    exact = (distance(1 - deals, deals) >= observed - 1e-12).mean()
    found = measure_shift(distance, 5, 4, 0.95, 20_000, np.random.default_rng(0))
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


@pytest.mark.parametrize("kind", ["ks", "psi", "mmd"])
def test_p_values_keep_to_the_level_and_find_a_shift(kind: str):
    rng = np.random.default_rng(4)

    def p_value(shift: float) -> float:
        value = np.concatenate([rng.normal(size=80), rng.normal(shift, 1, size=40)])
        if kind == "ks":
            distance = ks_distance(value)
        elif kind == "psi":
            distance = psi_distance(one_hot(np.digitize(value, [-1.0, 0.0, 1.0]), 4))
        else:
            distance = mmd_distance(value[:, None], bandwidth_of(value[:, None]))
        return measure_shift(distance, 80, 40, 0.95, 99, rng).p

    null = np.array([p_value(0.0) for _ in range(200)])
    for level in (0.05, 0.2):
        assert stats.binomtest(int((null <= level).sum()), 200, level, alternative="greater").pvalue > 0.001
    assert null.mean() == pytest.approx(0.5, abs=0.1)  # nor far below it
    assert np.mean([p_value(1.0) <= 0.05 for _ in range(20)]) > 0.8


def test_the_interval_covers_a_shift_of_known_size():
    """A class with a share of 0.1 that becomes 0.2."""
    rng = np.random.default_rng(1)
    r, w = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.3, 0.3, 0.2, 0.2])
    truth, hits = ((w - r) * np.log(w / r)).sum(), 0
    for _ in range(100):
        classes = np.concatenate([rng.choice(4, 500, p=r), rng.choice(4, 100, p=w)])
        found = measure_shift(psi_distance(one_hot(classes, 4)), 500, 100, 0.95, 99, rng)
        hits += found.low <= truth <= found.high
        assert found.low <= found.effect <= found.high
    assert hits >= 80


def test_the_interval_of_ks_always_covers():
    """Two normals one apart: the distance between their distributions is 2 Phi(1/2) - 1 = 0.383."""
    rng = np.random.default_rng(1)
    truth = 2 * stats.norm.cdf(0.5) - 1
    found = [ks_shift(rng.normal(size=300), rng.normal(1, 1, size=200), 0.9, 19, rng) for _ in range(100)]
    assert sum(f.low <= truth <= f.high for f in found) >= 90
    assert np.mean([f.effect for f in found]) == pytest.approx(truth, abs=0.03)
    assert all(f.low > 0 and f.p == 0.05 for f in found)


def test_without_a_shift_zero_is_inside():
    rng = np.random.default_rng(1)
    distance = psi_distance(one_hot(rng.integers(0, 4, 300), 4))
    found = measure_shift(distance, 200, 100, 0.95, 499, rng)
    assert found.p > 0.05
    assert (found.low, found.effect) == (0.0, pytest.approx(0.0, abs=0.05))


def test_a_new_kind_is_far_and_finite():
    classes = np.concatenate([np.zeros(100, int), np.ones(100, int)])
    found = measure_shift(psi_distance(one_hot(classes, 2)), 100, 100, 0.95, 199, np.random.default_rng(0))
    assert found.p == 1 / 200
    assert 1 < found.low <= found.effect < 20


def test_characters_of_a_text_are_dealt_together():
    """Each text repeats one character: as if all characters were independent, chance would look like drift."""
    rng = np.random.default_rng(2)
    kinds = rng.integers(0, 3, 60)
    p = [
        measure_shift(psi_distance(50 * one_hot(rng.permutation(kinds), 3)), 40, 20, 0.95, 99, rng).p for _ in range(60)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.2


def test_large_samples_are_worked_through_in_parts(monkeypatch: pytest.MonkeyPatch):
    distance = ks_distance(np.arange(50.0))
    whole = measure_shift(distance, 30, 20, 0.95, 40, np.random.default_rng(0))
    monkeypatch.setattr("danlu.monitor.shift.CHUNK", 100)
    parts = measure_shift(distance, 30, 20, 0.95, 40, np.random.default_rng(0))
    assert whole.p == parts.p == 1 / 41  # the observed deal is the furthest there is
    assert parts.n_reference == 30


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="the window 1"):
        measure_shift(ks_distance([1.0, 2.0, 3.0]), 2, 1, 0.95, 99, rng)
    with pytest.raises(DataError, match="nan"):
        ks_distance([1.0, float("nan")])
    with pytest.raises(DataError, match="0 or more"):
        psi_distance([[1.0, -1.0]])
    with pytest.raises(DataError, match="the same"):
        bandwidth_of(np.ones((5, 2)))
