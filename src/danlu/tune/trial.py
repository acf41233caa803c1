"""One trial: the training that the recipe would do, watched from evaluation to evaluation, of which nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from danlu.core.progress import Progress
from danlu.train.checkpoint import Run
from danlu.train.loop import fit
from danlu.train.prepare import Material
from danlu.train.tasks import TRAINING

__all__ = ["Outcome", "Watch", "try_training"]

Watch = Callable[[int, float], bool]
"""Told the step and the score of every evaluation; whether the training is to be stopped."""


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        n_steps: Steps that it was to have.
        score: The best score on the validation split; None where it was stopped.
    """

    n_steps: int
    score: float | None


class _StopTraining(Exception):  # noqa: N818 (nothing is wrong)
    """The training was told to stop."""


class _WatchedRun(Run):
    """A run whose evaluations are told as they are written down."""

    def __init__(self, material: Material, n_steps: int, watch: Watch) -> None:
        assert material.folder is not None
        super().__init__(material.folder, material.progress, material.spec.train)
        self._n_steps, self._watch = n_steps, watch

    def report(self, **facts: Any) -> None:
        """Append one line to metrics.jsonl, and tell of an evaluation."""
        super().report(**facts)
        if "valid" in facts:
            stop = self._watch(facts["step"], facts["valid"]["score"])
            if stop and facts["step"] < self._n_steps:
                raise _StopTraining


def try_training(material: Material, watch: Watch, progress: Progress) -> Outcome:
    """Train from the last checkpoint in the material's folder, or from the start, until it ends or is stopped.

    Args:
        material: What to train; its test split is not touched.
        watch: Told of every evaluation. One that was told of before its process was killed may be told of again.
        progress: Told of every step.

    Raises:
        DivergedError: The loss or a gradient is not finite.
        UsageError: The sizes do not fit each other.
        DanluError: The disk is full.
    """
    prepared = TRAINING[material.spec.task].prepare(material)
    n_steps = prepared.feed.n_steps
    try:
        fitted = fit(prepared, _WatchedRun(material, n_steps, watch), progress)
    except _StopTraining:
        return Outcome(n_steps, None)
    return Outcome(n_steps, fitted.best_score)
