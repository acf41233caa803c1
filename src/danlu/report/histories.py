"""What training has left behind: the curves of finished models, and of runs under way or interrupted."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from danlu.core.artifact import Artifact
from danlu.core.curves import read_lines
from danlu.core.errors import DataError, UsageError, nearest
from danlu.core.files import held, read_json
from danlu.core.workspace import Workspace

__all__ = ["History", "Spent", "at", "find", "unfinished"]

_KINDS = ("model", "pretrained")
"""The artifacts that training makes."""
_ALIASES = ("champion", "latest", "challenger")
"""What a name alone stands for: the first of these that it has."""


@dataclass(frozen=True)
class Spent:
    """What the steps up to one have cost; steps that were done again after a kill count once.

    Attributes:
        step: The step.
        seconds: Time in the steps themselves.
        n_tokens: Tokens read, padding left out.
    """

    step: float
    seconds: float
    n_tokens: float


@dataclass(frozen=True)
class History:
    """One training.

    Attributes:
        label: What it is called: by whoever asked for it, or its folder's name.
        path: The run's folder or the artifact's, with its curves.
        kind: ``model`` or ``pretrained``.
        state: Whether it has ended well, a process is at work on it, or neither.
        config: What it was made with.
        parents: Role -> digest of what it was made from.
        training: ``training.json``, where it has ended.
        size: ``n_parameters`` and ``n_steps``, where they are known.
    """

    label: str
    path: Path
    kind: str
    state: Literal["finished", "under way", "stopped"]
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    training: Mapping[str, Any]
    size: Mapping[str, int]

    @property
    def task(self) -> str:
        """What the model is to do."""
        return str(self.config["task"])

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_lines(self.path / "metrics.jsonl")

    @cached_property
    def timing(self) -> list[dict[str, Any]]:
        """The lines of timing.jsonl; none of a model from the time when models did not keep them."""
        return read_lines(self.path / "timing.jsonl")

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Steps, and the mean training loss since the point before."""
        return [(line["step"], line["loss"]) for line in self.lines if "loss" in line]

    def valid(self, key: str) -> list[tuple[int, float]]:
        """Steps, and one of the validation scores."""
        return [(line["step"], line["valid"][key]) for line in self.lines if key in line.get("valid", ())]

    @property
    def best(self) -> tuple[int, float] | None:
        """The first step with the best validation score, and that score."""
        return max(self.valid("score"), key=lambda point: (point[1], -point[0]), default=None)

    @property
    def step(self) -> int:
        """The last step that is known of."""
        return max((int(line["step"]) for line in [*self.lines, *self.timing]), default=0)

    @cached_property
    def spent(self) -> list[Spent]:
        """What its steps cost, in order; empty where that is not known."""
        found: list[Spent] = []
        process, before = None, Spent(0, 0.0, 0.0)
        for line in self.timing:
            seconds, n_tokens = line["seconds"], line["n_tokens"]
            if line["process"] != process:
                if process is not None:  # it adds to what had been spent when it took up the run
                    there = at(found, line["step"])
                    before = Spent(0, there.seconds - seconds, there.n_tokens - n_tokens)
                process = line["process"]
            while found and found[-1].step >= line["step"]:
                found.pop()
            found.append(Spent(line["step"], before.seconds + seconds, before.n_tokens + n_tokens))
        return found

    @property
    def cost(self) -> tuple[float, int] | None:
        """Seconds and tokens of all its steps, those done again included; None where that is not known."""
        if self.training:
            before = self.training.get("pretraining", {})
            return self.training["seconds"] - before.get("seconds", 0.0), self.training["n_tokens"]
        last = {line["process"]: line for line in self.timing}.values()
        return (sum(line["seconds"] for line in last), sum(line["n_tokens"] for line in last)) if last else None

    @property
    def changed(self) -> str:
        """When it was worked on last: UTC, ISO 8601."""
        files = (self.path / name for name in ("timing.jsonl", "metrics.jsonl", "run.json"))
        when = self.timing[-1].get("time") if self.timing else None
        when = when or max(path.stat().st_mtime for path in files if path.exists())
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def at(spent: Sequence[Spent], step: float) -> Spent:
    """What had been spent at a step: between two known ones in proportion, beyond the last what was known then."""
    number = bisect_right(spent, step, key=lambda each: each.step)
    below = spent[number - 1] if number else Spent(0, 0.0, 0.0)
    if number == len(spent):
        return below
    above = spent[number]
    share = (step - below.step) / (above.step - below.step)
    seconds, n_tokens = above.seconds - below.seconds, above.n_tokens - below.n_tokens
    return Spent(step, below.seconds + share * seconds, below.n_tokens + share * n_tokens)


def unfinished(workspace: Workspace) -> list[History]:
    """The runs that have made no model yet, in order of name."""
    made = _made(workspace)
    runs = (_of_run(path.parent, path.parent.name, made) for path in sorted(workspace.runs.glob("*/run.json")))
    return [run for run in runs if run.state != "finished"]


def find(workspace: Workspace, target: str) -> History:
    """The training that a name on the command line means.

    Args:
        workspace: Where it is.
        target: A model's folder, ``name@alias`` or name; or a run's folder, its name or the beginning of it.

    Raises:
        UsageError: Nothing is called that, or more than one thing is.
        DataError: It was not trained step by step, or nothing of it is known yet.
        CorruptError: The model is damaged.
    """
    found = _find(workspace, target)
    if found.lines:
        return found
    if "members" in found.config:
        digests = [found.parents[member][:12] for member in found.config["members"]]
        members = [path.name for digest in digests for path in workspace.artifacts.glob(f"model/*-{digest}")]
        raise DataError(
            f"{target} is an ensemble, which has no curve of its own",
            where=str(found.path),
            advice=f"name one of its members: {', '.join(members)}",
        )
    if found.state == "finished":
        advice = "name a model that is; danlu log lists what there is"
        raise DataError(f"{target} was not trained step by step: it has no curve", where=str(found.path), advice=advice)
    how = "ask again in a moment" if found.state == "under way" else "run the same command again: it goes on"
    raise DataError(f"{target} has no report yet", where=str(found.path), advice=how)


def _find(workspace: Workspace, target: str) -> History:
    places = [Path(target), workspace.runs / target, *(workspace.artifacts / kind / target for kind in _KINDS)]
    for path in places:
        if _is_file(path / "manifest.json"):
            artifact = Artifact.open(path)
            artifact.verify()
            return _of_artifact(artifact, path.name)
        if _is_file(path / "run.json"):
            return _of_run(path, path.name, _made(workspace))
    name, _, alias = target.partition("@")
    aliases = {entry.alias for entry in workspace.ledger.entries() if entry.name == name}
    if aliases or alias:
        alias = alias or next((each for each in _ALIASES if each in aliases), _ALIASES[0])
        return _of_artifact(workspace.with_digest(workspace.ledger.resolve(name, alias)), f"{name}@{alias}")
    runs = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    begun = [run for run in runs if run.startswith(target)]
    if len(begun) == 1:
        return _of_run(workspace.runs / begun[0], target, _made(workspace))
    if begun:
        raise UsageError(f"the folders of {len(begun)} runs begin with {target!r}", advice=f"one of {', '.join(begun)}")
    known = {entry.name for entry in workspace.ledger.entries()} | set(runs)
    advice = nearest(target, known) if known else "nothing was trained here yet: danlu train RECIPE"
    raise UsageError(f"no model or run is called {target!r}", where=str(workspace.root), advice=advice)


def _made(workspace: Workspace) -> dict[str, Artifact]:
    """Every model and pre-trained backbone by its key."""
    return {str(found.manifest["key"]): found for kind in _KINDS for found in workspace.all(kind)}


def _of_artifact(artifact: Artifact, label: str) -> History:
    if artifact.kind not in _KINDS:
        raise UsageError(f"{label} is a {artifact.kind}, not a model", where=str(artifact.path))
    training = artifact.json("training.json")
    return History(
        label=label,
        path=artifact.path,
        kind=artifact.kind,
        state="finished",
        config=artifact.config,
        parents=artifact.manifest["parents"],
        training=training,
        size={name: training[name] for name in ("n_parameters", "n_steps") if name in training},
    )


def _of_run(folder: Path, label: str, made: Mapping[str, Artifact]) -> History:
    facts = read_json(folder / "run.json")
    artifact = made.get(facts["key"])
    training = artifact.json("training.json") if artifact else {}
    sizes = facts | training
    return History(
        label=label,
        path=folder,
        kind=facts["kind"],
        state="finished" if artifact else "under way" if held(folder / "lock") else "stopped",
        config=facts["config"],
        parents=facts["parents"],
        training=training,
        size={name: sizes[name] for name in ("n_parameters", "n_steps") if name in sizes},
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long for a path: a text, put where the target belongs
        return False
