"""Training speed and time to quality: danlu beside others, in turn, each way in a process of its own.

    python bench/training.py gpt [--rounds 10] [--steps 4]       tokens a second of a GPT, and the share of the peak
    python bench/training.py classify [--rounds 5]               texts a second of an encoder on texts of real length
    python bench/training.py quality [--seeds 1,2,3] [key=value] seconds to the loss of a plain loop

The samples are those of the workspace (DANLU_HOME): danlu fetch zh-poetry, danlu fetch zh-reviews. What comes out is
kept as JSON in --keep, after every round, and can be shown again (--show). What each measures: see gpt_training.py,
classifier_training.py and time_to_quality.py.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import classifier_training
import gpt_training
import time_to_quality
from danlu.core.workspace import Workspace

TASKS = {"gpt": gpt_training, "classify": classifier_training, "quality": time_to_quality}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, module in TASKS.items():
        of_task = tasks.add_parser(name, description=module.__doc__)
        of_task.add_argument("--threads", type=int, default=2)
        of_task.add_argument("--keep", type=Path, default=Workspace(None).root / "bench")
        of_task.add_argument("--show", action="store_true", help="show what was kept")
        module.add_arguments(of_task)
    given = parser.parse_args()
    module = TASKS[given.task]
    path = given.keep / f"training-{given.task}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if given.show else module.measure(given, path)
    module.show(found, given)


if __name__ == "__main__":
    main()
