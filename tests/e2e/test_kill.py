"""A run that is killed at any instant, and started again, ends with the same bytes as one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from crew import Crew, digests
from small import made_up, make_dataset, recipe_text

SEED = 20250607
N_ROUNDS = 5
"""Workspaces; in each, training is killed twice."""
KINDS = ("pretrained", "model")


def recipe() -> str:
    phase = {"batch_tokens": 256, "checkpoint_seconds": 0, "evaluations_per_epoch": 2}
    return recipe_text("bert", pretrain={"epochs": 1, **phase}, train={"epochs": 2, **phase})


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
    expected = digests(workspace.root)

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
    print(killed)
    assert sum(killed.values()) >= 9
    assert min(killed.values()) >= 3
