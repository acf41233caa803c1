"""What ``danlu plan`` expects of every recipe, beside what then happens.

    python bench/plans.py [--steps 120] [RECIPE ...]

Each recipe is planned and then trained for so many steps (of pre-training too, where there is one), in processes of
their own and in a workspace that is thrown away; the samples are those of the workspace (DANLU_HOME). Both times are
those of the steps, both sizes the most memory that the process had. Nothing else should run beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from danlu.core.config import read_yaml
from danlu.core.workspace import Workspace

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def danlu(*words: str) -> dict[str, Any]:
    """What a verb answers."""
    command = [sys.executable, "-m", "danlu", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path, default=RECIPES)
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    print("| recipe | steps | seconds planned | taken | ratio | MiB planned | taken | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "samples").symlink_to(Workspace(None).samples)
        for path in given.recipes:
            values = read_yaml(path).values
            words = [f"train.max_steps={given.steps}"]
            words += [f"pretrain.max_steps={given.steps}"] if values["task"] == "text-classification" else []
            words += ["ensemble=[]"] if "ensemble" in values else []
            danlu("data", str(path), "-w", name)
            planned = danlu("plan", str(path), "-w", name, *words)
            taken = danlu("train", str(path), "-w", name, *words)
            row = [path.stem, f"{planned['n_steps']:,}"]
            for key, unit in (("seconds", 1.0), ("memory_bytes", 2.0**20)):
                ours, theirs = planned[key] / unit, taken[key] / unit
                row += [f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
