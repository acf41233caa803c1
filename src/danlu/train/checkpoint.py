"""A training run on disk: checkpoints that are complete or absent, and curves that agree with them.

runs/<name>-<key>/
  run.json         config, parents and seed commitments, written before step 0
  seeds.json       the run's secret seeds, readable by its owner only
  metrics.jsonl    one line a report; nothing in it depends on the clock, so the same run gives the same bytes
  chain.jsonl      how the run began, every checkpoint that was evaluated, how it ended (danlu.core.chain); likewise
  timing.jsonl     what does depend on the clock
  events.out.*     both for TensorBoard, where that was asked for
  checkpoints/step-00000120/
    model.safetensors, optimizer.safetensors, state.json, manifest.json (their digests)
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from danlu.core.chain import Chain
from danlu.core.errors import CorruptError
from danlu.core.files import explained, publish, read_json, scratch_folder, sha256_file, write_json
from danlu.core.progress import Progress
from danlu.model.weights import save_tensors
from danlu.train.config import RunConfig
from danlu.train.engine import Tensors
from danlu.train.tensorboard import EventFile
from danlu.train.world import World, is_share

__all__ = ["Restored", "Run", "State"]


@dataclass
class State:
    """Where a run stands. Everything random is derived from the seeds and the step.

    Attributes:
        step: Optimizer steps taken.
        evaluated: The step of the last evaluation.
        best_step: The step with the best score so far, or None.
        best_score: Its score.
        n_worse: Evaluations since the best one.
        loss_sum: Sum of the losses since the last report.
        loss_count: How many losses that is.
        metrics_bytes: Length of metrics.jsonl at this point,
        chain_bytes: and of chain.jsonl.
        chain_loss: Sum of the losses since the last line of the chain.
        chain_count: How many losses that is.
    """

    step: int = 0
    evaluated: int = 0
    best_step: int | None = None
    best_score: float | None = None
    n_worse: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    metrics_bytes: int = 0
    chain_bytes: int = 0
    chain_loss: float = 0.0
    chain_count: int = 0


class Restored(Protocol):
    """Whatever goes on from a checkpoint."""

    def load(self, tensors: Tensors) -> None:
        """Take what was kept."""
        ...


class Run:
    """The folder of one run, held by one process at a time (the caller holds its lock).

    Args:
        folder: The run's folder.
        progress: Told when a damaged checkpoint is passed over.
        config: Which checkpoints are kept, and whether the curves are written for TensorBoard too; None: as by default.
        world: Who works on it together: the first one writes, and the others their shares of tensors.
    """

    def __init__(
        self, folder: Path, progress: Progress, config: RunConfig | None = None, world: World | None = None
    ) -> None:
        self.folder = folder
        self.progress = progress
        self._config = config or RunConfig()
        self._world = world or World()
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.timing = folder / "timing.jsonl"
        self.chain = Chain(folder / "chain.jsonl", "the chain of the training run")
        self._events = EventFile(folder) if self._config.tensorboard and self._world.leads else None

    def save(self, tensors: Tensors, state: State) -> None:
        """Write a checkpoint of this moment, then drop those that are no longer needed.

        Args:
            tensors: Each group becomes a file of its name.
            state: Where the run stands.

        Raises:
            DanluError: The disk is full or may not be written to; earlier checkpoints are intact.
        """
        shared = any(is_share(tensor) for named in tensors.values() for tensor in named.values())
        if not self._world.leads:
            if shared and (name := self._world.message()):
                self._write_shares(tensors, Path(name))
            return
        with explained(self.folder), self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            state.metrics_bytes = file.tell()
        state.chain_bytes = _length(self.chain.path)  # what is in it is on the disk
        target = self.checkpoint(state.step)
        if target.exists():
            self._world.message("") if shared else None
        else:
            with scratch_folder(self.checkpoints) as folder, explained(folder):
                if shared:
                    self._write_shares(tensors, Path(self._world.message(str(folder))))
                else:
                    for group, named in tensors.items():
                        save_tensors(named, folder / f"{group}.safetensors")
                write_json(folder / "state.json", asdict(state))
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                digests = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
                write_json(folder / "manifest.json", digests)
                publish(folder, target)
        self._retain(state)

    def _write_shares(self, tensors: Tensors, folder: Path) -> None:
        from danlu.train.shards import save_shards

        for group, named in tensors.items():
            save_shards(named, folder / group)

    def restore(self, engine: Restored) -> State:
        """Let an engine go back to the newest complete checkpoint, or to the start where there is none.

        A checkpoint that is damaged, or refers to a best one that is, is named, set aside, and the one before it used.

        Returns:
            The state; metrics.jsonl is cut to what it was then.
        """
        (found,) = self._world.told([self._last_whole() if self._world.leads else 0])
        state = State()
        if found >= 0:
            state = self.state(int(found))
            engine.load(_tensors(self.checkpoint(int(found))))
        if self._world.leads:
            self._cut_back(state)
        return state

    def _last_whole(self) -> int:
        """The step of the newest checkpoint that is whole; -1: there is none."""
        for folder in self._newest_first():
            try:
                self._check(folder)
            except CorruptError as error:
                self.progress.note(
                    f"{folder.name} is damaged ({error.what}: {error.where}); going back to the one before"
                )
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                with explained(aside):
                    folder.rename(aside)
                continue
            return int(folder.name.removeprefix("step-"))
        return -1

    def _cut_back(self, state: State) -> None:
        """Drop what was reported after the checkpoint, and a line that a crash cut short."""
        with explained(self.folder), self.metrics.open("ab") as file:
            file.truncate(state.metrics_bytes)
        with explained(self.folder), self.chain.path.open("ab") as file:
            file.truncate(state.chain_bytes)
        with explained(self.folder), self.timing.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        if self._events:
            self._events.rewrite(self.folder, state.step)

    def read(self, step: int) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of the checkpoint of a step.

        Raises:
            CorruptError: The checkpoint is damaged or gone.
        """
        folder = self.checkpoint(step)
        try:
            _check(folder)
        except CorruptError as error:
            error.advice = "run the same command again: it goes back to a checkpoint that is whole"
            raise
        return _tensors(folder)

    def begin(self, facts: Mapping[str, Any], step: int) -> None:
        """Write into the chain how the run begins, or where it goes on, in what other order from now on.

        Args:
            facts: ``weights``, ``order_root``, ``n_steps`` and ``commitments``, as in :mod:`danlu.core.chain`.
            step: Where the run stands; 0, unless an earlier danlu, which kept no chain, began it.

        Raises:
            CorruptError: The chain is broken, or the seeds are not those that it committed to.
        """
        if not self._world.leads:
            return
        before = self.chain.entries(growing=True)
        if not before:
            self.chain.append({"event": "begun", "step": step, **facts})
            return
        if before[0]["commitments"] != facts["commitments"]:
            advice = "restore seeds.json from a copy, or move the run's folder away to begin anew"
            raise CorruptError("these are not the seeds that the run began with", where=str(self.folder), advice=advice)
        plan = {name: facts[name] for name in ("order_root", "n_steps")}
        planned = next(entry for entry in reversed(before) if "order_root" in entry)
        if any(planned[name] != value for name, value in plan.items()):
            self.chain.append({"event": "changed", "step": step, **plan})

    def enter(self, state: State, rate: float, scores: Mapping[str, float]) -> None:
        """Write a checkpoint that was evaluated into the chain.

        Args:
            state: Where the run stands; its losses begin to be summed anew.
            rate: The learning rate of the last step.
            scores: What the evaluation found.
        """
        if self._world.leads:
            facts = {
                "event": "checkpoint",
                "step": state.step,
                "files": read_json(self.checkpoint(state.step) / "manifest.json"),
                "loss": state.chain_loss / state.chain_count if state.chain_count else None,
                "learning_rate": rate,
                "valid": dict(scores),
                "metrics": sha256_file(self.metrics),
            }
            self.chain.append(facts)
        state.chain_loss, state.chain_count = 0.0, 0

    def end(self, step: int, kept: int, weights: str) -> None:
        """Write into the chain that the run has ended: at which step, of which step the weights were kept, their root.

        The model's own file holds these weights under its own names, adapters folded in.
        """
        self.chain.append({"event": "ended", "step": step, "kept": kept, "weights": weights})

    def state(self, step: int) -> State:
        """Where the run stood at the checkpoint of a step."""
        return State(**read_json(self.checkpoint(step) / "state.json"))

    def report(self, **facts: Any) -> None:
        """Append one line to metrics.jsonl."""
        self._append(self.metrics, facts)

    def report_timing(self, **facts: Any) -> None:
        """Append one line to timing.jsonl."""
        self._append(self.timing, facts)

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.checkpoints / f"step-{step:08d}"

    def holds(self, step: int, digests: Mapping[str, str]) -> bool:
        """Whether the checkpoint of a step is here, and its files are the ones with these digests."""
        folder = self.checkpoint(step)
        return all((folder / name).is_file() and sha256_file(folder / name) == digests[name] for name in digests)

    def _append(self, path: Path, facts: Mapping[str, Any]) -> None:
        if not self._world.leads:
            return
        with explained(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        if self._events:
            self._events.add(facts)

    def _check(self, folder: Path) -> None:
        """Compare a checkpoint, and what it refers to, with their digests."""
        _check(folder)
        state = State(**read_json(folder / "state.json"))
        if state.best_step is not None:
            _check(self.checkpoint(state.best_step))
        for path, length in ((self.metrics, state.metrics_bytes), (self.chain.path, state.chain_bytes)):
            if length > _length(path):
                raise CorruptError(f"{path.name} has lost lines that were there", where=str(path))

    def _newest_first(self) -> Iterator[Path]:
        found = self.checkpoints.glob("step-*") if self.checkpoints.exists() else []
        return iter(sorted((p for p in found if re.fullmatch(r"step-\d{8}", p.name)), reverse=True))

    def _retain(self, state: State) -> None:
        best = None if state.best_step is None else self.checkpoint(state.best_step)
        every = self._config.keep_every
        passing = [folder for folder in self._newest_first() if folder != best]
        for folder in passing[self._config.keep_last :]:
            if every is None or int(folder.name.removeprefix("step-")) % every:
                with explained(folder):
                    shutil.rmtree(folder)


def _length(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _check(folder: Path) -> None:
    """Compare every file of a checkpoint with its digest."""
    if not (folder / "manifest.json").is_file():
        raise CorruptError("its manifest is missing", where=str(folder))
    for name, digest in read_json(folder / "manifest.json").items():
        if not (folder / name).is_file():
            raise CorruptError(f"{name} is missing", where=str(folder))
        if sha256_file(folder / name) != digest:
            raise CorruptError(f"{name} is not what was written", where=str(folder))


def _tensors(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    shared = {}
    for path in folder.iterdir():
        if path.is_dir():
            from danlu.train.shards import load_shards

            shared[path.name] = load_shards(path)
    return shared | {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
