"""Opening what a run committed to, and doing a part of it again, to compare bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, DivergedError, UsageError
from danlu.core.files import explained, scratch_folder
from danlu.core.progress import Progress, Silent
from danlu.core.workspace import Workspace
from danlu.model.weights import weights_root
from danlu.train.checkpoint import Run, State
from danlu.train.engine import Engine
from danlu.train.loop import advance
from danlu.train.past import PastRun
from danlu.train.prepare import Prepared, Score, Start

__all__ = ["Reopened", "Replayed", "drawn_segments", "reopened", "replay"]


@dataclass(frozen=True)
class Reopened:
    """The beginning of a run, made again from its seeds.

    Attributes:
        prepared: The run, ready to take its first step: ``prepared.module`` has the initial weights, and
            ``prepared.seeds`` the seeds.
        commitments: Whether the seeds are those that the chain and the manifest committed to.
        weights: Whether the initial weights are those of the chain's first entry.
        order: Whether the order of the records is the one that the chain says.
        elsewhere: What differs between the machine of the run and this one, in words ("torch 2.8.0, here 2.9.0").
            Drawn weights are the same everywhere; of token vectors from co-occurrences the last digits may not be.
    """

    prepared: Prepared
    commitments: bool
    weights: bool
    order: bool
    elsewhere: tuple[str, ...]


@dataclass(frozen=True)
class Replayed:
    """A segment of a run that was trained again.

    Attributes:
        line: The number of the chain's line (1, 2, ...) with which the segment ends.
        begin: The step at which the segment begins,
        end: and the one at which it ends.
        restored: The step that the replay began at: ``begin`` where that checkpoint was kept, otherwise an earlier one.
        files: For each file of the checkpoint at the end (``model.safetensors``, ``optimizer.safetensors`` ...):
            whether it came out with the digest that the chain has.
        told: Whether losses, learning rate, validation scores and metrics.jsonl came out as the chain has them.
        kept: Whether the weights that the chain says were kept came out, where they were those of this checkpoint;
            None: they were those of another.
        elsewhere: What differs between the machine of the run and this one, in words ("torch 2.8.0, here 2.9.0"). Where
            there is something, a difference proves nothing.
    """

    line: int
    begin: int
    end: int
    restored: int
    files: dict[str, bool]
    told: bool
    kept: bool | None
    elsewhere: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether all of it came out bit for bit."""
        return self.told and self.kept is not False and all(self.files.values())


def reopened(
    workspace: Workspace, model: Artifact, seeds: Path | None = None, start: Start | None = None
) -> Reopened | str:
    """Make the beginning of a finished model's run again, and compare it with what the run committed to.

    Args:
        workspace: Where the dataset and, if no seeds are given, the run's folder are.
        model: An artifact of kind ``model`` or ``pretrained``.
        seeds: The run's ``seeds.json``; None: the one in the run's folder.
        start: The checkpoint that the model started from, where that is no artifact of the workspace.

    Returns:
        What came of it, each commitment judged separately; or in a sentence why it cannot be made again: seeds,
        dataset or the checkpoint to start from are not here.

    Raises:
        CorruptError: A file is damaged, the chain of the run among them.
    """
    past = PastRun.find(workspace, model, seeds, start)
    if isinstance(past, str):
        return past
    with scratch_folder(workspace.runs) as folder:
        return _reopened(past, folder, _judges_nothing)


def replay(
    workspace: Workspace,
    model: Artifact,
    n: int,
    score: Score,
    progress: Progress,
    seeds: Path | None = None,
    start: Start | None = None,
) -> list[Replayed]:
    """Train n segments of a run again, each from one checkpoint of its chain to the next, and compare the bytes.

    The segments are drawn by the last hash of the chain, so that nobody chose them. Each is trained from the nearest
    checkpoint before it that was kept in the run's folder (``train.keep_checkpoints``), or from the start, which
    follows from the seeds. The run's own folder is only read.

    Args:
        workspace: Where the dataset and the run's folder are.
        model: An artifact of kind ``model`` or ``pretrained``.
        n: How many segments; all of them where there are fewer.
        score: Judges a classifier on the validation split.
        progress: Told which segments were drawn, how many steps that takes, and of every step.
        seeds: The run's ``seeds.json``; None: the one in the run's folder.
        start: The checkpoint that the model started from, where that is no artifact of the workspace.

    Returns:
        What came of each segment, the earliest first.

    Raises:
        UsageError: n is not positive; or the run cannot be done again here: its seeds or data are not here, it was
            trained by several processes or on a GPU, or went on with another recipe half way.
        CorruptError: A file is damaged, or seeds, initial weights or order are not what the chain committed to.
    """
    if n < 1:
        raise UsageError(f"{n} segments cannot be trained again", where="replay", advice="give 1 or more")
    past = PastRun.find(workspace, model, seeds, start)
    if reason := past if isinstance(past, str) else past.unrepeatable():
        advice = "what was written down can still be checked: danlu verify without replay"
        raise UsageError(f"no part of the run can be done again: {reason}", where=str(model.path), advice=advice)
    assert not isinstance(past, str)
    wanted = drawn_segments(past.chain.head, n, len(past.chain.checkpoints))
    parts: dict[int, list[int]] = {}
    for segment in wanted:
        parts.setdefault(_restorable(past, segment, progress), []).append(segment)
    checkpoints = past.chain.checkpoints
    n_steps = sum(checkpoints[part[-1]]["step"] - begin for begin, part in parts.items())
    shown = ", ".join(f"{past.begin(segment)}-{checkpoints[segment]['step']}" for segment in wanted)
    progress.note(f"drawn by the chain's last hash: steps {shown}; {n_steps:,} steps are to be trained for that")
    found: list[Replayed] = []
    with _threads(int(past.machines[0]["n_threads"])):
        for begin, part in parts.items():
            with scratch_folder(workspace.runs) as folder:
                found += _Replay(past, folder, score, progress).segments(begin, part)
    return found


def drawn_segments(head: str, n: int, n_segments: int) -> list[int]:
    """Which segments (0, 1, ...) are trained again: n different ones, in order.

    The i-th is drawn from those left by SHA-256(last hash ‖ i) modulo their number: whoever wrote the chain could not
    choose them without writing another one (Fiat & Shamir, 1986).

    Args:
        head: The last hash of the chain, in hexadecimal.
        n: How many.
        n_segments: How many there are.
    """
    left = list(range(n_segments))
    drawn = []
    for counter in range(min(n, n_segments)):
        number = int.from_bytes(hashlib.sha256(bytes.fromhex(head) + str(counter).encode()).digest())
        drawn.append(left.pop(number % len(left)))
    return sorted(drawn)


def _reopened(past: PastRun, folder: Path, score: Score) -> Reopened:
    """The beginning of a run, made again in an empty folder."""
    prepared = past.prepared(folder, score)
    begun, planned = past.chain.start, past.chain.planned
    committed = prepared.seeds.commitments()
    return Reopened(
        prepared=prepared,
        commitments=committed == begun["commitments"] == past.model.manifest["commitments"],
        weights=weights_root(prepared.module.state_dict()) == begun["weights"],
        order=(prepared.feed.order_root, prepared.feed.n_steps) == (planned["order_root"], planned["n_steps"]),
        elsewhere=past.elsewhere,
    )


def _restorable(past: PastRun, segment: int, progress: Progress) -> int:
    """The last step, not after the beginning of a segment, at which its run can be taken up again."""
    run = Run(past.folder, Silent())
    for entry in reversed(past.chain.checkpoints[:segment]):
        step = int(entry["step"])
        if run.holds(step, entry["files"]):
            return step
        if run.checkpoint(step).exists():
            progress.note(f"the checkpoint of step {step} is not what the chain says; it is left aside")
    return 0


class _Replay:
    """A part of a run, trained again in a folder of its own.

    Args:
        past: The run.
        folder: The folder, empty.
        score: As for :func:`replay`.
        progress: Told of every step.

    Raises:
        CorruptError: Seeds, initial weights or order are not what the chain committed to.
    """

    def __init__(self, past: PastRun, folder: Path, score: Score, progress: Progress) -> None:
        self._past, self._progress = past, progress
        found = _reopened(past, folder, score)
        right = {"seeds": found.commitments, "initial weights": found.weights, "order of the records": found.order}
        if wrong := [what for what, holds in right.items() if not holds]:
            where, differs = str(past.model.path), "; ".join(found.elsewhere)
            advice = f"this may come of another machine: {differs}" if differs else "the model is not what it says"
            raise CorruptError(f"not what the run committed to: {', '.join(wrong)}", where=where, advice=advice)
        self._engine = Engine(found.prepared)
        self._run = Run(folder, progress, found.prepared.config)

    def segments(self, begin: int, wanted: list[int]) -> list[Replayed]:
        """Train from a step that can be restored to the end of the last of some segments."""
        state = self._restore(begin)
        found = []
        for segment in wanted:
            expected = self._past.chain.checkpoints[segment]
            with suppress(DivergedError):  # then there is no such checkpoint, which is what is told
                advance(self._engine, self._run, state, self._progress, until=expected["step"])
            found.append(self._compared(expected, begin, segment, state))
        return found

    def _compared(self, expected: dict[str, Any], begin: int, segment: int, state: State) -> Replayed:
        """What came of a segment, beside what the chain says of it."""
        entries = self._run.chain.entries()
        made: dict[str, Any] = next(
            (entry for entry in entries[1:] if entry["step"] == expected["step"]), {"files": {}}
        )
        told = ("loss", "learning_rate", "valid", "metrics")
        end, kept = self._past.chain.end, None
        if end["kept"] == expected["step"]:
            with self._engine.judged() as model:
                kept = state.step == end["kept"] and weights_root(model.state_dict()) == end["weights"]
        return Replayed(
            line=expected["seq"] + 1,
            begin=self._past.begin(segment),
            end=expected["step"],
            restored=begin,
            files={name: made["files"].get(name) == digest for name, digest in expected["files"].items()},
            told=all(made.get(name) == expected[name] for name in told),
            kept=kept,
            elsewhere=self._past.elsewhere,
        )

    def _restore(self, step: int) -> State:
        """Put the engine where the run stood, and into the folder what the run had written by then."""
        run, past = self._run, self._past
        state = State()
        lines = (past.model.path / "chain.jsonl").read_bytes().splitlines(keepends=True)
        n_lines, metrics = 1, b""
        if step:
            kept = Run(past.folder, Silent())
            self._engine.load(kept.read(step))
            state = kept.state(step)
            n_lines = next(entry["seq"] for entry in past.chain.checkpoints if entry["step"] == step)
            metrics = (past.model.path / "metrics.jsonl").read_bytes()[: state.metrics_bytes]
        with explained(run.folder):
            run.chain.path.write_bytes(b"".join(lines[:n_lines]))
            run.metrics.write_bytes(metrics)
        return state


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """As many threads as the run had, while the block lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _judges_nothing(_labels: np.ndarray, _probabilities: np.ndarray) -> dict[str, float]:
    raise AssertionError("nothing is evaluated when a run is only reopened")
