"""Promotion: what the gate asks for, what is recorded, how one goes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, RefusedError, UsageError
from danlu.core.experiments import Experiment
from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.improve.compare import Comparison
from danlu.improve.trial import standing
from danlu.promoting import Promotion, promote
from made_trial import NAME, Traffic, compared, made_model, proposed

LIVE = ("trial=live", "margin=0.05", "budget=1000")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def models(workspace: Workspace) -> dict[str, Artifact]:
    """A is the champion, B the challenger; nothing speaks for B yet."""
    made = {label: made_model(workspace, label) for label in "abc"}
    workspace.ledger.set_alias(NAME, "champion", made["a"], reason="the first", by="li")
    workspace.ledger.set_alias(NAME, "challenger", made["b"], reason="trained", by="li")
    return made


def do(workspace: Workspace, *words: str) -> Promotion:
    return promote(workspace, NAME, words)


def refused(workspace: Workspace, *words: str) -> Promotion:
    """The gate says no, and nothing is changed."""
    before = workspace.ledger.path.read_bytes()
    found = do(workspace, *words)
    assert found.done == "refused"
    assert workspace.ledger.path.read_bytes() == before
    return found


def champion(workspace: Workspace) -> str | None:
    return Workspace(workspace.root).ledger.current(NAME, "champion")


def running(workspace: Workspace) -> Experiment:
    found = workspace.experiments.running(NAME)
    assert found is not None
    return found


def known(workspace: Workspace) -> Comparison | None:
    """Where the running trial stands."""
    with Index.open(workspace) as index:
        index.refresh()
        return standing(index, running(workspace)).comparison


# the test on held-out data


@pytest.mark.usefixtures("models")
def test_without_a_test_nothing_is_promoted(workspace: Workspace) -> None:
    found = refused(workspace)
    assert found.reason == "no test on held-out data speaks for it"
    assert f"danlu compare {NAME}@champion {NAME}@challenger" in found.advice


def test_a_proposal_that_passed_promotes(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposal = proposed(workspace, models["a"], models["b"])
    found = do(workspace, "by=王", "why=new data: the second half")
    assert (found.done, found.champion) == ("promoted", models["b"].digest)
    entry = workspace.ledger.history(NAME)[-1]
    assert (entry.alias, entry.digest, entry.by) == ("champion", models["b"].digest, "王")
    assert entry.evidence == (proposal.digest,)
    assert entry.reason == ("proposal: passed, accuracy +0.0200 (-0.0100 to +0.0500); new data: the second half")
    assert champion(workspace) == models["b"].digest


def test_a_proposal_that_failed_refuses_whatever_else_there_is(
    workspace: Workspace, models: dict[str, Artifact]
) -> None:
    compared(workspace, models["a"], models["b"])
    proposal = proposed(workspace, models["a"], models["b"], passed=False)
    found = refused(workspace)
    assert "did not pass its test: proposal: not passed" in found.reason
    assert found.evidence == (proposal.digest,)


def test_a_proposal_beside_another_champion_says_nothing(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposed(workspace, models["c"], models["b"])
    proposed(workspace, models["a"], models["c"])
    assert "no test" in refused(workspace).reason


@pytest.mark.parametrize(
    ("verdict", "done"), [("better", "promoted"), ("no difference", "refused"), ("worse", "refused")]
)
def test_a_comparison_with_the_champion(
    workspace: Workspace, models: dict[str, Artifact], verdict: str, done: str
) -> None:
    comparison = compared(workspace, models["a"], models["b"], verdict)
    found = do(workspace)
    assert (found.done, found.evidence) == (done, (comparison.digest,))
    assert f"macro_f1 +0.0300 (+0.0100 to +0.0500) against old: {verdict}" in found.reason


def test_a_comparison_the_other_way_round_says_nothing(workspace: Workspace, models: dict[str, Artifact]) -> None:
    compared(workspace, models["b"], models["a"])
    assert "no test" in refused(workspace).reason


def test_a_baseline_is_enough_for_the_first_champion_only(workspace: Workspace) -> None:
    simple, first, second = (made_model(workspace, label) for label in ("simple", "first", "second"))
    workspace.ledger.set_alias(NAME, "challenger", first, reason="trained")
    compared(workspace, simple, first)
    assert do(workspace).done == "promoted"
    workspace.ledger.set_alias(NAME, "challenger", second, reason="trained")
    comparison = compared(workspace, simple, second)
    found = refused(workspace)
    assert "nothing compares it with the champion" in found.reason
    do(workspace, *LIVE, "why=against the champion")
    trial = running(workspace)
    Traffic(workspace, trial).live(500, challenger=0.9, champion=0.5)
    done = do(workspace)
    assert (done.done, done.evidence) == ("promoted", (comparison.digest, trial.id))


def test_what_was_changed_is_no_evidence(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposal = proposed(workspace, models["a"], models["b"])
    path = proposal.path / "proposal.json"
    path.write_text(path.read_text().replace("0.05", "0.95"))
    with pytest.raises(CorruptError, match=r"proposal\.json was changed"):
        do(workspace)
    assert champion(workspace) == models["a"].digest


def test_who_is_champion_already_stays(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposed(workspace, models["a"], models["b"])
    do(workspace, "by=li")
    before = workspace.ledger.path.read_bytes()
    again = do(workspace)
    assert again.done == "already"
    assert "by li: proposal: passed" in again.reason
    assert workspace.ledger.path.read_bytes() == before


def test_another_by_its_digest(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposed(workspace, models["a"], models["c"])
    do(workspace, f"to={models['c'].digest[:8]}")
    assert champion(workspace) == models["c"].digest
    for word, message in ((f"to={models['b'].digest[:5]}", "too short"), ("to=zzzzzzzz", "0 models' digests")):
        with pytest.raises(UsageError, match=message):
            do(workspace, word)


# the trial


def test_a_trial_is_registered_before_it_begins(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposal = proposed(workspace, models["a"], models["b"])
    found = do(workspace, *LIVE, "share=0.2", "level=0.1", "by=li", "why=weekend: traffic")
    trial = running(workspace)
    assert (found.done, found.experiment, found.evidence) == ("started", trial, (proposal.digest,))
    assert (trial.champion, trial.challenger) == (models["a"].digest, models["b"].digest)
    assert trial.plan == {"margin": 0.05, "budget": 1000, "level": 0.1, "mode": "live", "share": 0.2}
    assert (trial.by, trial.why) == ("li", "weekend: traffic")
    assert "a difference of about 0.1" in found.reason
    assert "equivalent within 0.05 is not" in found.reason
    with pytest.raises(RefusedError, match=f"runs already: {trial.id}"):
        do(workspace, *LIVE)
    assert known(workspace) is None


def test_users_are_answered_by_a_model_that_passed_its_test(workspace: Workspace, models: dict[str, Artifact]) -> None:
    found = refused(workspace, *LIVE)
    assert "trial=shadow" in found.advice
    proposed(workspace, models["a"], models["b"], passed=False)
    assert "did not pass" in refused(workspace, *LIVE).reason
    assert workspace.experiments.all() == []
    assert do(workspace, "trial=shadow", *LIVE[1:]).done == "started"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task": "translation", "classes": []}, "task is text-classification, the challenger's translation"),
        ({"classes": ["good", "bad", "so"]}, r"classes is \['bad', 'good'\], the challenger's \['bad', 'good', 'so'\]"),
        ({"image_size": [1, 2, 2]}, r"image_size is None, the challenger's \[1, 2, 2\]"),
    ],
)
@pytest.mark.usefixtures("models")
def test_models_that_answer_otherwise_are_not_tried(workspace: Workspace, other: dict[str, Any], message: str) -> None:
    workspace.ledger.set_alias(NAME, "challenger", made_model(workspace, "d", **other), reason="x")
    with pytest.raises(UsageError, match=message):
        do(workspace, "trial=shadow", *LIVE[1:])
    assert workspace.experiments.all() == []


@pytest.mark.usefixtures("models")
def test_classes_in_another_order_are_the_same(workspace: Workspace) -> None:
    workspace.ledger.set_alias(NAME, "challenger", made_model(workspace, "d", classes=["good", "bad"]), reason="x")
    assert do(workspace, "trial=shadow", *LIVE[1:]).done == "started"


def tried(
    workspace: Workspace, models: dict[str, Artifact], n: int, challenger: float, champion: float, *words: str
) -> Experiment:
    """A live trial with some traffic."""
    proposed(workspace, models["a"], models["b"])
    do(workspace, *(words or LIVE))
    trial = running(workspace)
    Traffic(workspace, trial).live(n, challenger, champion)
    return trial


def decided(found: Promotion, decision: str) -> int:
    """After how many users it was; which depends on how chance has dealt them."""
    assert found.standing is not None
    assert found.standing.comparison is not None
    n = found.standing.comparison.decided_at
    assert n is not None
    assert f": {decision}, {n} of" in found.reason
    return n


def test_a_superior_challenger_is_promoted_and_the_trial_ends(
    workspace: Workspace, models: dict[str, Artifact]
) -> None:
    trial = tried(workspace, models, 500, 0.9, 0.5)
    now = known(workspace)
    assert now is not None
    assert (now.decision, now.n + now.n_since) == ("superior", 500)
    found = do(workspace, "by=li")
    assert found.done == "promoted"
    assert found.evidence[1:] == (trial.id,)
    (ended,) = workspace.experiments.all(NAME)
    assert (ended.decision, ended.ended_by) == ("superior", "li")
    facts = ended.facts
    assert (facts["n"], facts["decided_at"], facts["difference"]) == (now.n, now.decided_at, now.difference)
    assert (facts["low"], facts["high"], facts["ratio_p"]) == (*now.interval, now.ratio_p)
    entry = workspace.ledger.history(NAME)[-1]
    assert entry.evidence == found.evidence
    assert f"live trial {trial.id}: superior, {now.n} of at most 1,000 users, challenger - champion +0." in entry.reason
    assert f"; {now.n_since} came after the decision" in entry.reason
    assert workspace.experiments.running(NAME) is None


def test_a_trial_that_goes_on_refuses(workspace: Workspace, models: dict[str, Artifact]) -> None:
    trial = tried(workspace, models, 20, 0.9, 0.8)
    found = refused(workspace)
    assert f"live trial {trial.id}: continues, 20 of at most 1,000 users" in found.reason
    assert "stop=true" in found.advice
    assert running(workspace) == trial
    refused(workspace, "allow=equivalent")


def test_a_trial_without_traffic_refuses(workspace: Workspace, models: dict[str, Artifact]) -> None:
    tried(workspace, models, 0, 0.9, 0.8)
    assert "continues, no outcome yet of at most 1,000 users" in refused(workspace).reason


def test_an_inferior_challenger_ends_its_trial_and_stays_out(workspace: Workspace, models: dict[str, Artifact]) -> None:
    tried(workspace, models, 500, 0.5, 0.9)
    assert decided(refused(workspace), "inferior") < 500
    assert workspace.experiments.running(NAME) is None
    (ended,) = workspace.experiments.all(NAME)
    assert f": inferior, {ended.facts['n']} of" in refused(workspace).reason
    assert champion(workspace) == models["a"].digest


def test_a_spent_budget_decides_nothing(workspace: Workspace, models: dict[str, Artifact]) -> None:
    tried(workspace, models, 60, 0.8, 0.8, "trial=live", "margin=0.01", "budget=50")
    found = refused(workspace)
    assert ": inconclusive, 50 of at most 50 users" in found.reason
    assert "trial=live" in found.advice
    assert workspace.experiments.all(NAME)[0].facts["reason"] == "budget"


def test_an_equivalent_challenger_passes_where_that_is_asked_for(
    workspace: Workspace, models: dict[str, Artifact]
) -> None:
    tried(workspace, models, 300, 0.8, 0.8, "trial=live", "margin=0.5", "budget=1000")
    found = refused(workspace)
    n = decided(found, "equivalent")
    assert f"; {300 - n} came after the decision and change nothing about it" in found.reason
    assert "allow=equivalent" in found.advice
    done = do(workspace, "allow=equivalent")
    assert done.done == "promoted"
    assert f": equivalent, {n} of" in workspace.ledger.history(NAME)[-1].reason


def test_broken_shares_decide_nothing(workspace: Workspace, models: dict[str, Artifact]) -> None:
    proposed(workspace, models["a"], models["b"])
    do(workspace, *LIVE)
    traffic = Traffic(workspace, running(workspace))
    for number in range(200):
        arm = "champion" if number % 6 == 0 else "challenger"
        traffic.say(traffic.ask(arm, f"u{number}", ["good"]), arm, correct=arm == "challenger")
    assert "do not have the planned shares" in refused(workspace).reason


def test_a_trial_that_is_won_does_not_make_up_for_a_lost_test(
    workspace: Workspace, models: dict[str, Artifact]
) -> None:
    tried(workspace, models, 500, 0.9, 0.5)
    proposed(workspace, models["a"], models["b"], passed=False)
    passed = next(each for each in workspace.all("proposal") if each.json("proposal.json")["passed"])
    shutil.rmtree(passed.path)
    assert "did not pass its test" in refused(workspace).reason
    assert workspace.experiments.all(NAME)[0].decision == "superior"


def test_a_stopped_trial_is_no_way_around_it(workspace: Workspace, models: dict[str, Artifact]) -> None:
    trial = tried(workspace, models, 60, 0.5, 0.8)
    found = do(workspace, "stop=true", "why=Monday", "by=li")
    assert (found.done, found.evidence) == ("stopped", (trial.id,))
    (ended,) = workspace.experiments.all(NAME)
    assert (ended.decision, ended.ended_why, ended.ended_by, ended.facts["n"]) == ("stopped", "Monday", "li", 60)
    assert ": stopped, 60 of" in refused(workspace).reason
    with pytest.raises(UsageError, match="no trial of reviews runs"):
        do(workspace, "stop=true")
    do(workspace, *LIVE)
    assert running(workspace).id != trial.id


def test_a_challenger_that_another_trial_is_not_about(workspace: Workspace, models: dict[str, Artifact]) -> None:
    trial = tried(workspace, models, 20, 0.9, 0.5)
    workspace.ledger.set_alias(NAME, "challenger", models["c"], reason="trained")
    proposed(workspace, models["a"], models["c"])
    found = refused(workspace)
    assert f"a trial of another model runs: {trial.id}" in found.reason
    assert f"to={models['b'].digest[:12]}" in found.advice
    assert "continues" in refused(workspace, f"to={models['b'].digest[:12]}").reason


def test_a_trial_of_a_champion_that_was_replaced_is_ended(workspace: Workspace, models: dict[str, Artifact]) -> None:
    trial = tried(workspace, models, 20, 0.9, 0.5)
    workspace.ledger.set_alias(NAME, "champion", models["c"], reason="by hand")
    now = refused(workspace)
    assert f"its test is against {models['a'].digest[:12]}, and {models['c'].digest[:12]} is champion" in now.reason
    assert now.reason.endswith(": by hand")
    (ended,) = workspace.experiments.all(NAME)
    assert (ended.id, ended.decision, ended.ended_why) == (trial.id, "stopped", "its champion was replaced")
    assert ended.facts["n"] == 20


# the way back


def crowned(workspace: Workspace, *made: Artifact) -> None:
    for each in made:
        workspace.ledger.set_alias(NAME, "champion", each, reason="made up", by="li")


def test_one_goes_back_and_never_in_circles(workspace: Workspace, models: dict[str, Artifact]) -> None:
    a, b, c = models.values()
    crowned(workspace, b, c)
    found = do(workspace, "back=true", "by=王", "why=too slow: p99 of 2 s")
    assert (found.done, found.champion) == ("rolled back", b.digest)
    entry = workspace.ledger.history(NAME)[-1]
    assert (entry.digest, entry.by) == (b.digest, "王")
    assert entry.reason == f"rolled back from {c.digest[:12]}: too slow: p99 of 2 s"
    assert do(workspace, "back=true").champion == a.digest
    with pytest.raises(RefusedError, match="no champion of reviews came before") as caught:
        do(workspace, "back=true")
    assert f"to=... ({b.digest[:12]}, {c.digest[:12]})" in str(caught.value)
    assert champion(workspace) == a.digest
    assert do(workspace, "back=true", f"to={c.digest[:12]}").champion == c.digest
    assert do(workspace, "back=true").champion == b.digest


def test_there_is_no_way_back_from_the_first(workspace: Workspace, models: dict[str, Artifact]) -> None:
    with pytest.raises(RefusedError, match="it is the first"):
        do(workspace, "back=true")
    with pytest.raises(UsageError, match="was never champion"):
        do(workspace, "back=true", f"to={models['b'].digest}")
    with pytest.raises(UsageError, match="is the champion already"):
        do(workspace, "back=true", f"to={models['a'].digest}")


def test_what_was_rolled_back_does_not_come_back_by_itself(workspace: Workspace, models: dict[str, Artifact]) -> None:
    tried(workspace, models, 500, 0.9, 0.5)
    do(workspace)
    do(workspace, "back=true", "by=li", "why=complaints")
    compared(workspace, models["a"], models["b"])
    found = refused(workspace)
    assert "it was champion until" in found.reason
    assert "li: rolled back from" in found.reason
    assert f"back=true to={models['b'].digest[:12]}" in found.advice


def test_the_way_back_ends_a_trial(workspace: Workspace, models: dict[str, Artifact]) -> None:
    crowned(workspace, models["c"])
    proposed(workspace, models["c"], models["b"])
    do(workspace, *LIVE)
    do(workspace, "back=true")
    (ended,) = workspace.experiments.all(NAME)
    assert (ended.decision, ended.ended_why) == ("stopped", f"rolled back to {models['a'].digest[:12]}")


def test_a_broken_index_keeps_nobody_from_going_back(
    workspace: Workspace, models: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowned(workspace, models["c"])
    proposed(workspace, models["c"], models["b"])
    do(workspace, *LIVE)
    named = workspace.root / "named.sqlite"  # one that somebody named is not thrown away
    named.write_bytes(b"no database" * 1000)
    monkeypatch.setenv("DANLU_INDEX", f"sqlite:///{named}")
    with pytest.raises(CorruptError):
        do(workspace)
    assert do(workspace, "back=true").done == "rolled back"
    (ended,) = workspace.experiments.all(NAME)
    assert "where it stood could not be read" in ended.ended_why


def test_a_former_champion_that_is_gone_is_told(workspace: Workspace, models: dict[str, Artifact]) -> None:
    crowned(workspace, models["c"])
    (models["a"].path / "model.json").write_text("{}")
    with pytest.raises(CorruptError, match=r"model\.json was changed"):
        do(workspace, "back=true")
    assert champion(workspace) == models["c"].digest


# somebody else was faster


def test_the_alias_moves_only_from_what_it_was_decided_against(
    workspace: Workspace, models: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    proposed(workspace, models["a"], models["b"])
    real = Workspace.with_digest

    def meanwhile(self: Workspace, digest: str) -> Artifact:
        monkeypatch.setattr(Workspace, "with_digest", real)
        self.ledger.set_alias(NAME, "champion", models["c"], reason="the faster one", by="zhao")
        return real(self, digest)

    monkeypatch.setattr(Workspace, "with_digest", meanwhile)
    with pytest.raises(RefusedError, match=r"no longer means .* by zhao: the faster one") as caught:
        do(workspace)
    assert caught.value.exit_code == 3
    assert champion(workspace) == models["c"].digest


# wrong use


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["margin=0.1"], "margin means nothing without trial, stop or back"),
        (["stop=true", "back=true"], "stop and back do not go together"),
        (["stop=true", "to=abcdef"], "to means nothing beside stop=true"),
        (["back=true", "allow=equivalent"], "allow means nothing beside back=true"),
        (["trial=shadow", "share=0.5", "margin=0.1", "budget=9"], "there is no share"),
        (["trial=live", "margin=0.1"], "a trial has a margin and a budget"),
        (["trial=live", "margin=2", "budget=9"], "margin: .*less than 1"),
        (["trial=live", "margin=0.1", "budget=9", "share=1"], "share: .*less than 1"),
        (["trial=both"], "trial: "),
        (["alow=equivalent"], "unknown key 'alow'"),
        (["champion"], "not understood"),
        (["why=\udce4"], "not UTF-8"),
    ],
)
def test_wrong_words_change_nothing(
    workspace: Workspace, models: dict[str, Artifact], words: list[str], message: str
) -> None:
    proposed(workspace, models["a"], models["b"])
    before = workspace.ledger.path.read_bytes()
    with pytest.raises(UsageError, match=message):
        do(workspace, *words)
    assert workspace.ledger.path.read_bytes() == before
    assert workspace.experiments.all() == []


def test_names_that_are_none(workspace: Workspace, models: dict[str, Artifact]) -> None:
    for name, words in (("revews", []), (f"{NAME}@champion", []), ("revews", ["back=true"]), ("revews", ["stop=true"])):
        with pytest.raises(UsageError, match="no model is named") as caught:
            promote(workspace, name, words)
        assert "did you mean 'reviews'?" in str(caught.value)
    workspace.ledger.set_alias("poems", "challenger", models["a"], reason="x")
    with pytest.raises(UsageError, match="has no champion to be compared with"):
        promote(workspace, "poems", LIVE)


def test_a_champion_is_not_tried_against_itself(workspace: Workspace, models: dict[str, Artifact]) -> None:
    with pytest.raises(UsageError, match="is the champion already"):
        do(workspace, *LIVE, f"to={models['a'].digest}")
