"""A promotion that is killed at any step leaves one champion and goes on; of two at once, one wins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.promoting import promote
from forking import forking
from killed_promotion import MIDDLE, promoted_beside, promoted_until
from made_trial import NAME, Traffic, made_model, proposed

N_ROUNDS = 21
"""Of two promotions at once: a third begun together, the others come to the last step together."""


class Stage:
    """A workspace to be copied, and processes that do not import everything anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole = Workspace(folder / "whole")
        self._context = forking()

    def copy(self, name: str) -> Workspace:
        """The workspace once more."""
        shutil.copytree(self.whole.root, self.folder / name)
        return Workspace(self.folder / name)

    def run(self, *args: Any, also: tuple[Any, ...] | None = None) -> list[int | None]:
        """Promote in a process, or in two; how they ended."""
        target = promoted_until if also is None else promoted_beside
        processes = [self._context.Process(target=target, args=each) for each in (args, also) if each is not None]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [process.exitcode for process in processes]

    def barrier(self) -> Any:
        """Where two wait for each other."""
        return self._context.Barrier(2)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A is the champion; B and C have passed their tests against it; what a trial of B showed is known."""
    made = Stage(tmp_path)
    a, b, c = (made_model(made.whole, label) for label in "abc")
    for each in (b, c):
        proposed(made.whole, a, each)
    made.whole.ledger.set_alias(NAME, "champion", a, reason="the first")
    made.whole.ledger.set_alias(NAME, "challenger", b, reason="trained")
    return made


def under_trial(stage: Stage) -> None:
    workspace = stage.whole
    promote(workspace, NAME, ["trial=live", "margin=0.05", "budget=500"])
    trial = workspace.experiments.running(NAME)
    assert trial is not None
    Traffic(workspace, trial).live(80, challenger=1.0, champion=0.3)
    with Index.open(workspace) as index:
        index.refresh()


def check(stage: Stage, name: str, words: list[str], came_to: str, told: str) -> None:
    """One champion, whole chains; the same command goes on, and does nothing twice."""
    workspace = Workspace(stage.folder / name)
    a, b = (workspace.ledger.history(NAME)[at].digest for at in (0, 1))
    before = [entry.digest for entry in workspace.ledger.entries() if entry.alias == "champion"]
    assert before in ([a], [a, b]), told
    assert len(workspace.experiments.all(NAME)) == 1, told
    found = promote(Workspace(workspace.root), NAME, words)
    assert found.done == ("promoted" if before == [a] else "already"), told
    after = Workspace(workspace.root)
    assert [entry.digest for entry in after.ledger.entries() if entry.alias == "champion"] == [a, b], told
    assert [each.decision for each in after.experiments.all(NAME)] == [came_to], told
    assert after.experiments.running(NAME) is None
    shutil.rmtree(workspace.root)


@pytest.mark.timeout(900)
def test_a_promotion_killed_at_any_line_goes_on(stage: Stage, tmp_path: Path) -> None:
    under_trial(stage)
    log = tmp_path / "log.txt"
    assert stage.run(stage.copy("counted").root, [], log, None, None) == [0], log.read_text()
    n_lines = int(log.read_text())
    check_done = [each.decision for each in Workspace(tmp_path / "counted").experiments.all(NAME)]
    assert check_done == ["superior"]
    assert n_lines > 80
    seen = {"nothing": 0, "ended": 0, "promoted": 0}
    for line in range(1, n_lines + 1):
        workspace = stage.copy(f"line {line}")
        assert stage.run(workspace.root, [], log, line, None) == [-9]
        promoted = len([entry for entry in workspace.ledger.entries() if entry.alias == "champion"]) == 2
        ended = workspace.experiments.running(NAME) is None
        assert ended or not promoted
        seen["promoted" if promoted else "ended" if ended else "nothing"] += 1
        check(stage, f"line {line}", [], "superior", log.read_text())
    print(f"{n_lines} lines: {seen}")
    assert min(seen.values()) >= 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("write", [1, 2])
def test_a_promotion_killed_while_it_writes_goes_on(stage: Stage, tmp_path: Path, write: int) -> None:
    under_trial(stage)
    for part in MIDDLE:
        workspace = stage.copy(part)
        assert stage.run(workspace.root, [], tmp_path / "log.txt", None, (write, part)) == [-9]
        whole = [path.read_bytes().endswith(b"\n") for path in sorted((workspace.root / "refs").iterdir())]
        assert whole == [part == "all" or write == 2, part == "all" or write == 1]  # experiments, ledger
        check(stage, part, [], "superior", f"write {write}, {part}")


@pytest.mark.timeout(600)
def test_a_way_back_killed_at_any_line_goes_on(stage: Stage, tmp_path: Path) -> None:
    """From B, with a trial of C under way, to A."""
    workspace, log = stage.whole, tmp_path / "log.txt"
    promote(workspace, NAME, [])
    a, c = (
        workspace.ledger.history(NAME)[0].digest,
        next(m.digest for m in workspace.all("model") if m.json("model.json")["family"] == "c"),
    )
    promote(workspace, NAME, ["trial=shadow", "margin=0.05", "budget=500", f"to={c}"])
    words = ["back=true", "why=slow"]
    assert stage.run(stage.copy("counted").root, words, log, None, None) == [0]
    n_lines = int(log.read_text())
    champions = [entry.digest for entry in workspace.ledger.entries() if entry.alias == "champion"]
    seen = set()
    for line in range(1, n_lines + 1):
        copy = stage.copy(f"line {line}")
        assert stage.run(copy.root, words, log, line, None) == [-9]
        now = [entry.digest for entry in copy.ledger.entries() if entry.alias == "champion"]
        assert now in (champions, [*champions, a]), log.read_text()
        seen.add((now == champions, copy.experiments.running(NAME) is None))
        if now == champions:
            assert promote(Workspace(copy.root), NAME, words).champion == a
        after = Workspace(copy.root)
        assert [entry.digest for entry in after.ledger.entries() if entry.alias == "champion"] == [*champions, a]
        assert [each.decision for each in after.experiments.all(NAME)] == ["stopped"]
        shutil.rmtree(copy.root)
    assert seen == {(True, False), (True, True), (False, True)}


@pytest.mark.timeout(600)
def test_of_two_promotions_at_once_one_wins(stage: Stage, tmp_path: Path) -> None:
    a, b = (stage.whole.ledger.history(NAME)[at].digest for at in (0, 1))
    c = next(model.digest for model in stage.whole.all("model") if model.digest not in (a, b))
    logs = [tmp_path / "one.txt", tmp_path / "other.txt"]
    for number in range(N_ROUNDS):
        workspace, barrier = stage.copy(f"round {number}"), stage.barrier()
        together, one_model = number % 3 > 0, number % 3 == 2
        wanted = [b, b if one_model else c]
        first, second = (
            (workspace.root, [f"to={digest[:12]}", f"by={who}"], log, barrier, together)
            for digest, who, log in zip(wanted, ("li", "wang"), logs, strict=True)
        )
        codes = stage.run(*first, also=second)
        told = [log.read_text() for log in logs]
        assert sorted(code or 0 for code in codes) == [0, 3], told
        winner, loser = codes.index(0), codes.index(3)
        entries = [entry for entry in workspace.ledger.entries() if entry.alias == "champion"]
        assert [entry.digest for entry in entries] == [a, wanted[winner]]
        assert entries[-1].by == ("li", "wang")[winner]
        assert f"{wanted[winner][:12]} is the champion of {NAME} now" in told[winner]
        happened = f"{wanted[winner][:12]} since {entries[-1].time}, by {entries[-1].by}: proposal: passed"
        happened_late = happened.replace(" since", " is champion since")
        assert happened in told[loser] or (not together and happened_late in told[loser]), told[loser]
