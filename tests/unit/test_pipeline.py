"""What a run makes of its gate's decision: an alias is moved, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from danlu.core.artifact import Artifact
from danlu.core.errors import RefusedError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.pipeline import Gate, Job
from danlu.recipe import Loaded
from made_trial import NAME, compared, made_model


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Run:
    """A job that has come to its last step."""

    def __init__(self, folder: Path) -> None:
        self.workspace, self.heard = Workspace(folder), Heard()
        loaded = cast("Loaded", SimpleNamespace(recipe=SimpleNamespace(name=NAME)))
        self.job = Job(loaded, self.workspace, self.heard)
        self.simple, self.a, self.b = (made_model(self.workspace, label) for label in ("simple", "a", "b"))

    def end(self, model: Artifact, passed: bool, before: Artifact | None) -> str:
        verdict = "better" if passed else "no difference"
        facts: dict[str, Any] = {"difference": 0.03, "low": 0.01, "high": 0.05, "p": 0.004, "alpha": 0.05}
        gate = Gate(passed=passed, verdict=verdict, metric="macro_f1", baseline="tfidf-lr", **facts)
        comparison = compared(self.workspace, self.simple, model, verdict)
        return self.job._promote(model, gate, comparison, before and before.digest)

    @property
    def champions(self) -> list[str]:
        return [entry.digest for entry in self.workspace.ledger.history(NAME) if entry.alias == "champion"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_gate_passes(run: Run) -> None:
    assert run.end(run.a, True, None) == "champion"
    assert run.end(run.a, True, run.a) == "champion"
    *_, challenger, champion = run.workspace.ledger.history(NAME)
    assert [(each.alias, each.digest) for each in (challenger, champion)] == [
        ("challenger", run.a.digest),
        ("champion", run.a.digest),
    ]
    (comparison,) = run.workspace.all("comparison")
    assert champion.evidence == challenger.evidence == (comparison.digest,)
    assert champion.reason == "macro_f1 +0.0300 against tfidf-lr, p = 0.004"
    assert champion.by
    assert len(run.workspace.ledger.entries()) == 2


def test_the_gate_refuses(run: Run) -> None:
    assert run.end(run.a, False, None) == "challenger"
    assert run.champions == []


def test_somebody_promoted_another_while_it_ran(run: Run) -> None:
    run.workspace.ledger.set_alias(NAME, "champion", run.b, reason="the faster one", by="zhao")
    with pytest.raises(RefusedError, match=r"no longer means nothing.* by zhao: the faster one"):
        run.end(run.a, True, None)
    assert run.champions == [run.b.digest]
    assert run.workspace.ledger.resolve(NAME, "challenger") == run.a.digest


def test_what_was_champion_before_does_not_come_back_by_running_again(run: Run) -> None:
    run.end(run.a, True, None)
    run.end(run.b, True, run.a)
    assert run.end(run.a, True, run.b) == "challenger"
    assert run.champions == [run.a.digest, run.b.digest]
    (note,) = run.heard.notes
    assert f"danlu promote {NAME} back=true to={run.a.digest[:12]}" in note


def test_a_trial_keeps_its_champion(run: Run) -> None:
    run.end(run.a, True, None)
    c = made_model(run.workspace, "c")
    trial = run.workspace.experiments.start(NAME, run.a.digest, c.digest, {"mode": "live", "share": 0.5})
    assert run.end(run.b, True, run.a) == "challenger"
    assert trial.id in run.heard.notes[0]
    run.workspace.experiments.end(trial.id, "stopped", {})
    assert run.end(run.b, True, run.a) == "champion"
