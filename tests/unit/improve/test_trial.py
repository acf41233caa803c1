"""Where a trial stands: which feedback counts, for which arm, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from danlu.core.errors import CorruptError
from danlu.core.experiments import Experiment
from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.improve.compare import ComparisonPlan, compare_live, compare_shadow
from danlu.improve.trial import Standing, outcome, plan_of, resolution, standing, told_of
from made_trial import NAME, Traffic

PLAN = ComparisonPlan(margin=0.05, budget=400)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def started(workspace: Workspace, **plan: Any) -> tuple[Experiment, Traffic]:
    made = workspace.experiments.start(NAME, "a" * 64, "b" * 64, PLAN.plain() | plan, "li")
    return made, Traffic(workspace, made)


def look(workspace: Workspace, experiment: Experiment) -> Standing:
    with Index.open(workspace) as index:
        index.refresh()
        return standing(index, experiment)


def test_nothing_is_known_before_the_first_outcome(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    assert look(workspace, experiment) == Standing(None, {})
    traffic.ask("champion", "u", ["good"])
    assert look(workspace, experiment) == Standing(None, {})
    assert told_of(experiment, look(workspace, experiment)) == (
        f"live trial {experiment.id}: continues, no outcome yet of at most 400 users"
    )


def test_a_user_counts_once_in_the_order_of_outcomes(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    asked = [("u", "champion"), ("v", "challenger"), ("u", "champion"), ("w", "challenger")]
    first, second, third, fourth = (traffic.ask(arm, unit, ["good"]) for unit, arm in asked)
    traffic.say(fourth, "challenger", rating=0.25)
    traffic.say(third, "champion", label="good")  # u by the later request, which was said first
    traffic.say(first, "champion", correct=False)
    traffic.say(second, "challenger", label="bad")
    found = look(workspace, experiment)
    assert found.comparison == compare_live(PLAN, [True, False, True], [0.25, 1.0, 0.0])
    assert found.left_out == {"again": 1}


def test_what_was_said_last_by_the_same_source_counts(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    request = traffic.ask("champion", "u", ["good"])
    traffic.say(request, "champion", by="me", correct=True)
    traffic.say(request, "champion", by="me", correct=False)
    comparison = look(workspace, experiment).comparison
    assert comparison == compare_live(PLAN, [False], [0.0])


def test_what_belongs_to_no_arm_of_it_is_left_out(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    traffic.say(traffic.ask("champion", "u", ["good"]), "champion", correct=True, experiment="another")
    traffic.say(traffic.ask("champion", "v", ["good"]), None, correct=True)
    traffic.say("gone", "champion", correct=True)
    traffic.say(traffic.ask("challenger", "w", ["good"]), "challenger", index=3, label="good")
    assert look(workspace, experiment) == Standing(None, {"unknown": 3})


def test_what_was_asked_for_by_doubt_is_left_out(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    for number, why in enumerate(["margin", {"by": "entropy", "value": 0.6}, {"by": "core-set", "value": 2.0}]):
        request = traffic.ask("champion", f"u{number}", ["good"])
        traffic.question(request, why)
        traffic.say(request, "champion", "labeller", label="good")
    doubted = traffic.ask("challenger", "v", ["good"])
    traffic.question(doubted, {"by": "margin", "value": 0.1})
    traffic.say(doubted, "challenger", correct=False)  # of its own accord
    found = look(workspace, experiment)
    assert found.comparison == compare_live(PLAN, [False, True], [1.0, 0.0])
    assert found.left_out == {"unsure": 2}
    assert "left out: 2 labelled because the model was unsure" in told_of(experiment, found)


def test_in_the_shadow_both_answers_are_held_against_the_label(workspace: Workspace) -> None:
    experiment, traffic = started(workspace, mode="shadow")
    cases = [("good", "good", "good"), ("bad", "good", "good"), ("good", "bad", "good"), ("bad", "bad", "good")]
    for champion, challenger, label in cases:
        request = traffic.ask("champion", "the same user", [champion])
        traffic.shadow(request, [challenger])
        traffic.say(request, "champion", "import", label=label)
    plan = PLAN.model_copy(update={"mode": "shadow"})
    found = look(workspace, experiment)
    assert found.comparison == compare_shadow(plan, [1, 0, 1, 0], [1, 1, 0, 0])
    assert found.left_out == {}
    assert "4 of at most 400 labelled inputs" in told_of(experiment, found)


def test_in_the_shadow_users_do_not_judge(workspace: Workspace) -> None:
    """They saw one answer of the two, and say more where it was wrong."""
    experiment, traffic = started(workspace, mode="shadow")
    wrong, failed, lost, verdict, other = (traffic.ask("champion", "u", ["bad", "good"]) for _ in range(5))
    traffic.shadow(wrong, ["good", "good"])
    traffic.say(wrong, "champion", "user", label="good")
    traffic.shadow(failed, None, code="failed")
    traffic.say(failed, "champion", "labeller", index=1, label="good")
    traffic.say(failed, "champion", "labeller", index=1, by="another", label="bad")
    traffic.say(lost, "champion", "labeller", label="good")
    traffic.shadow(verdict, ["good", "good"])
    traffic.say(verdict, "champion", "labeller", correct=False)
    traffic.shadow(other, ["good", "good"], experiment="another")
    traffic.say(other, "champion", "labeller", label="good")
    found = look(workspace, experiment)
    plan = PLAN.model_copy(update={"mode": "shadow"})
    assert found.comparison == compare_shadow(plan, [1], [0])
    assert found.left_out == {"seen": 1, "again": 1, "unknown": 3}


def test_users_who_report_mistakes_make_no_winner_of_a_model_with_other_mistakes(workspace: Workspace) -> None:
    """Two models that are right equally often: each wrong on its own half of the hard requests."""
    experiment, traffic = started(workspace, mode="shadow", budget=2000)
    for number in range(300):
        champion, challenger = ("bad", "good") if number % 2 else ("good", "bad")
        request = traffic.ask("champion", "u", [champion])
        traffic.shadow(request, [challenger])
        if champion == "bad":  # nobody says anything where all is well
            traffic.say(request, "champion", "user", label="good")
        traffic.say(request, "champion", "import", label="good")
    comparison = look(workspace, experiment).comparison
    assert comparison is not None
    assert (comparison.n, comparison.difference, comparison.decision) == (300, 0.0, "continue")


def test_a_decision_falls(workspace: Workspace) -> None:
    experiment, traffic = started(workspace, budget=2000)
    traffic.live(500, challenger=0.9, champion=0.5)
    found = look(workspace, experiment)
    assert found.comparison is not None
    assert found.comparison.decision == "superior"
    n, n_since = found.comparison.n, found.comparison.n_since
    assert (found.comparison.decided_at, n + n_since) == (n, 500)
    assert n < 500
    told = told_of(experiment, found)
    assert f"{n} of at most 2,000 users, challenger - champion +0." in told
    assert "margin 0.05" in told
    assert f"; {n_since} came after the decision and change nothing about it" in told


def test_arms_of_other_shares_decide_nothing(workspace: Workspace) -> None:
    experiment, traffic = started(workspace)
    for number in range(100):
        arm = "challenger" if number % 5 else "champion"
        traffic.say(traffic.ask(arm, f"u{number}", ["good"]), arm, correct=True)
    found = look(workspace, experiment)
    assert found.comparison is not None
    assert (found.comparison.decision, found.comparison.reason) == ("inconclusive", "shares")
    assert "do not have the planned shares (p = " in told_of(experiment, found)


@pytest.mark.parametrize(
    ("said", "answer", "worth"),
    [
        ({"correct": True}, None, 1.0),
        ({"correct": False}, {"label": "good"}, 0.0),
        ({"rating": 0.3}, None, 0.3),
        ({"label": "good"}, {"label": "good"}, 1.0),
        ({"label": "bad"}, {"label": "good"}, 0.0),
        ({"label": "good"}, None, None),
        ({"label": "good"}, {"translation": "good"}, None),
        ({"text": "你好"}, {"label": "good"}, None),
        ({"text": "你好"}, {}, None),
    ],
)
def test_what_an_outcome_is_worth(said: dict[str, Any], answer: dict[str, Any] | None, worth: float | None) -> None:
    assert outcome(said, answer) == worth


def test_a_translation_is_worth_its_likeness() -> None:
    pytest.importorskip("sacrebleu")
    right = {"text": "打开新的窗口"}
    same, near, far = (outcome(right, {"translation": text}) for text in ("打开新的窗口", "打开新窗口", "关闭"))
    assert same == pytest.approx(1.0)
    assert near is not None
    assert 0.3 < near < 1
    assert far == 0.0


def test_what_a_budget_can_show() -> None:
    """By the definition: the interval after a budget of outcomes that vary as is usual."""
    halves = [resolution(PLAN.model_copy(update={"budget": budget})) for budget in (100, 1000, 10_000)]
    assert halves == sorted(halves, reverse=True)
    assert halves[1] / halves[2] == pytest.approx(10**0.5, rel=0.1)
    assert resolution(PLAN.model_copy(update={"mode": "shadow"})) < resolution(PLAN)
    assert resolution(PLAN.model_copy(update={"share": 0.1})) > resolution(PLAN)


def test_a_plan_that_is_none_is_found(workspace: Workspace) -> None:
    experiment, _ = started(workspace, margin=-1)
    with pytest.raises(CorruptError, match=f"the plan of experiment {experiment.id} is none"):
        plan_of(experiment)
