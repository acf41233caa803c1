"""The search: one trial after another until there are enough, from wherever it was interrupted."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.core.errors import DivergedError, UsageError
from danlu.core.files import explained
from danlu.core.progress import Progress
from danlu.tune.study import Attempt, Study, Tried
from danlu.tune.trial import Outcome, Watch

__all__ = ["Search", "best_of"]

Train = Callable[[Mapping[str, Any], Path, Watch, Progress], Outcome]
"""Trains with some values, in a folder of its own; errors as of :func:`danlu.tune.trial.try_training`."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search to be carried out.

    Attributes:
        study: Its record.
        folder: Where the run of the trial under way is.
        n_trials: How many trials it is to have.
        first: The values of the first trial, the recipe's own; None where the space does not hold them.
        repeatable: Whether the same values always give the same outcome.
        train: Trains with some values.
    """

    study: Study
    folder: Path
    n_trials: int
    first: Mapping[str, Any] | None
    repeatable: bool
    train: Train

    def run(self, progress: Progress) -> list[Tried]:
        """Carry it out.

        Returns:
            The trials, those of earlier processes included.

        Raises:
            DanluError: A trial could not be done for a reason that is not in its values, such as a full disk; the same
                command goes on from there.
        """
        tried = self.study.tried()[: self.n_trials]
        if tried:
            progress.note(f"{len(tried)} of {self.n_trials} trials are there already")
        while len(tried) < self.n_trials:
            started = time.monotonic()
            ended = self._next(progress)
            tried.append(ended)
            progress.note(_told(ended, best_of(tried), time.monotonic() - started))
        return tried

    def _next(self, progress: Progress) -> Tried:
        attempt = self.study.under_way() or self.study.begin(self.first, repeatable=self.repeatable)
        if isinstance(attempt, Tried):
            return attempt
        if attempt.resumed:
            progress.note(f"trial {attempt.number} was interrupted and goes on")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a trial that had ended when its process was killed
        folder = self.folder / f"{attempt.number:04d}"
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        ended = self._carry_out(attempt, folder, _TrialProgress(progress, f"trial {attempt.number} of {self.n_trials}"))
        shutil.rmtree(self.folder)
        return ended

    def _carry_out(self, attempt: Attempt, folder: Path, progress: Progress) -> Tried:
        def watch(step: int, score: float) -> bool:
            return self.study.report(attempt, step, score)

        try:
            outcome = self.train(attempt.values, folder, watch, progress)
        except (DivergedError, UsageError) as error:
            return self.study.end(attempt, "failed", why=error.what)
        if outcome.score is None:
            return self.study.end(attempt, "pruned", n_steps=outcome.n_steps)
        return self.study.end(attempt, "complete", score=outcome.score, n_steps=outcome.n_steps)


class _TrialProgress:
    """What is told of a trial while it is under way: how far it is, and nothing that stays."""

    def __init__(self, progress: Progress, which: str) -> None:
        self._progress, self._which = progress, which

    def stage(self, title: str) -> None:
        """Say nothing."""

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """So much of it is done."""
        self._progress.update(done, total, " · ".join(part for part in (self._which, what) if part), facts)

    def note(self, text: str) -> None:
        """Say nothing."""


def best_of(tried: Sequence[Tried]) -> Tried | None:
    """The complete trial with the highest score, the first of several; None where none is complete."""
    complete = [trial for trial in tried if trial.state == "complete"]
    return max(complete, key=lambda trial: -math.inf if trial.score is None else trial.score, default=None)


def _told(trial: Tried, best: Tried | None, seconds: float) -> str:
    """A trial in a line."""
    values = " · ".join(f"{key} {value}" for key, value in trial.values.items())
    if trial.state == "failed":
        came = f"failed: {trial.why}"
    elif trial.state == "pruned":
        step, score = trial.curve[-1]
        came = f"pruned at step {step} of {trial.n_steps}, score {score:.4f}"
    else:
        came = f"score {trial.score:.4f}"
    took = f"{seconds:.0f} s" if trial.same_as is None else f"as trial {trial.same_as}, with the same values"
    so_far = "" if best is None else f"; best so far {best.score:.4f} (trial {best.number})"
    return f"trial {trial.number}: {values} → {came} ({took}){so_far}"
