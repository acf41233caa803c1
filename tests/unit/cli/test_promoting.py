"""What ``danlu promote`` answers, and the history that ``danlu log`` shows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from danlu.cli.answers import logged
from danlu.cli.promoting import promoted
from danlu.cli.verb import Answer, Call
from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from made_trial import NAME, Traffic, made_model, proposed

LIVE = ("trial=live", "margin=0.05", "budget=1000")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def models(workspace: Workspace) -> dict[str, Artifact]:
    """A is the champion, B the challenger, which passed its test."""
    made = {label: made_model(workspace, label) for label in "ab"}
    workspace.ledger.set_alias(NAME, "champion", made["a"], reason="the first", by="li")
    workspace.ledger.set_alias(NAME, "challenger", made["b"], reason="trained", by="li")
    proposed(workspace, made["a"], made["b"])
    return made


def say(workspace: Workspace, *words: str) -> Answer:
    answer = promoted(Call(workspace, Silent()), NAME, words)
    json.dumps(answer.facts, allow_nan=False)
    return answer


def shown(answer: Answer) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(answer.text, markup=False)
    return console.file.getvalue()  # type: ignore[attr-defined]  # the one above


def test_a_whole_story(workspace: Workspace, models: dict[str, Artifact]) -> None:
    a, b = (made.digest[:12] for made in models.values())
    started = say(workspace, *LIVE, "by=li")
    trial = started.facts["experiment"]["id"]
    assert (started.exit_code, started.facts["done"], started.facts["standing"]) == (0, "started", None)
    assert f"trial {trial} of {b} against {a} runs" in shown(started)

    early = say(workspace)
    assert (early.exit_code, early.facts["done"]) == (3, "refused")
    assert early.facts["standing"] == {"left_out": {}, "decision": "continue", "n": 0}
    assert f"The gate refused: {b} does not become champion of reviews, which stays {a}." in shown(early)
    assert "what to do: wait, or end it" in shown(early)

    experiment = workspace.experiments.running(NAME)
    assert experiment is not None
    Traffic(workspace, experiment).live(500, challenger=0.9, champion=0.5)
    done = say(workspace, "by=王", "why=[bold]better")
    assert (done.exit_code, done.facts["done"], done.facts["champion"]) == (0, "promoted", models["b"].digest)
    assert done.facts["standing"]["decision"] == "superior"
    assert done.facts["standing"]["n"] == done.facts["standing"]["decided_at"] < 500
    assert done.facts["standing"]["n"] + done.facts["standing"]["n_since"] == 500
    assert {"difference", "low", "high", "ratio_p", "n_challenger"} <= done.facts["standing"].keys()
    assert f"{b} is the champion of reviews now" in shown(done)
    assert "[bold]better" in shown(done)

    again = say(workspace)
    assert (again.exit_code, again.facts["done"]) == (0, "already")
    back = say(workspace, "back=true", "why=slow\x1b[31m", "by=li")
    assert (back.exit_code, back.facts["done"], back.facts["champion"]) == (0, "rolled back", models["a"].digest)
    assert "\x1b" not in shown(back)

    history = logged(workspace)
    rows = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in shown(history).splitlines()]
    proposal = done.facts["evidence"][0][:12]
    (row,) = (row for row in rows if row[1:4] == ["reviews@champion", b, "王"])
    assert row[0].endswith("Z")
    assert row[4].startswith("proposal: passed, accuracy +0.0200")
    assert row[4].endswith("[bold]better")
    assert row[5] == f"{proposal} {trial[:12]}"
    (row,) = (row for row in rows if "rolled back" in " ".join(row))
    assert row[1:5] == ["reviews@champion", a, "li", f"rolled back from {b}: slow\ufffd[31m"]
    (row,) = (row for row in rows if row[:1] == [trial])
    assert row[1] == f"reviews {b}"
    assert row[3:5] == ["li", a]
    assert "mode live" in row[5]
    assert row[6].startswith("superior 20")
    assert row[6].endswith("by 王")
    facts = json.loads(json.dumps(history.facts))
    assert facts["ledger"][2]["evidence"] == done.facts["evidence"]
    assert [each["decision"] for each in facts["experiments"]] == ["superior"]


@pytest.mark.usefixtures("models")
def test_a_trial_that_was_stopped(workspace: Workspace) -> None:
    say(workspace, *LIVE)
    stopped = say(workspace, "stop=true", "why=holidays")
    assert stopped.exit_code == 0
    assert "is ended, undecided" in shown(stopped)
    assert "holidays" in shown(logged(workspace))


def test_entries_without_anybody(workspace: Workspace) -> None:
    """As versions wrote them that recorded neither who nor from which evidence."""
    from danlu.core.chain import Chain

    old: dict[str, Any] = {"time": "2026-01-02T03:04:05Z", "name": "reviews", "alias": "champion", "kind": "model"}
    Chain(workspace.ledger.path).append({**old, "digest": "a" * 64, "reason": "better"})
    text = shown(logged(workspace))
    assert "2026-01-02T03:04:05Z" in text
    assert "trial" not in text
