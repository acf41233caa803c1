"""Several processes train one model: the same curve, checkpoints that any number goes on from, a death that is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crew import Crew, difference
from small import make_dataset, recipe_text

TRAIN = {"epochs": 3, "batch_tokens": 256, "accumulate": 4, "checkpoint_seconds": 0, "ema_decay": 0.9, "keep_every": 5}
MODEL = {"dropout": 0.2}
CUT = 10
"""A step in the middle whose checkpoint is kept."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "all"
    folder.mkdir()
    make_dataset(folder, task="language-modelling")
    text = recipe_text("gpt", "language-modelling", model=MODEL, train=TRAIN)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def copy(made: Path, folder: Path) -> Crew:
    shutil.copytree(made, folder / "crew")
    return Crew(folder / "crew")


@pytest.fixture(scope="module")
def alone(made: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    crew = copy(made, tmp_path_factory.mktemp("alone"))
    crew.train(1)
    return crew.curve()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("n", "parallel"), [(2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp")])
def test_any_number_of_processes_draws_the_same_curve(
    made: Path, alone: list[dict[str, Any]], tmp_path: Path, n: int, parallel: str
) -> None:
    crew = copy(made, tmp_path)
    crew.train(n, f"train.parallel={parallel}")
    found = difference(crew.curve(), alone)
    print(f"{n} processes, {parallel}: {found:.2g}")
    assert found < 1e-5


@pytest.mark.timeout(300)
def test_a_batch_of_32_in_4_or_8_parts_draws_the_same_curve(made: Path, tmp_path: Path) -> None:
    curves = []
    for parts in (1, 4, 8):
        crew = copy(made, tmp_path / str(parts))
        crew.train(1, f"train.accumulate={parts}", "model.dropout=0", "train.batch_tokens=1024")  # rows of 32 tokens
        curves.append(crew.curve())
    for parts, curve in zip((4, 8), curves[1:], strict=True):
        found = difference(curve, curves[0])
        print(f"{parts} parts: {found:.2g}")
        assert found < 1e-5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_what_four_processes_began_one_or_two_go_on_with(
    made: Path, alone: list[dict[str, Any]], tmp_path: Path, parallel: str
) -> None:
    crew = copy(made, tmp_path)
    assert crew.kill(4, lambda: crew.at(CUT), 0, f"train.parallel={parallel}")
    crew.folder.rename(tmp_path / "stopped")
    for n in (1, 2):
        shutil.rmtree(crew.folder, ignore_errors=True)
        shutil.copytree(tmp_path / "stopped", crew.folder)
        crew.train(n, f"train.parallel={parallel}")
        assert "resumed at step" in crew.log()
        assert f"the run began with 4 processes and goes on with {n}" in crew.log()
        found = difference(crew.curve(), alone)
        print(f"4 to {n} processes, {parallel}: {found:.2g}")
        assert found < 1e-5


@contextmanager
def launched(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "danlu", "train", str(folder / "recipe.yaml"), "-w", str(folder / "workspace")]
    process = subprocess.Popen(
        [*command, *words], stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def second_process_of(parent: int) -> int:
    """The process number of rank 1."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            above = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if above == parent and b"RANK=1" in environment:
            return int(path.name)
    raise LookupError("no second process")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("restarts", [0, 1])
def test_the_death_of_one_ends_all_with_a_checkpoint_or_starts_them_again(
    made: Path, alone: list[dict[str, Any]], tmp_path: Path, restarts: int
) -> None:
    crew = copy(made, tmp_path)
    with launched(crew.folder, "train.processes=2", f"train.restarts={restarts}") as process:
        while not crew.at(CUT):
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(second_process_of(process.pid), signal.SIGKILL)
        _, said = process.communicate()
    if restarts:
        assert process.returncode == 0, said
        assert "resumed at step" in said
    else:
        assert process.returncode == 1, said
        assert "process 1 of 2 was ended by SIGKILL (exit code -9); the others were stopped" in said
        assert "the same command goes on from the last checkpoint" in said
        assert "Traceback" not in said
        crew.train(2, "train.processes=2")
    assert difference(crew.curve(), alone) < 1e-5


@pytest.mark.timeout(300)
def test_an_error_of_all_is_told_once_and_ends_with_its_own_code(made: Path, tmp_path: Path) -> None:
    crew = copy(made, tmp_path)
    with launched(crew.folder, "train.processes=2", "train.learning_rate=1e9", "train.restarts=1") as process:
        _, said = process.communicate()
    assert process.returncode == 1
    assert said.count("the step was not taken") == 1, said
    assert "Traceback" not in said
