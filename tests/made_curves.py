"""Runs and models with made-up curves, as training leaves them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of, write_json
from danlu.core.workspace import Workspace

STARTED = 1_700_000_000.0
VALID: Mapping[str, Any] = {
    "text-classification": lambda loss: {"score": 1 - loss / 4, "accuracy": 1 - loss / 5, "loss": loss},
    "language-modelling": lambda loss: {"score": -loss, "bits_per_character": loss},
    "translation": lambda loss: {"score": -loss, "loss": loss},
}
"""Validation scores by task, from a made-up loss."""


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def metrics(task: str, n_steps: int, *, loss: float = 1.0, every: int = 10) -> list[dict[str, Any]]:
    """A loss that falls to a tenth, with a ripple, and its scores; the best one is the last but one."""
    found: list[dict[str, Any]] = []
    for step in range(1, n_steps + 1):
        now = loss * (0.1 + 0.9 * math.exp(-4 * step / n_steps)) * (1 + 0.02 * math.sin(step))
        found.append({"step": step, "loss": now, "gradient_norm": 0.5, "learning_rate": 1e-3})
        if step % every == 0:
            found.append({"step": step, "valid": VALID[task](now + (0.5 if step == n_steps else 0.0))})
    return found


def timing(process: str, first: int, last: int, *, seconds: float = 0.5, n_tokens: int = 100) -> list[dict[str, Any]]:
    """What the steps of one process cost."""
    return [
        {
            "process": process,
            "step": step,
            "time": STARTED + step,
            "seconds": seconds * (step - first),
            "n_tokens": n_tokens * (step - first),
            "n_positions": n_tokens * (step - first),
            "memory_bytes": 10**8,
        }
        for step in range(first, last + 1)
    ]


def config_of(task: str, **train: Any) -> dict[str, Any]:
    """What such a model is made with."""
    family = {"text-classification": "bert", "language-modelling": "gpt", "translation": "transformer"}[task]
    values: dict[str, Any] = {"task": task, "model": {"family": family, "d_model": 64}, "tokenizer": {"kind": "char"}}
    return values | {"train": {"epochs": 2, "learning_rate": 1e-3} | train, "seed": 1, "family": family}


def make_run(workspace: Workspace, name: str, task: str = "text-classification", n_done: int = 30, **made: Any) -> Path:
    """The folder of a run of 100 steps that did some of them; ``made`` changes config, parents, kind and lines."""
    config = made.get("config", config_of(task))
    kind, parents = made.get("kind", "model"), made.get("parents", {"dataset": "d" * 64})
    key = digest_of({"kind": kind, "config": config, "parents": parents, "name": name})
    folder = workspace.runs / f"{name}-{kind}-{key[:12]}"
    folder.mkdir(parents=True)
    facts = {"kind": kind, "name": name, "config": config, "parents": parents, "key": key, "commitments": {}}
    write_json(folder / "run.json", facts | {"n_parameters": 12_345, "n_steps": 100, "n_threads": 1})
    write_lines(folder / "metrics.jsonl", made.get("metrics", metrics(task, n_done)))
    write_lines(folder / "timing.jsonl", made.get("timing", timing("a", 0, n_done)))
    return folder


def make_model(
    workspace: Workspace, name: str, task: str = "text-classification", *, alias: str = "latest", **made: Any
) -> Artifact:
    """A finished model of 100 steps; ``made`` changes config, parents, kind and lines."""
    config, kind = made.get("config", config_of(task)), made.get("kind", "model")
    parents = made.get("parents", {"dataset": "d" * 64})
    key = digest_of({"kind": kind, "config": config, "parents": parents, "name": name})
    lines = made.get("metrics", metrics(task, 100))
    with workspace.create(kind, name, key=key, config=config, parents=parents) as draft:
        facts = {"seconds": 50.0, "n_tokens": 10_000, "step": 100, "n_steps": 100, "best_score": 0.9, "best_step": 90}
        write_json(draft.folder / "model.json", {"task": task, "family": config["family"]})
        write_json(draft.folder / "training.json", facts | {"n_parameters": 54_321} | made.get("training", {}))
        if lines:
            write_lines(draft.folder / "metrics.jsonl", lines)
        if times := made.get("timing", timing("a", 0, 100)):
            write_lines(draft.folder / "timing.jsonl", times)
    if alias:
        workspace.ledger.set_alias(name, alias, draft.artifact, reason="made up")
    return draft.artifact
