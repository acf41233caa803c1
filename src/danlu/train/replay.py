"""Opening what a run committed to, and doing a part of it again, to compare bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from danlu.core.artifact import Artifact
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.train.prepare import Prepared, Score, Start

__all__ = ["Reopened", "Replayed", "reopened", "replay"]


@dataclass(frozen=True)
class Reopened:
    """The beginning of a run, made again from its seeds.

    Attributes:
        prepared: The run, ready to take its first step: ``prepared.module`` has the initial weights, and
            ``prepared.seeds`` the seeds.
        commitments: Whether the seeds are those that the chain and the manifest committed to.
        weights: Whether the initial weights are those of the chain's first entry.
        order: Whether the order of the records is the one that the chain says.
    """

    prepared: Prepared
    commitments: bool
    weights: bool
    order: bool


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
            there is something, a difference in the last digits proves nothing.
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
    workspace: Workspace,
    model: Artifact,
    score: Score,
    seeds: Path | None = None,
    start: Start | None = None,
) -> Reopened | str:
    """Make the beginning of a finished model's run again, and compare it with what the run committed to.

    Args:
        workspace: Where the dataset and, if no seeds are given, the run's folder are.
        model: An artifact of kind ``model`` or ``pretrained``.
        score: Judges a classifier on the validation split.
        seeds: The run's ``seeds.json``; None: the one in the run's folder.
        start: The checkpoint that the model started from, where that is no artifact of the workspace.

    Returns:
        What came of it, each commitment judged separately; or in a sentence why it cannot be made again: seeds,
        dataset or the checkpoint to start from are not here.

    Raises:
        CorruptError: A file is damaged, the chain of the run among them.
    """
    raise NotImplementedError


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

    The segments are drawn by the last hash of the chain, so that nobody chose them: SHA-256(last hash ‖ counter). Each
    is trained from the nearest checkpoint before it that was kept in the run's folder (``train.keep_checkpoints``), or
    from the start, which follows from the seeds. The run's own folder is only read.

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
    raise NotImplementedError
