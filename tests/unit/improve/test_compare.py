from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from danlu.core.errors import DataError, UsageError
from danlu.improve.compare import (
    DECISIONS,
    ComparisonPlan,
    compare_live,
    compare_shadow,
    first_decisions,
    first_rows,
    live_numbers,
)
from danlu.improve.evidence import log_evidence_of_wins


def experiments(difference: float, plan: ComparisonPlan, n: int, seed: int = 0):
    """n experiments of a champion that is right four times in five."""
    rng = np.random.default_rng(seed)
    challenger_ET = rng.random((n, plan.budget)) < plan.share
    outcome_ET = (rng.random((n, plan.budget)) < 0.8 + difference * challenger_ET).astype(float)
    return challenger_ET, outcome_ET


def decisions(difference: float, plan: ComparisonPlan, n: int) -> dict[str, float]:
    challenger_ET, outcome_ET = experiments(difference, plan, n)
    code, _ = first_decisions(live_numbers(challenger_ET, outcome_ET, plan.share), plan)
    return {name: float((code == k).mean()) for k, name in enumerate(DECISIONS)}


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_false_promotions_stay_under_the_level(share: float):
    plan = ComparisonPlan(margin=0.05, budget=1500, level=0.1, share=share)
    found = decisions(0.0, plan, 400)
    assert stats.binomtest(round(400 * found["superior"]), 400, 0.05, alternative="greater").pvalue > 0.001
    assert stats.binomtest(round(400 * found["inferior"]), 400, 0.05, alternative="greater").pvalue > 0.001


def test_what_is_better_is_found_and_what_is_worse_is_stopped():
    plan = ComparisonPlan(margin=0.05, budget=2000)
    assert decisions(0.1, plan, 100)["superior"] > 0.9
    assert decisions(-0.1, plan, 100)["inferior"] > 0.9


def test_what_is_alike_is_found_to_be_so():
    plan = ComparisonPlan(margin=0.1, budget=3000)
    found = decisions(0.0, plan, 100)
    assert found["equivalent"] > 0.9
    # At the edge of the margin it would be wrong to say so.
    assert decisions(0.1, plan, 100)["equivalent"] < 0.05


def test_traffic_that_changes_is_no_false_promotion():
    """Outcomes fall from 0.9 to 0.3 and back, half the users come from a source that is always wrong at night."""
    rng = np.random.default_rng(3)
    plan = ComparisonPlan(margin=0.05, budget=1500, level=0.1)
    rate_T = 0.6 + 0.3 * np.cos(np.arange(plan.budget) / 200)
    challenger_ET = rng.random((400, plan.budget)) < 0.5
    outcome_ET = (rng.random((400, plan.budget)) < rate_T).astype(float)
    code, _ = first_decisions(live_numbers(challenger_ET, outcome_ET, 0.5), plan)
    assert stats.binomtest(int(np.isin(code, (1, 2)).sum()), 400, 0.1, alternative="greater").pvalue > 0.001


def test_the_numbers_have_the_difference_as_their_mean():
    plan = ComparisonPlan(margin=0.05, budget=400, share=0.2)
    challenger_ET, outcome_ET = experiments(0.1, plan, 2000)
    means = live_numbers(challenger_ET, outcome_ET, 0.2).mean(1)
    assert abs(means.mean() - 0.1) < 4 * means.std() / np.sqrt(2000)
    naive = 0.8 * 0.2 / 0.16 / 400
    assert means.var() < 1.3 * naive  # no wider than the plain difference of two means, but for little


def test_the_guess_looks_at_earlier_outcomes_only():
    challenger, outcome = np.array([True, False, True, False]), np.array([1.0, 0.0, 1.0, 1.0])
    other = np.array([1.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(live_numbers(challenger, outcome, 0.5)[:2], live_numbers(challenger, other, 0.5)[:2])
    assert live_numbers(challenger, outcome, 0.5)[0] == pytest.approx((1.0 - 0.5) * 2)


def test_decisions_agree_with_the_interval():
    plan = ComparisonPlan(margin=0.08, budget=1200)
    for difference in (0.0, 0.12, -0.12):
        challenger_ET, outcome_ET = experiments(difference, plan, 1, seed=4)
        at = None
        for n in range(50, plan.budget + 1, 50):
            found = compare_live(plan, challenger_ET[0, :n], outcome_ET[0, :n])
            low, high = found.interval
            assert low < found.difference < high
            if found.decided_at is None:
                assert low <= 0 <= high
                assert not (-plan.margin < low and high < plan.margin)
                continue
            at = at or (found.decision, found.decided_at)
            assert (found.decision, found.decided_at) == at or found.reason == "budget"  # the first decision stands


@pytest.mark.parametrize(("difference", "decision"), [(0.3, "superior"), (-0.3, "inferior"), (0.0, "equivalent")])
def test_what_is_told_of_a_decision_is_what_was_so_when_it_fell(difference: float, decision: str):
    plan = ComparisonPlan(margin=0.1, budget=4000)
    challenger_ET, outcome_ET = experiments(difference, plan, 1, seed=3)
    late = compare_live(plan, challenger_ET[0], outcome_ET[0])
    assert late.decision == decision
    assert late.decided_at is not None
    at = late.decided_at
    assert at < plan.budget
    then = compare_live(plan, challenger_ET[0, :at], outcome_ET[0, :at])
    assert (late.n, late.n_since, then.n_since) == (at, plan.budget - at, 0)
    assert dataclasses.replace(late, n_since=0) == then
    assert compare_live(plan, challenger_ET[0, : at - 1], outcome_ET[0, : at - 1]).decision == "continue"
    low, high = late.interval
    assert {"superior": low > 0, "inferior": high < 0, "equivalent": -0.1 < low <= high < 0.1}[decision]


def test_a_spent_budget_ends_it():
    plan = ComparisonPlan(margin=0.01, budget=100)
    challenger_ET, outcome_ET = experiments(0.0, ComparisonPlan(margin=0.01, budget=150), 1)
    assert compare_live(plan, challenger_ET[0, :99], outcome_ET[0, :99]).decision == "continue"
    found = compare_live(plan, challenger_ET[0], outcome_ET[0])
    assert (found.decision, found.reason, found.n, found.decided_at) == ("inconclusive", "budget", 100, 100)


def test_wrong_shares_spoil_it():
    rng = np.random.default_rng(2)
    plan = ComparisonPlan(margin=0.05, budget=3000)
    challenger = rng.random(3000) < 0.4
    outcome = (rng.random(3000) < 0.5 + 0.2 * challenger).astype(float)
    found = compare_live(plan, challenger, outcome)
    assert (found.decision, found.reason) == ("inconclusive", "shares")
    assert found.ratio_p < 0.001
    assert found.decided_at is not None
    until = compare_live(plan, challenger[: found.decided_at], outcome[: found.decided_at])
    assert until == dataclasses.replace(found, n_since=0)
    earlier = compare_live(plan, challenger[: found.decided_at - 1], outcome[: found.decided_at - 1])
    assert earlier.reason != "shares"


def test_in_the_shadow_differences_are_paired():
    rng = np.random.default_rng(1)
    plan = ComparisonPlan(margin=0.02, budget=2000, mode="shadow")
    champion = (rng.random(2000) < 0.8).astype(float)
    flipped = rng.random(2000)
    challenger = np.where((champion == 0) & (flipped < 0.3), 1.0, np.where(flipped < 0.01, 0.0, champion))
    found = compare_shadow(plan, champion, challenger)
    assert found.decision == "superior"
    assert found.n == found.n_challenger == found.decided_at == 2000 - found.n_since
    wins, losses = (np.cumsum(each[: found.n]) for each in (challenger > champion, challenger < champion))
    assert found.wins_p == pytest.approx(np.exp(-log_evidence_of_wins(wins, losses).max()))
    assert found.difference == pytest.approx((challenger - champion)[: found.n].mean())
    assert compare_shadow(plan, champion * 0.5, challenger).wins_p is None
    assert compare_shadow(plan, champion, champion).decision == "equivalent"


def test_a_user_counts_once():
    np.testing.assert_array_equal(first_rows(["b", "a", "b", "c", "a"]), [0, 1, 3])


@pytest.mark.parametrize(
    ("outcome", "message"),
    [([0.5, 1.5], "1.5, not between"), ([0.5, float("nan")], "nan"), ([0.5], "1 for 2"), ([1.0] * 3, "3 for 2")],
)
def test_bad_outcomes_are_refused(outcome: list[float], message: str):
    with pytest.raises(DataError, match=message):
        compare_live(ComparisonPlan(margin=0.05, budget=10), np.array([True, False]), outcome)
    shadow = ComparisonPlan(margin=0.05, budget=1, mode="shadow")
    with pytest.raises(DataError, match=message):
        compare_shadow(shadow, [1.0, 0.0], outcome)


def test_nobody_yet_is_said():
    with pytest.raises(DataError, match="one at least"):
        compare_live(ComparisonPlan(margin=0.05, budget=10), np.array([], bool), [])


def test_a_plan_is_kept():
    with pytest.raises(UsageError, match="planned as live"):
        compare_shadow(ComparisonPlan(margin=0.05, budget=10), [1.0], [1.0])
