from __future__ import annotations

from pathlib import Path

import pytest

from danlu.cli import console
from danlu.cli.answers import logged
from danlu.cli.curves import overlaid
from danlu.core.files import lock
from danlu.core.workspace import Workspace
from made_curves import config_of, make_model, make_run, timing


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "workspace")


def printed(text: object, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The rows of what is printed, cut where columns are."""
    console.print_text(text)
    return [
        [cell.strip() for cell in line.split("   ") if cell.strip()] for line in capsys.readouterr().out.splitlines()
    ]


def test_runs_that_made_no_model_yet_are_listed(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(workspace, "done")
    stopped, begun = make_run(workspace, "stopped"), make_run(workspace, "begun", metrics=[], timing=timing("a", 0, 0))
    with lock(begun / "lock", holder="the run"):
        answer = logged(workspace)
    rows = printed(answer.text, capsys)
    assert ["run", "state", "step", "loss", "validation", "when"] in rows
    assert [begun.name, "under way", "0 of 100", "–", "–", "2023-11-14T22:13:20Z"] in rows
    (row,) = [row for row in rows if row[:1] == [stopped.name]]
    loss, score = answer.facts["runs"][1]["loss"], answer.facts["runs"][1]["valid"]["score"]
    assert row[1:4] == ["stopped", "30 of 100", f"{loss:.4f}"]
    assert f"score {score:.4f} · accuracy" in row[4]
    assert [run["state"] for run in answer.facts["runs"]] == ["under way", "stopped"]


def test_without_such_runs_there_is_no_such_table(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(workspace, "done")
    answer = logged(workspace)
    assert answer.facts["runs"] == []
    assert not [row for row in printed(answer.text, capsys) if row[:1] == ["run"]]


def test_curves_that_are_compared(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(workspace, "a")
    make_run(workspace, "b", config=config_of("text-classification", learning_rate=3e-3))
    answer = overlaid(workspace, ["a", "b"])
    rows = printed(answer.text, capsys)
    page = Path(answer.facts["page"])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    shown = {row[0]: row for row in rows if row}
    assert shown["a@latest"][1:6] == ["finished", "100 of 100", "54,321", "50.0", "200"]
    assert shown["b"][1:6] == ["stopped", "30 of 100", "12,345", "15.0", "200"]
    assert shown["differs"] == ["differs", "a@latest", "b"]
    assert shown["train.learning_rate"] == ["train.learning_rate", "0.001", "0.003"]
    facts = {run["name"]: run for run in answer.facts["runs"]}
    assert (facts["a@latest"]["best_step"], facts["b"]["best_step"]) == (90, 20)
    assert answer.facts["differences"] == {"train.learning_rate": [0.001, 0.003]}


def test_one_alone_differs_from_nothing(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(workspace, "old", timing=[])
    rows = printed(overlaid(workspace, ["old"]).text, capsys)
    assert not [row for row in rows if row[:1] == ["differs"]]
    assert "which did not keep what each step cost" in str(rows)
