"""Experiments: registered before the first request, one at a time, ended once."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from danlu.core import chain
from danlu.core.errors import CorruptError, RefusedError, UsageError
from danlu.core.experiments import Experiments, arm_of

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
PLAN = {"margin": 0.02, "budget": 2000, "level": 0.05, "mode": "live", "share": 0.5}


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    return Experiments(tmp_path / "refs" / "experiments.jsonl")


def test_nothing_has_been_tried(experiments: Experiments, tmp_path: Path) -> None:
    assert experiments.all() == []
    assert experiments.running("reviews") is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_registered_is_what_is_read(experiments: Experiments) -> None:
    made = experiments.start("reviews", A, B, PLAN, by="li", why="new data")
    (line,) = experiments.path.read_text().splitlines()
    stored = json.loads(line)
    assert stored["event"] == "started"
    assert stored["hash"].startswith(made.id)
    assert len(made.id) == 16
    assert (made.name, made.champion, made.challenger, made.plan) == ("reviews", A, B, PLAN)
    assert (made.by, made.why, made.ended, made.decision) == ("li", "new data", None, "")
    assert experiments.running("reviews") == made
    assert Experiments(experiments.path).all("reviews") == [made]
    assert experiments.running("digits") is None
    assert experiments.all("digits") == []


def test_it_ends_once_and_another_may_start(experiments: Experiments) -> None:
    first = experiments.start("reviews", A, B, PLAN, by="li")
    ended = experiments.end(first.id, "superior", {"n": 800, "difference": 0.03}, by="wang", why="decided")
    assert (ended.decision, ended.facts["n"], ended.ended_by, ended.ended_why) == ("superior", 800, "wang", "decided")
    assert ended.ended
    assert experiments.running("reviews") is None
    before = experiments.path.read_bytes()
    assert experiments.end(first.id, "superior", {"n": 801}, by="zhao") == ended
    with pytest.raises(RefusedError, match=r"ended .*: superior, by wang") as caught:
        experiments.end(first.id, "stopped", {})
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="no experiment 'x'"):
        experiments.end("x", "stopped", {})
    assert experiments.path.read_bytes() == before
    second = experiments.start("reviews", A, B, PLAN, by="li")
    assert second.id != first.id
    assert experiments.running("reviews") == second
    assert experiments.all("reviews") == [ended, second]


def test_one_at_a_time_of_a_name(experiments: Experiments) -> None:
    first = experiments.start("reviews", A, B, PLAN, by="li")
    other = experiments.start("digits", A, B, PLAN)
    before = experiments.path.read_bytes()
    with pytest.raises(RefusedError, match=rf"runs already: {first.id}, .* by li"):
        experiments.start("reviews", A, C, PLAN)
    assert experiments.path.read_bytes() == before
    assert experiments.running("digits") == other
    assert [each.name for each in experiments.all()] == ["reviews", "digits"]


@pytest.mark.parametrize(
    "plan", [{}, PLAN | {"mode": "both"}, PLAN | {"share": 0.0}, PLAN | {"share": float("nan")}, {"mode": "live"}]
)
def test_a_plan_by_which_nobody_can_be_dealt_out_is_refused(experiments: Experiments, plan: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="a plan needs"):
        experiments.start("reviews", A, B, plan)
    with pytest.raises(UsageError, match="one model"):
        experiments.start("reviews", A, A, PLAN)
    assert not experiments.path.exists()


def test_who_did_it_is_who_is_logged_in(experiments: Experiments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zhang")
    made = experiments.start("reviews", A, B, PLAN)
    assert made.by == "zhang"
    assert experiments.end(made.id, "stopped", {}).ended_by == "zhang"


def test_arms_are_dealt_by_the_id(experiments: Experiments) -> None:
    live = experiments.start("reviews", A, B, PLAN | {"share": 0.2})
    users = [f"user-{k}" for k in range(500)]
    arms = [live.arm(user) for user in users]
    assert arms == [arm_of(user, live.id, {"challenger": 0.2, "champion": 0.8}) for user in users]
    assert 60 < arms.count("challenger") < 140
    experiments.end(live.id, "stopped", {})
    again = experiments.start("reviews", A, B, PLAN | {"share": 0.2})
    assert [again.arm(user) for user in users] != arms
    shadow = experiments.start("digits", A, B, PLAN | {"mode": "shadow"})
    assert {shadow.arm(user) for user in users} == {"champion"}


def test_a_user_may_be_called_anything(experiments: Experiments) -> None:
    made = experiments.start("reviews", A, B, PLAN)
    assert {made.arm(user) for user in ("", "\ud800", "用户", "x" * 10_000)} <= {"champion", "challenger"}


def test_what_is_not_utf8_is_refused(experiments: Experiments) -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        experiments.start("reviews", A, B, PLAN, why="\udce4")
    assert experiments.path.read_bytes() == b""
    assert experiments.all() == []


def test_an_unchanged_file_is_not_read_again(experiments: Experiments, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiments.start("reviews", A, B, PLAN)
    assert experiments.running("reviews") == made
    with monkeypatch.context() as patch:
        patch.setattr(chain.Chain, "entries", lambda *_, **__: pytest.fail("read"))
        assert experiments.running("reviews") == made
    other = Experiments(experiments.path)
    other.end(made.id, "stopped", {})
    assert experiments.running("reviews") is None


@pytest.mark.parametrize("number", [1, 2])
def test_a_changed_line_is_found(experiments: Experiments, number: int) -> None:
    made = experiments.start("reviews", A, B, PLAN)
    experiments.end(made.id, "inferior", {"n": 10})
    lines = experiments.path.read_text().splitlines(keepends=True)
    lines[number - 1] = (
        lines[number - 1].replace('"by": ', '"by":  ').replace("reviews", "digits").replace("inf", "sup")
    )
    experiments.path.write_text("".join(lines))
    with pytest.raises(CorruptError, match=f"experiments is broken: line {number} was changed"):
        Experiments(experiments.path).running("reviews")


def test_a_line_of_something_else_is_found(experiments: Experiments) -> None:
    chain.Chain(experiments.path).append({"event": "ended", "experiment": "x"})
    with pytest.raises(CorruptError, match="line 1 is not an entry of an experiment"):
        experiments.all()


def test_a_torn_last_line_was_never_said(experiments: Experiments) -> None:
    made = experiments.start("reviews", A, B, PLAN)
    experiments.end(made.id, "superior", {})
    content = experiments.path.read_bytes()
    experiments.path.write_bytes(content[:-1])
    assert experiments.running("reviews") == made
    assert experiments.end(made.id, "stopped", {}).decision == "stopped"


START = """
import sys
from pathlib import Path
from danlu.core.errors import RefusedError
from danlu.core.experiments import Experiments
plan = {"mode": "live", "share": 0.5}
try:
    print(Experiments(Path(sys.argv[1])).start("reviews", "a", sys.argv[2], plan).id)
except RefusedError:
    sys.exit(3)
"""


def test_of_several_at_once_one_starts(experiments: Experiments) -> None:
    command = [sys.executable, "-c", START, str(experiments.path)]
    tried = [subprocess.Popen([*command, str(who)], stdout=subprocess.DEVNULL) for who in range(4)]
    assert sorted(each.wait() for each in tried) == [0, 3, 3, 3]
    (made,) = experiments.all()
    assert dataclasses.replace(made, ended=None) == experiments.running("reviews")
