from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from danlu.evaluate.intervals import resample
from danlu.evaluate.significance import PairedCells, bootstrap_difference, holm, mcnemar, permutation_test


def test_mcnemar_is_the_exact_binomial_test_for_few():
    for b, c in [(0, 0), (0, 5), (3, 9), (12, 13)]:
        p_value, method = mcnemar(b, c)
        assert method == "exact"
        assert p_value == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0)


def test_mcnemar_is_the_mid_p_value_for_many():
    """Mid-p by its definition: what is less likely than the observed split, and half of what is as likely."""
    for b, c in [(10, 30), (30, 10), (20, 20), (68, 130)]:
        p_k = stats.binom.pmf(np.arange(b + c + 1), b + c, 0.5)
        as_likely = np.isclose(p_k, p_k[b], rtol=1e-9)
        expected = p_k[(p_k < p_k[b]) & ~as_likely].sum() + p_k[as_likely].sum() / 2
        p_value, method = mcnemar(b, c)
        assert method == "mid-p"
        assert p_value == pytest.approx(expected, rel=1e-6)


def test_permutation_test_is_the_full_enumeration_of_swaps():
    label_B = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    a_B = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    b_B = np.array([0, 1, 1, 0, 1, 2, 2, 0])

    def distance(swap_B):
        one, other = np.where(swap_B, b_B, a_B), np.where(swap_B, a_B, b_B)
        return abs(f1_score(label_B, one, average="macro") - f1_score(label_B, other, average="macro"))

    observed = distance(np.zeros(8, bool))
    all_swaps = [distance(np.array(swap, bool)) for swap in itertools.product([0, 1], repeat=8)]
    exact = np.mean(np.array(all_swaps) >= observed - 1e-12)
    found = permutation_test(PairedCells.count(label_B, a_B, b_B, 3), 20_000, np.random.default_rng(0))
    assert found["macro_f1"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)
    discordant = (a_B == label_B) != (b_B == label_B)
    n_a = int((discordant & (a_B == label_B)).sum())
    assert found["accuracy"] == pytest.approx(mcnemar(n_a, int(discordant.sum()) - n_a)[0], abs=0.015)


def test_paired_tests_reject_a_true_null_about_as_often_as_their_level():
    """300 pairs of equally good models; at level 0.1, 30 rejections expected, 5.2 the standard deviation."""
    rng = np.random.default_rng(5)
    rejected = {"permutation": 0, "bootstrap": 0}
    for _ in range(300):
        label_B = rng.integers(2, size=120)
        a_B, b_B = (np.where(rng.random(120) < 0.8, label_B, 1 - label_B) for _ in range(2))
        cells = PairedCells.count(label_B, a_B, b_B, 2)
        rejected["permutation"] += permutation_test(cells, 200, rng)["macro_f1"] < 0.1
        draws = resample(cells.count_M, cells.statistic(), 200, rng)
        found = bootstrap_difference(0, 0, draws["a.macro_f1"], draws["b.macro_f1"], 0.9)
        rejected["bootstrap"] += found["p_bootstrap"] < 0.1
    assert 10 <= rejected["permutation"] <= 51
    assert 10 <= rejected["bootstrap"] <= 56


def test_a_better_model_is_found_better_by_every_test():
    rng = np.random.default_rng(6)
    label_B = rng.integers(3, size=600)
    a_B = np.where(rng.random(600) < 0.9, label_B, (label_B + 1) % 3)
    b_B = np.where(rng.random(600) < 0.75, label_B, (label_B + 1) % 3)
    cells = PairedCells.count(label_B, a_B, b_B, 3)
    assert permutation_test(cells, 999, rng)["macro_f1"] == pytest.approx(1 / 1000)
    draws = resample(cells.count_M, cells.statistic(), 500, rng)
    found = bootstrap_difference(0.9, 0.75, draws["a.accuracy"], draws["b.accuracy"], 0.95)
    assert 0.05 < found["low"] < 0.15 < found["high"] < 0.25
    assert found["difference"] == pytest.approx(0.15)
    assert found["p_bootstrap"] == pytest.approx(2 / 501)


def test_equal_models_show_no_difference():
    label_B = np.array([0, 1, 1, 0, 1])
    cells = PairedCells.count(label_B, label_B, label_B, 2)
    rng = np.random.default_rng(0)
    assert permutation_test(cells, 99, rng)["macro_f1"] == 1.0
    draws = resample(cells.count_M, cells.statistic(), 99, rng)
    found = bootstrap_difference(1.0, 1.0, draws["a.macro_f1"], draws["b.macro_f1"], 0.95)
    assert (found["p_bootstrap"], found["low"], found["high"]) == (1.0, 0.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_bonferroni_test(p_values):
    """Holm rejects i where Bonferroni rejects every set of hypotheses that i is in (Marcus et al. 1976)."""
    indices = range(len(p_values))
    for i, corrected in enumerate(holm(p_values)):
        sets = (s for k in range(1, len(p_values) + 1) for s in itertools.combinations(indices, k) if i in s)
        assert corrected == pytest.approx(max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets))
