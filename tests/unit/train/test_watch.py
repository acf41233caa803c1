from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from danlu.core.curves import read_lines
from danlu.core.progress import Silent
from danlu.train import loop
from danlu.train.checkpoint import Run, State
from danlu.train.watch import Watch, memory
from small import make_training


def test_the_loss_is_the_mean_since_it_was_asked_last() -> None:
    watch = Watch()
    for loss in (3.0, 1.0):
        watch.add(loss)
    assert watch.facts(State(), 1e-3, 50.0)["loss"] == 2.0
    watch.add(7.0)
    assert watch.facts(State(), 1e-3, 50.0)["loss"] == 7.0


def test_what_is_not_known_yet_is_not_told() -> None:
    watch = Watch()
    watch.add(1.0)
    assert list(watch.facts(State(), 1e-3, 50.0)) == ["loss", "learning rate", "tokens/s", "memory (MiB)"]
    watch.add(1.0)
    watch.scores = {"score": 0.8, "loss": 0.4}
    found = watch.facts(State(step=9, best_step=4, best_score=0.9), 1e-3, 50.0)
    assert list(found.items())[:7] == [
        ("loss", 1.0),
        ("valid score", 0.8),
        ("valid loss", 0.4),
        ("best score", 0.9),
        ("at step", 4),
        ("learning rate", 1e-3),
        ("tokens/s", 50.0),
    ]


def test_the_memory_of_a_gpu_is_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3 * 2**20)
    assert memory()["gpu_memory_bytes"] == 3 * 2**20
    watch = Watch()
    watch.add(1.0)
    assert watch.facts(State(), 1e-3, 50.0)["GPU memory (MiB)"] == 3.0
    assert memory()["memory_bytes"] > 2**20


class Told(Silent):
    """Keeps the facts of every moment."""

    def __init__(self) -> None:
        self.moments: list[tuple[int, dict[str, float]]] = []

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """Keep them."""
        assert total is not None
        assert not what
        self.moments.append((done, dict(facts or {})))


def test_training_tells_of_itself_and_writes_down_what_it_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = itertools.count(0, 1.5)  # so that every step is told of
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(passed), time=lambda: next(passed)))
    told, run = Told(), Run(tmp_path, Silent())
    fitted = loop.fit(make_training(), run, told)
    assert [step for step, _ in told.moments] == list(range(1, fitted.n_steps + 1))
    losses = {line["step"]: line for line in read_lines(run.metrics) if "loss" in line}
    valid = [line for line in read_lines(run.metrics) if "valid" in line]
    for step, facts in told.moments:
        assert facts["loss"] == losses[step]["loss"]
        assert facts["learning rate"] == losses[step]["learning_rate"]
        before = [line["valid"] for line in valid if line["step"] < step]
        shown = {name.removeprefix("valid "): value for name, value in facts.items() if name.startswith("valid ")}
        assert shown == (before[-1] if before else {})
        assert facts.get("best score") == max((scores["score"] for scores in before), default=None)
    first, *_, last = read_lines(run.timing)
    assert (first["step"], first["seconds"], first["n_tokens"]) == (0, 0, 0), "where this process took up the run"
    assert last["step"] == fitted.step
    assert 0 < first["time"] < last["time"]
    assert last["memory_bytes"] >= first["memory_bytes"] > 2**20
