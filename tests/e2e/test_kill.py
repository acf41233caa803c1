"""A run that is killed at any instant, and started again, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from small import danlu_in_child, made_up, make_dataset, recipe_text

SEED = 20250607
N_ROUNDS = 5
"""Workspaces; in each, training is killed twice."""
PRELOAD = ["danlu.pipeline", "danlu.cli.answers", "small", "torch._dynamo"]
"""The last is what torch imports at the first step of an optimizer: three seconds a process."""
KINDS = ("pretrained", "model")


def recipe() -> str:
    phase = {"batch_tokens": 256, "checkpoint_seconds": 0, "evaluations_per_epoch": 2}
    return recipe_text("bert", pretrain={"epochs": 1, **phase}, train={"epochs": 2, **phase})


def results(workspace: Path) -> dict[str, str]:
    """The digests of the weights and the curve of both phases."""
    found = {}
    for kind in KINDS:
        (folder,) = (workspace / "artifacts" / kind).glob("tiny-*")
        for name in ("model.safetensors", "metrics.jsonl"):
            found[f"{kind}/{name}"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


class Trainer:
    """Starts trainers in a workspace; each is a process of its own with the imports already done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)

    def start(self) -> ForkServerProcess:
        words = ["train", str(self.folder / "recipe.yaml"), "-w", str(self.workspace)]
        process = self._context.Process(target=danlu_in_child, args=(words, self.folder / "log.txt"))
        process.start()
        return process

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def kill(self, ready: Callable[[], bool], delay: float) -> str:
        """Start one and kill it so long after it is ready; how it ended."""
        process = self.start()
        while process.is_alive() and not ready():
            time.sleep(0.0005)
        time.sleep(delay)
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), self.log()
        return "killed" if process.exitcode == -9 else "had ended"

    def finish(self) -> None:
        process = self.start()
        process.join()
        assert process.exitcode == 0, self.log()

    def at_work_on(self, kind: str) -> bool:
        return any((self.workspace / "runs").glob(f"tiny-{kind}-*/checkpoints/step-*"))

    def saving(self, kind: str, step: int) -> Callable[[], bool]:
        """Whether a checkpoint at or after a step of a phase is being written now."""

        def now() -> bool:
            (*before,) = (self.workspace / "runs").glob(f"tiny-{kind}-*/checkpoints/step-*")
            last = max((int(path.name.removeprefix("step-")) for path in before), default=-1)
            return last >= step and any((self.workspace / "runs").glob(f"tiny-{kind}-*/checkpoints/.scratch-*"))

        return now


@pytest.mark.timeout(300)
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    workspace, _ = make_dataset(tmp_path / "whole", made_up(240))
    (tmp_path / "whole" / "recipe.yaml").write_text(recipe())
    for number in range(N_ROUNDS):
        shutil.copytree(tmp_path / "whole", tmp_path / f"round {number}")
    whole = Trainer(tmp_path / "whole")
    command = [sys.executable, "-m", "danlu", "train", str(whole.folder / "recipe.yaml"), "-w", str(workspace.root)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    expected = results(workspace.root)

    draw = random.Random(SEED)
    print(f"seed {SEED}")
    killed = {"at work": 0, "saving": 0}
    for number in range(N_ROUNDS):
        trainer = Trainer(tmp_path / f"round {number}")
        (trainer.folder / "recipe.yaml").write_text(recipe())
        for kind in KINDS:
            if draw.random() < 0.5:
                how, ready, delay = "saving", trainer.saving(kind, draw.randrange(10)), draw.uniform(0, 0.002)
            else:
                how, ready, delay = "at work", lambda t=trainer, k=kind: t.at_work_on(k), draw.uniform(0, 0.3)
            ended = trainer.kill(ready, delay)
            print(f"round {number}, {kind}, {how} + {delay * 1000:.1f} ms: {ended}")
            killed[how] += ended == "killed"
        trainer.finish()
        assert results(trainer.workspace) == expected, f"seed {SEED}, round {number}\n{trainer.log()}"
    print(killed)
    assert sum(killed.values()) >= 9
    assert min(killed.values()) >= 3
