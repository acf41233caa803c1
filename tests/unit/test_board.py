"""What the page's board shows of a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import made_trial
from danlu.board import board
from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.events import EventLog
from danlu.core.workspace import Workspace
from danlu.monitoring import monitor
from made_traffic import Traffic, fresh_texts, other_texts
from small import Listener

KEYS = {
    *("model", "name", "digest", "now", "bucket", "traffic", "latency", "errors", "drift", "windows", "confidence"),
    *("labels", "estimated_accuracy", "alerts", "experiment", "history", "feedback"),
}


def made(workspace: Workspace, key: str) -> Artifact:
    with workspace.create("model", "reviews", key=key, config={"key": key}, parents={}) as draft:
        pass
    return draft.artifact


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    found.ledger.set_alias("reviews", "champion", made(found, "1"), reason="the first", by="ana", evidence=("e" * 64,))
    return found


def test_nothing_was_asked(workspace: Workspace) -> None:
    found = board(workspace, "reviews")
    assert found.keys() == KEYS
    assert (found["traffic"], found["drift"], found["windows"], found["alerts"]) == ([], [], 0, [])
    assert found["latency"] == {"p50": None, "p95": None, "p99": None}
    assert (found["errors"], found["confidence"], found["labels"]) == (0, [0] * 10, {})
    assert found["experiment"] is None
    assert found["estimated_accuracy"] is None
    assert found["feedback"] == {"n": 0, "right": 0, "wrong": 0, "corrected": 0}
    (entry,) = found["history"]
    assert (entry["alias"], entry["reason"], entry["by"], entry["evidence"]) == (
        "champion",
        "the first",
        "ana",
        ["e" * 64],
    )
    with pytest.raises(UsageError, match="no model is named"):
        board(workspace, "nobody")


def test_a_model_that_the_ledger_does_not_know_has_traffic_and_no_history(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    log = EventLog(workspace.events, "serve")
    log.write("request", **request("d" * 64, "good", name="reviews"))
    found = board(workspace, "reviews", "d" * 64)
    assert found.keys() == KEYS
    assert (sum(bucket["n"] for bucket in found["traffic"]), found["labels"]) == (1, {"good": 1})
    assert (found["history"], found["experiment"]) == ([], None)


def request(digest: str, label: str, **changes: Any) -> dict[str, Any]:
    answer = {"label": label, "probability": 0.95 if label == "good" else 0.55}
    told = {"name": "reviews", "digest": digest, "route": "/predict", "status": 200, "seconds": 0.1}
    return {**told, "answers": [answer], "inputs": ["a"], **changes}


def test_what_was_asked_is_counted(workspace: Workspace) -> None:
    digest, log = workspace.ledger.resolve("reviews", "champion"), EventLog(workspace.events, "test")
    for n in range(12):
        log.write("request", id=f"r{n}", **request(digest, "good" if n % 3 else "bad"))
    log.write("request", id="x", **request(digest, "bad", status=503, answers=None, seconds=2.0))
    log.write("request", id="y", **request("f" * 64, "ugly"))
    log.write("request", id="z", **{**request(digest, "ugly"), "name": "other"})
    source = {"kind": "user", "id": "u"}
    for n, said in enumerate(({"correct": True}, {"label": "bad"}, {"correct": False})):
        told = {"id": f"f{n}", "name": "reviews", "request": f"r{n}", "index": 0, "digest": digest, "source": source}
        log.write("feedback", **told, **said)
    found = board(workspace, "reviews")
    assert sum(bucket["n"] for bucket in found["traffic"]) == 14
    assert found["errors"] == sum(bucket["n_failed"] for bucket in found["traffic"]) == 1
    assert (found["latency"]["p50"], found["latency"]["p99"]) == (pytest.approx(0.1), pytest.approx(1.753))
    assert found["labels"] == {"good": 8, "bad": 4}
    assert found["confidence"] == [0, 0, 0, 0, 0, 4, 0, 0, 0, 8]
    assert found["feedback"] == {"n": 3, "right": 1, "wrong": 2, "corrected": 1}
    assert found["bucket"] == 60.0


def test_a_trial_under_way_is_told(workspace: Workspace) -> None:
    champion, challenger = workspace.ledger.resolve("reviews", "champion"), made(workspace, "2").digest
    plan = {"margin": 0.05, "budget": 100, "level": 0.05, "mode": "live", "share": 0.5}
    workspace.experiments.start("reviews", champion, challenger, plan, "ana", "is it better?")
    found = board(workspace, "reviews")["experiment"]
    assert {**found, **plan} == found
    assert (found["decision"], found["n"], found["low"], found["by"]) == ("continue", 0, None, "ana")
    assert (found["n_since"], found["decided_at"]) == (0, None)


def test_a_trial_that_is_decided_stays_as_it_was_then(workspace: Workspace) -> None:
    champion, challenger = workspace.ledger.resolve("reviews", "champion"), made(workspace, "2").digest
    plan = {"margin": 0.05, "budget": 1000, "level": 0.05, "mode": "live", "share": 0.5}
    trial = workspace.experiments.start("reviews", champion, challenger, plan, "ana", "is it better?")
    made_trial.Traffic(workspace, trial).live(300, challenger=0.9, champion=0.5)
    found = board(workspace, "reviews")["experiment"]
    assert found["decision"] == "superior"
    assert found["n"] == found["decided_at"] == 300 - found["n_since"] < 300
    assert found["low"] > 0
    assert found["low"] < 0.02, "it is the interval of that moment, which just left 0"


def test_drift_is_told_as_the_watch_left_it(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    traffic.now = time.time() - 600
    traffic.ask([*fresh_texts(100, 1), *other_texts(240, 2)])
    assert board(traffic.workspace, "tiny")["drift"] == []
    watched = monitor(traffic.workspace, "tiny", [], Listener()).facts
    found = board(traffic.workspace, "tiny")
    assert found["windows"] == watched["series"]["content"]["n_windows"] == 17
    signals = {signal["signal"]: signal for signal in watched["series"]["content"]["signals"]}
    for each in found["drift"]:
        signal = signals[each["signal"]]
        assert each["effect"] == signal["effects"][-1]
        assert each["p_adjusted"] == pytest.approx(signal["p_adjusted"])
        assert each["alarm"] == (signal["alarm_at"] is not None)
    alarmed = {each["signal"] for each in found["drift"] if each["alarm"]}
    assert {alert["signal"] for alert in found["alerts"]} == alarmed
    assert alarmed
    value, low, high = watched["accuracy"]["series"][-1]
    assert found["estimated_accuracy"] == {"value": value, "low": low, "high": high}
