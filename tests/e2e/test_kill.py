"""A run that is killed at any instant, and started again, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crew import Crew, digests
from danlu.core.chain import RunChain
from forking import forking
from small import made_up, make_dataset, recipe_text
from sudden_death import danlu_until_killed

SEED = 20250607
N_ROUNDS = 5
"""Workspaces; in each, training is killed twice."""
KINDS = ("pretrained", "model")


def recipe() -> str:
    phase = {"batch_tokens": 256, "checkpoint_seconds": 0, "evaluations_per_epoch": 2}
    return recipe_text("bert", pretrain={"epochs": 1, **phase}, train={"epochs": 2, **phase})


def chains_of(workspace: Path) -> dict[str, list[dict[str, Any]]]:
    """What the chain of every phase says, checked; all but what follows from the random numbers that blind seeds."""
    found = {}
    for kind in KINDS:
        for path in (workspace / "artifacts" / kind).glob("tiny-*/chain.jsonl"):
            entries = RunChain.read(path).entries
            blind = ("commitments", "prev", "hash")
            found[kind] = [{name: said for name, said in entry.items() if name not in blind} for entry in entries]
    return found


@pytest.mark.timeout(300)
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    workspace, _ = make_dataset(tmp_path / "whole", made_up(240))
    (tmp_path / "whole" / "recipe.yaml").write_text(recipe())
    for number in range(N_ROUNDS):
        shutil.copytree(tmp_path / "whole", tmp_path / f"round {number}")
    words = ["train", str(tmp_path / "whole" / "recipe.yaml"), "-w", str(workspace.root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "danlu", *words], check=True, capture_output=True, env=environment)
    expected, chains = digests(workspace.root), chains_of(workspace.root)

    draw = random.Random(SEED)
    print(f"seed {SEED}")
    killed = {"at work": 0, "saving": 0}
    for number in range(N_ROUNDS):
        crew = Crew(tmp_path / f"round {number}")
        for kind in KINDS:
            if draw.random() < 0.5:
                how, ready, delay = "saving", crew.saving(kind, draw.randrange(10)), draw.uniform(0, 0.002)
            else:
                how, ready, delay = "at work", partial(crew.begun, kind), draw.uniform(0, 0.3)
            was_at_work = crew.kill(1, ready, delay)
            print(f"round {number}, {kind}, {how} + {delay * 1000:.1f} ms: {'killed' if was_at_work else 'had ended'}")
            killed[how] += was_at_work
        crew.train(1)
        assert digests(crew.workspace) == expected, f"seed {SEED}, round {number}\n{crew.log()}"
        assert chains_of(crew.workspace) == chains
    print(killed)
    assert sum(killed.values()) >= 9
    assert min(killed.values()) >= 3


MOMENTS = [
    ("after", "danlu.core.chain:Chain.append", 1),  # the beginning is written down, and there is no checkpoint
    ("before", "danlu.train.checkpoint:Run.enter", 1),  # evaluated, and not yet in the chain
    ("after", "danlu.train.checkpoint:Run.enter", 1),  # in the chain, and no checkpoint knows of it
    ("after", "danlu.train.checkpoint:Run.end", 1),  # ended, and there is no model yet
]


@pytest.mark.timeout(300)
def test_a_kill_between_a_checkpoint_and_its_line_leaves_no_trace(tmp_path: Path) -> None:
    """At the moments that a clock seldom hits; the same run goes on after each."""
    train = {"epochs": 3, "batch_tokens": 512, "checkpoint_seconds": 0}
    context = forking()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        make_dataset(tmp_path / name, made_up(60))
        (tmp_path / name / "recipe.yaml").write_text(recipe_text("bert", train=train))

    def run(name: str, moment: tuple[str, str, int] | None = None) -> int | None:
        words = ["train", str(tmp_path / name / "recipe.yaml"), "-w", str(tmp_path / name / "workspace")]
        process = context.Process(target=danlu_until_killed, args=(words, tmp_path / f"{name}.txt", moment))
        process.start()
        process.join()
        return process.exitcode

    assert run("whole") == 0, (tmp_path / "whole.txt").read_text()
    for moment in MOMENTS:
        assert run("killed", moment) == -9, (moment, (tmp_path / "killed.txt").read_text())
    assert run("killed") == 0, (tmp_path / "killed.txt").read_text()
    whole, killed = (chains_of(tmp_path / name / "workspace") for name in ("whole", "killed"))
    assert whole.keys() == {"model"}
    assert killed == whole
