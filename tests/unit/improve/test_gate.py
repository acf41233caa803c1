from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from danlu.improve.gate import ENOUGH, judge, needed, paired_score, score_interval


def by_search(lost: int, won: int, n: int, difference: float) -> float:
    """The score statistic with the likelihood maximised by search, and not by the root of a quadratic."""

    def loss(p_lost: float) -> float:
        p_won, p_same = p_lost + difference, 1 - 2 * p_lost - difference
        terms = ((lost, p_lost), (won, p_won), (n - lost - won, p_same))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    p_lost = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (won - lost - n * difference) / np.sqrt(n * (2 * p_lost + difference - difference**2))


@pytest.mark.parametrize(
    ("lost", "won", "n", "difference"),
    [(1, 7, 50, 0.05), (1, 7, 50, -0.05), (5, 3, 100, -0.1), (3, 9, 40, 0.2), (0, 4, 30, -0.05), (4, 0, 30, -0.05)],
)
def test_the_score_statistic_is_that_of_the_likelihood_under_the_null(lost, won, n, difference):
    assert paired_score(lost, won, n, difference) == pytest.approx(by_search(lost, won, n, difference), rel=1e-4)


def test_with_no_record_on_which_they_differ_n_must_still_be_large_enough():
    # The score test then rejects a loss of d as soon as n d / (1 - d) is above z squared.
    for margin in (0.02, 0.05, 0.1):
        enough = needed(margin, 0.05)
        for n, passes in ((enough, True), (enough - 1, False)):
            assert judge(compared(0, 0, n), "macro_f1", margin).passed == passes


def test_the_interval_is_what_the_test_does_not_reject():
    for lost, won, n in ((0, 0, 20), (2, 9, 120), (20, 0, 20), (0, 20, 20), (30, 31, 400)):
        low, high = score_interval(lost, won, n, 0.95)
        assert -1 <= low <= (won - lost) / n <= high <= 1
        if low > -1:
            assert paired_score(lost, won, n, low) == pytest.approx(norm.ppf(0.95), abs=1e-6)
        for margin in (0.02, 0.05):
            assert judge(compared(lost, won, n), "macro_f1", margin).passed == (low > -margin)


@pytest.mark.parametrize(("n", "p_lost"), [(60, 0.06), (150, 0.08), (150, 0.2), (400, 0.06)])
def test_a_model_that_loses_the_margin_passes_no_more_often_than_the_level_says(n, p_lost):
    rng, margin, level = np.random.default_rng(1), 0.05, 0.05
    shares = [p_lost, p_lost - margin, 1 - 2 * p_lost + margin]
    draws = rng.multinomial(n, shares, 4000)
    passed = sum(judge(compared(int(a), int(b), n), "macro_f1", margin, level).passed for a, b, _ in draws)
    assert passed / 4000 <= 0.065  # 0.05 and what a score test at these n was measured to be above it, with 4 errors


def test_an_improvement_is_let_through_and_a_flood_is_not():
    assert judge(compared(3, 20, 200), "macro_f1", 0.05).passed
    assert not judge(compared(40, 5, 200), "macro_f1", 0.05).passed
    found = judge(compared(40, 5, 200), "macro_f1", 0.05)
    assert (found.metric, found.method, found.difference) == ("accuracy", "score test", -0.175)
    assert found.high < 0


def test_a_score_of_texts_is_judged_by_its_interval_and_by_enough_records():
    def chrf(low: float, n: int) -> dict:
        found = {"difference": 0.1, "low": low, "high": 1.0}
        return {"n": n, "confidence": 0.95, "metrics": {"chrf": found}}

    assert judge(chrf(-1.9, ENOUGH), "chrf", 2.0).passed
    assert not judge(chrf(-2.1, 500), "chrf", 2.0).passed
    assert not judge(chrf(-0.1, ENOUGH - 1), "chrf", 2.0).passed
    assert judge(chrf(-1.9, 500), "chrf", 2.0).confidence == pytest.approx(0.975)


def compared(lost: int, won: int, n: int) -> dict:
    """A comparison of the new model (A) with the old one (B)."""
    return {"n": n, "mcnemar": {"n_only_a_right": won, "n_only_b_right": lost}}
