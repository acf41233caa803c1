"""The record of a search, kept by Optuna: what was tried, what came of it, and what to try next.

tune/<name>-<key>/
  study.json     what went into the search and the commitments of its seeds, written before the first trial
  seeds.json     its secret seeds, readable by its owner only
  journal.log    Optuna's journal: one JSON line an event; Optuna's own tools read it (study ``tune``)
  trials/0003/   the run of the trial under way, as in ``runs/``; removed when the trial has ended

The values of a trial follow from the seed, its number, and what came of those before it; they are drawn from a copy of
the record and then written into the journal with the trial, in one line. So a search that was killed at any instant
goes on to the same trials.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from danlu.core.errors import UsageError
from danlu.core.files import explained
from danlu.core.seeds import Seeds
from danlu.tune.config import Range, Space, TuneConfig

__all__ = ["Attempt", "Study", "Tried", "require_optuna"]

State = Literal["complete", "pruned", "failed"]

_STUDY = "tune"
_DIGITS = {False: 4, True: 12}
"""Digits that a drawn number keeps, where it is free and where it is a number of steps above the lowest: no more than
can be typed, and the training gets what is shown."""
_ENOUGH = 8
"""Complete trials from which on it is said how much each value matters."""


@dataclass(frozen=True)
class Tried:
    """A trial that has ended.

    Attributes:
        number: 1, 2, 3, ...
        state: How it ended.
        values: dotted key -> the value that it was trained with.
        score: The best on the validation split, higher is better; None where there is none.
        curve: step and score of every evaluation.
        n_steps: Steps that its training was to have; None where it did not begin.
        why: Why it failed.
        same_as: An earlier trial with the same values, whose outcome it takes.
    """

    number: int
    state: State
    values: Mapping[str, Any]
    score: float | None
    curve: tuple[tuple[int, float], ...]
    n_steps: int | None
    why: str | None
    same_as: int | None


@dataclass(frozen=True)
class Attempt:
    """A trial under way.

    Attributes:
        number: 1, 2, 3, ...
        values: dotted key -> the value to train with.
        resumed: Whether another process began it.
    """

    number: int
    values: Mapping[str, Any]
    resumed: bool


class Study:
    """The record of a search, held by one process at a time (the caller holds its lock).

    Args:
        folder: The search's folder.
        space: What is searched.
        config: The sampler and the pruner.
        seeds: Seeds of the search; the ``sample`` stream is used here, a position a trial.

    Raises:
        UsageError: Optuna is not installed.
        DanluError: The folder may not be written to.
    """

    def __init__(self, folder: Path, space: Space, config: TuneConfig, seeds: Seeds) -> None:
        self._optuna = optuna = require_optuna()
        self._space = space
        self._distributions = {key: _distribution(optuna, dimension) for key, dimension in space.items()}
        self._config, self._seeds, self._journal = config, seeds, folder / "journal.log"
        pruner = optuna.pruners.NopPruner()
        if config.pruner == "median":
            pruner = optuna.pruners.MedianPruner(n_startup_trials=config.warmup_trials)
        with explained(self._journal):
            _drop_cut_line(self._journal)
            backend = optuna.storages.journal.JournalFileBackend(str(self._journal), lock_obj=_Held())
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=_STUDY,
                direction="maximize",
                load_if_exists=True,
                pruner=pruner,
                sampler=optuna.samplers.RandomSampler(seed=0),  # asked for nothing: see `_draw`
            )

    def tried(self) -> list[Tried]:
        """The trials that have ended, in order."""
        return [_tried(trial) for trial in self._ended()]

    def under_way(self) -> Attempt | None:
        """The trial that a process which was killed left behind."""
        running = self._study.get_trials(states=(self._optuna.trial.TrialState.RUNNING,))
        return _attempt(running[0], resumed=True) if running else None

    def begin(self, first: Mapping[str, Any] | None, *, repeatable: bool) -> Attempt | Tried:
        """The next trial.

        Args:
            first: The values of the first trial; None draws them like all others.
            repeatable: Whether the same values always give the same outcome, so that an earlier trial with them need
                not be done again.

        Returns:
            What to train; or what is known without.
        """
        ended = self._ended()
        number = len(ended) + 1
        values = first if number == 1 and first is not None else self._draw(number)
        params = {key: _param(self._space[key], values[key]) for key in self._space}
        what: dict[str, Any] = {"params": params, "distributions": self._distributions}
        twin = next((trial for trial in ended if repeatable and trial.params == params), None)
        if twin is None:
            return _attempt(self._add(**what, state=self._optuna.trial.TrialState.RUNNING), resumed=False)
        attributes = {"same_as": twin.number + 1, **twin.user_attrs}
        points = twin.intermediate_values
        added = self._add(**what, state=twin.state, value=twin.value, intermediate_values=points, user_attrs=attributes)
        return _tried(added)

    def report(self, attempt: Attempt, step: int, score: float) -> bool:
        """Write down the score of an evaluation.

        Evaluations are compared by their number: the first of one trial with the first of another, whose steps are of
        other sizes.

        Returns:
            Whether the trial is to be stopped.
        """
        frozen = self._study.get_trials(deepcopy=False)[attempt.number - 1]
        steps = list(frozen.user_attrs.get("steps", ()))
        trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
        with explained(self._journal):
            if step not in steps:
                steps.append(step)
                trial.set_user_attr("steps", steps)
            if steps.index(step) not in frozen.intermediate_values:
                trial.report(score, steps.index(step))
        return bool(trial.should_prune())

    def end(
        self,
        attempt: Attempt,
        state: State,
        *,
        score: float | None = None,
        n_steps: int | None = None,
        why: str | None = None,
    ) -> Tried:
        """Write down how a trial ended.

        Args:
            attempt: The trial.
            state: How.
            score: Of a complete one: its best score.
            n_steps: Steps that it was to have.
            why: Of a failed one: what went wrong.
        """
        states = self._optuna.trial.TrialState
        frozen = self._study.get_trials(deepcopy=False)[attempt.number - 1]
        trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
        with explained(self._journal):
            for name, value in (("n_steps", n_steps), ("why", why)):
                if value is not None:
                    trial.set_user_attr(name, value)
            told = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
            self._study.tell(trial, score if state == "complete" else None, state=told)
        return self.tried()[attempt.number - 1]

    def importances(self, n: int) -> dict[str, float] | None:
        """How much of what scores differ by each value explains alone: fANOVA (Hutter et al., 2014).

        Args:
            n: The first so many trials are looked at.

        Returns:
            dotted key -> share; they sum to 1. None where complete trials are too few, or all score the same.
        """
        ended = self._ended()[:n]
        scores = [trial.value for trial in ended if trial.state == self._optuna.trial.TrialState.COMPLETE]
        if len(scores) < _ENOUGH or len(set(scores)) < 2 or len(self._space) < 2:
            return None
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = self._optuna.importance.get_param_importances(self._copy(ended, 1), evaluator=evaluator)
        return {key: float(share) for key, share in found.items()}

    def _draw(self, number: int) -> dict[str, Any]:
        """The values of a trial."""
        copy = self._copy(self._ended(), number)
        drawn = copy.ask(self._distributions).params
        return {key: _value(self._space[key], drawn[key]) for key in self._space}

    def _copy(self, ended: list[Any], number: int) -> Any:
        """A copy of the record in memory, with the sampler of one trial."""
        samplers = self._optuna.samplers
        kind = samplers.TPESampler if self._config.sampler == "tpe" else samplers.RandomSampler
        seed = self._seeds.at("sample", _STUDY, number) >> 31  # 32 bits, as many as it takes
        copy = self._optuna.create_study(direction="maximize", sampler=kind(seed=seed))
        copy.add_trials(ended)
        return copy

    def _ended(self) -> list[Any]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def _add(self, **what: Any) -> Any:
        """Write a trial into the journal, in one line."""
        with explained(self._journal):
            self._study.add_trial(self._optuna.trial.create_trial(**what))
        return self._study.get_trials(deepcopy=False)[-1]


def require_optuna() -> ModuleType:
    """Optuna, which writes warnings to the log and nothing else.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UsageError("a search needs optuna, which is not installed", advice="pip install 'danlu[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    module: ModuleType = optuna
    return module


class _Held:
    """The lock of Optuna's journal: there is nothing to wait for, the search's own lock is held."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _drop_cut_line(journal: Path) -> None:
    """Drop a last line that a crash cut short: what it told of had not happened yet."""
    with journal.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        os.fsync(file.fileno())


def _distribution(optuna: ModuleType, dimension: Range | tuple[Any, ...]) -> Any:
    if not isinstance(dimension, Range):
        return optuna.distributions.CategoricalDistribution([json.dumps(value) for value in dimension])
    if dimension.whole:
        bounds = (dimension.low, dimension.high)
        return optuna.distributions.IntDistribution(*bounds, log=dimension.log, step=dimension.step or 1)
    low, high, step = dimension.low, dimension.high, dimension.step
    return optuna.distributions.FloatDistribution(float(low), float(high), log=dimension.log, step=step)


def _param(dimension: Range | tuple[Any, ...], value: Any) -> Any:
    """A value as Optuna keeps it: choices, which may be anything, as JSON."""
    if not isinstance(dimension, Range):
        return json.dumps(value)
    return int(value) if dimension.whole else float(value)


def _value(dimension: Range | tuple[Any, ...], param: Any) -> Any:
    """A value from what Optuna drew."""
    if not isinstance(dimension, Range):
        return json.loads(param)
    if dimension.whole:
        return int(param)
    rounded = float(f"{param:.{_DIGITS[dimension.step is not None]}g}")
    return min(max(rounded, float(dimension.low)), float(dimension.high))


def _values(trial: Any) -> dict[str, Any]:
    """The values that a trial is trained with."""
    return {key: json.loads(param) if isinstance(param, str) else param for key, param in trial.params.items()}


def _attempt(trial: Any, *, resumed: bool) -> Attempt:
    return Attempt(trial.number + 1, _values(trial), resumed)


def _tried(trial: Any) -> Tried:
    state: State = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state.name]  # type: ignore[assignment]
    told = trial.user_attrs
    points = [trial.intermediate_values[place] for place in sorted(trial.intermediate_values)]
    curve = tuple(zip(told.get("steps", ()), points, strict=True))
    return Tried(
        number=trial.number + 1,
        state=state,
        values=_values(trial),
        score=None if state == "failed" else max(points, default=None),
        curve=curve,
        n_steps=told.get("n_steps"),
        why=told.get("why"),
        same_as=told.get("same_as"),
    )
