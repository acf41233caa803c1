"""A made-up search: its trials as ``trials.json`` has them."""

from __future__ import annotations

import math
import random
from typing import Any

__all__ = ["made_search"]

SPACE: dict[str, Any] = {
    "train.learning_rate": {"low": 2e-4, "high": 5e-3, "log": True, "step": None},
    "train.batch_tokens": [1024, 2048, 4096],
    "model.dropout": {"low": 0.0, "high": 0.4, "log": False, "step": 0.1},
    "model.n_layers": {"low": 1, "high": 4, "log": False, "step": None},
}
OWN = {"train.learning_rate": 1e-3, "train.batch_tokens": 2048, "model.dropout": 0.2, "model.n_layers": 2}


def made_search(task: str = "text-classification", n: int = 20, *, held: bool = True, **changes: Any) -> dict[str, Any]:
    """A search of some trials: the first with the recipe's own values, every third stopped early, one failed.

    Args:
        task: What the model does.
        n: Trials.
        held: Whether the space holds the recipe's own values.
        changes: Facts that are otherwise.
    """
    draw = random.Random(1)
    shift = 0.0 if task.endswith("classification") else -7.4
    trials = []
    for number in range(1, n + 1):
        values: dict[str, Any] = {
            "train.learning_rate": float(f"{10 ** draw.uniform(-3.69, -2.31):.4g}"),
            "train.batch_tokens": draw.choice(SPACE["train.batch_tokens"]),
            "model.dropout": round(0.1 * draw.randrange(5), 1),
            "model.n_layers": draw.randint(1, 4),
        }
        values = dict(OWN) if held and number == 1 else values
        good = (
            0.86
            - 0.06 * abs(math.log10(values["train.learning_rate"] / 2e-3))
            - 0.05 * abs(values["model.dropout"] - 0.1)
        )
        every = 150 * 2048 // values["train.batch_tokens"]
        state = "failed" if number == 9 else "pruned" if number > 5 and number % 3 == 0 else "complete"
        n_seen = {"failed": 0, "pruned": 1 + number % 2, "complete": 4}[state]
        curve = [[k * every, round(shift + good - 0.2 / (k + 1), 4)] for k in range(1, n_seen + 1)]
        trials.append(
            {
                "number": number,
                "state": state,
                "values": values,
                "score": max((score for _, score in curve), default=None),
                "curve": curve,
                "n_steps": None if state == "failed" else 4 * every,
                "why": "the loss is nan at step 3 <b>" if state == "failed" else None,
                "same_as": 2 if number == 17 else None,
            }
        )
    best = max((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: trial["score"])
    facts = {
        "name": "reviews",
        "task": task,
        "family": "bert",
        "seed": 1,
        "optuna": "5.0.0",
        "space": SPACE,
        "sampler": "tpe",
        "pruner": "median",
        "warmup_trials": 5,
        "length": {"train.epochs": [2, 8]},
        "own": {"values": OWN, "trial": 1 if held else None},
        "best": {"values": best["values"], "trial": best["number"], "score": best["score"]},
        "words": [f"{key}={value}" for key, value in best["values"].items()],
        "counts": {
            state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "failed")
        },
        "importances": {
            "train.learning_rate": 0.61,
            "model.dropout": 0.22,
            "train.batch_tokens": 0.12,
            "model.n_layers": 0.05,
        },
        "trials": trials,
    }
    return facts | changes
