"""The search that a recipe asks for: its space is checked, trials are trained, what came of them is written down."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError, UsageError
from danlu.core.files import digest_of, lock, read_json, write_json
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.token_store import TokenStore
from danlu.evaluate.stage import validation_scores
from danlu.pipeline import Job
from danlu.recipe import Loaded, over
from danlu.report.stage import write_tuning
from danlu.train.prepare import Material
from danlu.train.stage import pretrain_model
from danlu.tune.config import Choices, Range
from danlu.tune.search import Search, best_of
from danlu.tune.space import default_space, value_at, with_types, word
from danlu.tune.study import Study, Tried, require_optuna
from danlu.tune.trial import Outcome, Watch, try_training

__all__ = ["Tuning", "tune"]

_SCRATCH = ("trials", "runs", "artifacts", "tokens")
"""What a search needs while it is under way: the trial's run, and pre-trainings that are not the recipe's own."""


def tune(job: Job) -> Artifact:
    """Search for values with which the recipe's own model does better on the validation split.

    Returns:
        An artifact of kind ``tuning`` with ``trials.json`` and ``tune.html``. The test split had no part in it.

    Raises:
        UsageError: Optuna is not installed, or the recipe refuses a value of the space.
        BusyError: Another process is at work on this very search.
        DanluError: No trial came to its end, or a stage failed; the same command goes on from there.
    """
    require_optuna()
    if job.recipe.train.processes > 1:
        raise UsageError("trials are trained in one process", where="train.processes", advice="leave it out")
    tuning = Tuning(job)
    config, space, progress = job.recipe.tune, tuning.space, job.progress
    dataset, folder = job.dataset, tuning.folder
    progress.stage(f"tune: {job.recipe.model.family} on {dataset.path.name}, {config.trials} trials")
    with lock(folder / "lock", holder=f"the search {folder.name}"):
        seeds = tuning.begin()
        study = Study(folder, space, config, seeds)
        tried = Search(
            study=study,
            folder=folder / "trials",
            n_trials=config.trials,
            first=tuning.first,
            repeatable=job.recipe.seed is not None,
            train=tuning.train,
        ).run(progress)
        for name in _SCRATCH:
            shutil.rmtree(folder / name, ignore_errors=True)
        facts = tuning.facts(tried, study.importances(config.trials))
    return write_tuning(
        job.workspace,
        facts,
        key=digest_of({"search": tuning.key, "trials": config.trials}),
        config=tuning.what,
        parents=tuning.parents,
        commitments=seeds.commitments(),
        progress=progress,
    )


@dataclass(frozen=True)
class Tuning:
    """What a search works on: the recipe with the length of a trial, and the values that are searched."""

    job: Job

    @cached_property
    def loaded(self) -> Loaded:
        """The recipe of a trial, but for the values that are searched."""
        config = self.job.recipe.tune
        said = (("train.epochs", config.epochs), ("train.max_steps", config.max_steps))
        return over(self.job.loaded, [word(key, n) for key, n in said if n is not None], self.job.workspace)

    @cached_property
    def space(self) -> dict[str, Range | Choices]:
        """What is searched, every value as the recipe reads it.

        Raises:
            UsageError: The recipe refuses a value.
        """
        recipe = self.loaded.recipe
        space = recipe.tune.space or default_space(recipe.model, recipe.train)

        def read(key: str, value: Any) -> dict[str, Any]:
            return over(self.loaded, [word(key, value)], self.job.workspace).recipe.plain()

        return with_types(space, read, self.job.loaded.resolved.origins)

    @cached_property
    def own(self) -> dict[str, Any]:
        """The recipe's own values of what is searched."""
        plain = self.loaded.recipe.plain()
        return {key: value_at(plain, key) for key in self.space}

    @property
    def first(self) -> dict[str, Any] | None:
        """The values of the first trial: the recipe's own, where the space holds them."""
        held = (
            dimension.holds(self.own[key]) if isinstance(dimension, Range) else self.own[key] in dimension
            for key, dimension in self.space.items()
        )
        return self.own if all(held) else None

    @cached_property
    def what(self) -> dict[str, Any]:
        """Everything that decides the trials: what is searched stands here only in the space and the first trial."""
        config = self.job.recipe.tune
        spec, _ = self.job.work(self.loaded)
        space = {key: _plain(dimension) for key, dimension in self.space.items()}
        chosen = {"sampler": config.sampler, "pruner": config.pruner, "warmup_trials": config.warmup_trials}
        return {"recipe": _without(spec.made(), self.space), "space": space, "first": self.first, **chosen}

    @cached_property
    def parents(self) -> dict[str, str]:
        """What the search is made from."""
        _, sources = self.job.work(self.loaded)
        return {"dataset": self.job.dataset.digest} | sources.parents

    @cached_property
    def key(self) -> str:
        """Digest of all that: the same search is found again by it, whatever the number of trials."""
        return digest_of({"kind": "tuning", "config": self.what, "parents": self.parents})

    @property
    def folder(self) -> Path:
        """Where the search keeps its record."""
        return self.job.workspace.root / "tune" / f"{self.job.recipe.name}-{self.key[:12]}"

    def begin(self) -> Seeds:
        """Write down what the search is before its first trial; later, take up its seeds and its number of threads."""
        if not (self.folder / "seeds.json").exists():
            seed = self.job.recipe.seed
            Seeds.new(None if seed is None else f"{seed} tune").save(self.folder / "seeds.json")
        seeds, path = Seeds.load(self.folder / "seeds.json"), self.folder / "study.json"
        if not path.exists():
            facts = {"config": self.what, "parents": self.parents, "commitments": seeds.commitments()}
            write_json(path, {"key": self.key, **facts, "n_threads": torch.get_num_threads()})
        if self._n_threads() != torch.get_num_threads():
            said = f"the search began with {self._n_threads()} threads and goes on with as many, to stay exact"
            self.job.progress.note(said)
        return seeds

    def train(self, values: Mapping[str, Any], folder: Path, watch: Watch, progress: Progress) -> Outcome:
        """Train as the recipe would with some values; see :func:`danlu.tune.trial.try_training`."""
        dataset, job = self.job.dataset, replace(self.job, progress=progress)
        loaded = over(self.loaded, [word(key, value) for key, value in values.items()], job.workspace)
        spec, sources = job.work(loaded)
        start = None if sources.start is None else sources.start.path
        torch.set_num_threads(self._n_threads())
        if spec.pretrains:
            own, own_sources = job.work(self.loaded)
            as_own = (spec.model_copy(update={"train": own.train}), sources) == (own, own_sources)
            home = job.workspace if as_own else Workspace(self.folder)
            name = job.recipe.name
            start = pretrain_model(home, name, dataset, spec, sources, validation_scores, progress).path
            torch.set_num_threads(self._n_threads())
        material = Material(
            dataset=dataset,
            spec=spec,
            folder=folder,
            start=start,
            score=validation_scores,
            progress=progress,
            store=TokenStore(job.workspace.tokens),
        )
        return try_training(material, watch, progress)

    def facts(self, tried: list[Tried], importances: Mapping[str, float] | None) -> dict[str, Any]:
        """What came of it: the content of ``trials.json``.

        Raises:
            DanluError: No trial came to its end.
        """
        recipe, best = self.job.recipe, best_of(tried)
        if best is None:
            what = f"none of {len(tried)} trials came to its end; the last: {tried[-1].why}"
            advice = "narrow tune.space (lower learning rates first), or raise tune.trials"
            raise DanluError(what, where=str(self.folder), advice=advice)
        as_own = next((trial.number for trial in tried if trial.values == self.own), None)
        spec, _ = self.job.work(self.job.loaded)
        of_trial = self.loaded.recipe.train
        length = {
            f"train.{name}": [getattr(of_trial, name), getattr(spec.train, name)]
            for name in ("epochs", "max_steps")
            if getattr(of_trial, name) != getattr(spec.train, name)
        }
        return {
            "name": recipe.name,
            "task": recipe.task,
            "family": recipe.model.family,
            "seed": recipe.seed,
            "optuna": require_optuna().__version__,
            **{key: value for key, value in self.what.items() if key not in ("recipe", "first")},
            "length": length,
            "own": {"values": self.own, "trial": as_own},
            "best": {"values": best.values, "trial": best.number, "score": best.score},
            "words": [word(key, value) for key, value in best.values.items()],
            "counts": {
                state: sum(trial.state == state for trial in tried) for state in ("complete", "pruned", "failed")
            },
            "importances": importances,
            "trials": [asdict(trial) for trial in tried],
        }

    def _n_threads(self) -> int:
        return int(read_json(self.folder / "study.json")["n_threads"])


def _plain(dimension: Range | Choices) -> Any:
    return dimension.plain() if isinstance(dimension, Range) else list(dimension)


def _without(values: Mapping[str, Any], keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings without some dotted keys."""
    return {
        name: _without(value, keys, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in values.items()
        if prefix + name not in keys
    }
