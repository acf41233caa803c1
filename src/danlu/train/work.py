"""What a training run makes, and going on with one whose recipe has changed since it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from danlu.core.chain import Chain
from danlu.core.config import leaves
from danlu.core.errors import UsageError
from danlu.core.files import digest_of, lock, read_json, write_json
from danlu.core.progress import Progress

__all__ = ["Work"]

_MAY_CHANGE = frozenset(
    f"train.{name}"
    for name in (
        *("epochs", "max_steps", "patience", "evaluations_per_epoch"),
        *("learning_rate", "warmup", "final_learning_rate", "embedding_rate", "weight_decay"),
        *("betas", "momentum", "eps", "clip_norm", "ema_decay"),
        *("accumulate", "precision", "activation_checkpointing", "compile_blocks"),
    )
)
"""What a run can go on with otherwise than it began. Weights, moments and the order of the data stay what they are."""


@dataclass(frozen=True)
class Work:
    """A run to be carried out.

    Attributes:
        kind: Of the artifact that it makes.
        name: What that is called.
        config: Everything that decides what comes out,
        parents: and the digests of what it is made from.
        changes: What was changed after it had begun: at which ``step``, and ``what``: key -> [before, after].
    """

    kind: str
    name: str
    config: dict[str, Any]
    parents: dict[str, str]
    changes: tuple[dict[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """What the artifact is found again by."""
        changes = {"changes": self.changes} if self.changes else {}
        return digest_of({"kind": self.kind, "config": self.config, "parents": self.parents, **changes})

    def folder(self, runs: Path) -> Path:
        """Where it is carried out."""
        return runs / f"{self.name}-{self.kind}-{self.key[:12]}"

    def taken_up(self, runs: Path, resume: bool, progress: Progress) -> Work:
        """The work itself; or, where another recipe's run of this name was interrupted, that run gone on with.

        Args:
            runs: Where runs are carried out.
            resume: Whether to go on with it; otherwise it is only told of.
            progress: Told what has changed.

        Raises:
            UsageError: Something has changed with which the run cannot go on.
            BusyError: Another process is at work on it.
        """
        before = None if self.folder(runs).exists() else _interrupted(runs, self.name, self.kind)
        if before is None:
            return self
        folder, step = before
        begun = read_json(folder / "run.json")
        was = dict(leaves({**begun["config"], "parents": begun["parents"]}))
        now = dict(leaves({**self.config, "parents": self.parents}))
        changed = {key: [was.get(key), now.get(key)] for key in {**was, **now} if was.get(key) != now.get(key)}
        shown = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in changed.items()) or "nothing"
        if not resume:
            progress.note(f"{folder.name}, interrupted at step {step}, differs in {shown}; this run begins anew")
            progress.note("train.resume=true goes on with that one")
            return self
        if fixed := [key for key in changed if key not in _MAY_CHANGE and "dropout" not in key]:
            raise UsageError(
                f"{folder.name}, interrupted at step {step}, cannot go on with another {', '.join(fixed)} ({shown})",
                where="train.resume",
                advice="undo the change, or leave train.resume out to begin anew",
            )
        history = (*begun.get("changes", ()), *([{"step": step, "what": changed}] if changed else ()))
        work = replace(self, changes=history)
        with lock(folder / "lock", holder=f"the run {folder.name}"):
            write_json(folder / "run.json", {**begun, **asdict(work), "key": work.key})
            if folder != work.folder(runs):
                folder.rename(work.folder(runs))
        progress.note(f"going on with {folder.name} at step {step}; changed: {shown}")
        return work


def _interrupted(runs: Path, name: str, kind: str) -> tuple[Path, int] | None:
    """The last run of a name that has a checkpoint and did not end, and the step of that."""
    found: list[tuple[float, Path, int]] = []
    for path in runs.glob(f"{name}-{kind}-*/run.json"):
        about: Mapping[str, Any] = read_json(path)
        steps = [folder.name.removeprefix("step-") for folder in path.parent.glob("checkpoints/step-*")]
        if steps and (about["name"], about["kind"]) == (name, kind):
            *_, last = Chain(path.parent / "chain.jsonl").entries(growing=True) or [{"event": "begun"}]
            if last["event"] != "ended":  # otherwise it is one whose checkpoints were to be kept
                found.append((path.stat().st_mtime, path.parent, max(map(int, steps))))
    return max(found)[1:] if found else None
