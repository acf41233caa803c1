"""A training run on disk: checkpoints that are complete or absent, and curves that agree with them.

runs/<name>-<key>/
  run.json         config, parents and seed commitments, written before step 0
  seeds.json       the run's secret seeds, readable by its owner only
  metrics.jsonl    one line a report; nothing in it depends on the clock, so the same run gives the same bytes
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
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from danlu.core.errors import CorruptError
from danlu.core.files import explained, publish, read_json, scratch_folder, sha256_file, write_json
from danlu.core.progress import Progress
from danlu.model.weights import save_tensors
from danlu.train.tensorboard import EventFile

__all__ = ["Run", "State"]

_KEEP = 2
"""Checkpoints kept besides the best one: the last, and the one before in case the last is damaged."""


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
        metrics_bytes: Length of metrics.jsonl at this point.
    """

    step: int = 0
    evaluated: int = 0
    best_step: int | None = None
    best_score: float | None = None
    n_worse: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    metrics_bytes: int = 0


class Run:
    """The folder of one run, held by one process at a time (the caller holds its lock).

    Args:
        folder: The run's folder.
        progress: Told when a damaged checkpoint is passed over.
        tensorboard: Whether the curves are also written for TensorBoard.
    """

    def __init__(self, folder: Path, progress: Progress, *, tensorboard: bool = False) -> None:
        self.folder = folder
        self.progress = progress
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.timing = folder / "timing.jsonl"
        self._events = EventFile(folder) if tensorboard else None

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
        """Write a checkpoint of this moment, then drop those that are no longer needed.

        Raises:
            DanluError: The disk is full or may not be written to; earlier checkpoints are intact.
        """
        with explained(self.folder), self.metrics.open("ab") as file:
            os.fsync(file.fileno())
            state.metrics_bytes = file.tell()
        target = self._folder(state.step)
        if not target.exists():
            with scratch_folder(self.checkpoints) as folder, explained(folder):
                save_tensors(model.state_dict(), folder / "model.safetensors")
                save_tensors(_optimizer_tensors(model, optimizer), folder / "optimizer.safetensors")
                write_json(folder / "state.json", asdict(state))
                write_json(folder / "manifest.json", {path.name: sha256_file(path) for path in folder.iterdir()})
                publish(folder, target)
        self._retain(state)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        """Go back to the newest complete checkpoint, or to the start where there is none.

        A checkpoint that is damaged, or refers to a best one that is, is named, set aside, and the one before it used.

        Returns:
            The state; metrics.jsonl is cut to what it was then.
        """
        for folder in self._newest_first():
            try:
                state = self._read(folder, model, optimizer)
            except CorruptError as error:
                self.progress.note(
                    f"{folder.name} is damaged ({error.what}: {error.where}); going back to the one before"
                )
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                continue
            break
        else:
            state = State()
        with explained(self.folder), self.metrics.open("ab") as file:
            file.truncate(state.metrics_bytes)
        with explained(self.folder), self.timing.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a line that a crash cut short
        if self._events:
            self._events.rewrite(self.folder, state.step)
        return state

    def load_weights(self, step: int, model: nn.Module) -> None:
        """Load the weights of one checkpoint.

        Raises:
            CorruptError: The checkpoint is damaged or gone.
        """
        folder = self._folder(step)
        try:
            _check(folder)
        except CorruptError as error:
            error.advice = "run the same command again: it goes back to a checkpoint that is whole"
            raise
        model.load_state_dict(load_file(folder / "model.safetensors"))

    def report(self, **facts: Any) -> None:
        """Append one line to metrics.jsonl."""
        self._append(self.metrics, facts)

    def report_timing(self, **facts: Any) -> None:
        """Append one line to timing.jsonl."""
        self._append(self.timing, facts)

    def _folder(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def _append(self, path: Path, facts: Mapping[str, Any]) -> None:
        with explained(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        if self._events:
            self._events.add(facts)

    def _read(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        _check(folder)
        state = State(**read_json(folder / "state.json"))
        if state.best_step is not None:
            _check(self._folder(state.best_step))
        if state.metrics_bytes > (self.metrics.stat().st_size if self.metrics.exists() else 0):
            raise CorruptError("metrics.jsonl has lost lines that were there", where=str(self.metrics))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        _restore_optimizer(model, optimizer, load_file(folder / "optimizer.safetensors"))
        return state

    def _newest_first(self) -> Iterator[Path]:
        found = self.checkpoints.glob("step-*") if self.checkpoints.exists() else []
        return iter(sorted((p for p in found if re.fullmatch(r"step-\d{8}", p.name)), reverse=True))

    def _retain(self, state: State) -> None:
        best = None if state.best_step is None else self._folder(state.best_step)
        for folder in [f for f in self._newest_first() if f != best][_KEEP:]:
            shutil.rmtree(folder)


def _check(folder: Path) -> None:
    """Compare every file of a checkpoint with its digest."""
    if not (folder / "manifest.json").is_file():
        raise CorruptError("its manifest is missing", where=str(folder))
    for name, digest in read_json(folder / "manifest.json").items():
        if not (folder / name).is_file():
            raise CorruptError(f"{name} is missing", where=str(folder))
        if sha256_file(folder / name) != digest:
            raise CorruptError(f"{name} is not what was written", where=str(folder))


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{slot}": tensor
        for parameter, slots in optimizer.state.items()
        for slot, tensor in slots.items()
    }


def _restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        optimizer.state[parameters[name]][slot] = tensor.to(parameters[name].device)
