"""SIGKILL at random instants: does a run that goes on end with the bytes of one that was left alone?

    PYTHONPATH=src:tests python bench/kills.py [--kills 50] [--pairs 10] [--seed 1]

Three tiny recipes take turns: a classifier that is pre-trained first; a GPT with gradient accumulation and a mean of
its weights; a translator. Each writes a checkpoint after every step. A round is killed three times, each time after a
random part of the time that the whole run takes, and then goes on to its end; the SHA-256 of its weights and of its
curve are compared with those of the run that was left alone. Then the GPT in two processes, both killed at once: the
largest difference of a loss, and whether the bytes are the same too.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path

from crew import Crew, difference, digests
from small import FAMILY, Task, make_dataset, recipe_text

PHASE = {"batch_tokens": 256, "checkpoint_seconds": 0, "evaluations_per_epoch": 2}
RECIPES: dict[Task, dict[str, object]] = {
    "text-classification": {"pretrain": {"epochs": 1, **PHASE}, "train": {"epochs": 3, **PHASE}},
    "language-modelling": {"train": {"epochs": 4, "accumulate": 3, "ema_decay": 0.99, **PHASE}},
    "translation": {"train": {"epochs": 4, **PHASE}},
}
KILLS_A_ROUND = 3


def made(folder: Path, task: Task) -> Crew:
    """A folder with a recipe and its dataset."""
    folder.mkdir()
    make_dataset(folder, task=task)
    (folder / "recipe.yaml").write_text(recipe_text(FAMILY[task], task, **RECIPES[task]))
    return Crew(folder)


def fresh(crew: Crew, kept: Path) -> None:
    """The folder as it was before training; in its own place, for a dataset knows its source."""
    shutil.rmtree(crew.folder)
    shutil.copytree(kept, crew.folder)


def rounds(crew: Crew, kept: Path, n_kills: int, n: int, draw: random.Random) -> tuple[int, int, int, float]:
    """Kills that met a run at work, runs that were killed, those that ended with the same bytes; largest difference."""
    crew.train(n)  # so that the imports are done when the time is taken
    fresh(crew, kept)
    started = time.perf_counter()
    crew.train(n)
    whole, expected, curve = time.perf_counter() - started, digests(crew.workspace), crew.curve()
    killed = ended = same = 0
    worst = 0.0
    while killed < n_kills:
        fresh(crew, kept)
        for _ in range(min(KILLS_A_ROUND, n_kills - killed)):
            killed += crew.kill(n, lambda: True, draw.uniform(0.02, 1) * whole)
        crew.train(n)
        ended += 1
        same += digests(crew.workspace) == expected
        worst = max(worst, difference(crew.curve(), curve))
    return killed, ended, same, worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=10, help="kills of two processes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    draw, total, exact = random.Random(given.seed), 0, True
    with tempfile.TemporaryDirectory() as name:
        for number, task in enumerate(RECIPES):
            crew, kept = made(Path(name) / task, task), Path(name) / f"{task} before"
            shutil.copytree(crew.folder, kept)
            n_kills = given.kills * (number + 1) // len(RECIPES) - given.kills * number // len(RECIPES)
            killed, ended, same, _ = rounds(crew, kept, n_kills, 1, draw)
            print(f"{task:20s} {killed} kills in {ended} runs; {same} of {ended} ended with the same bytes", flush=True)
            total, exact = total + killed, exact and same == ended
        print(json.dumps({"kills": total, "all_bit_exact": exact}))
        task = "language-modelling"
        kept = Path(name) / f"{task} before"
        killed, ended, same, worst = rounds(Crew(Path(name) / task), kept, given.pairs, 2, draw)
        print(f"two processes        {killed} kills in {ended} runs; largest difference of a loss {worst:.2g}", end="")
        print(f", {same} of {ended} with the same bytes")
    if not exact:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
