"""A model trained again on another dataset, by the recipe that made it: its manifest says all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu.core.artifact import Artifact
from danlu.core.config import Layer, leaves, read_overrides, resolve
from danlu.core.errors import UsageError
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import DataConfig
from danlu.evaluate.stage import validation_scores
from danlu.model.families import ENSEMBLE
from danlu.pipeline import Job
from danlu.recipe import Loaded, Recipe
from danlu.recording import at_hand, record
from danlu.start import SCRATCH, find_start
from danlu.train.baseline import BASELINES, train_baseline
from danlu.train.ensemble import train_ensemble
from danlu.train.prepare import Sources, Start, TrainingSpec
from danlu.train.stage import train_model

__all__ = ["Again", "again", "evaluation_of"]

_OVERRIDABLE = ("model", "tokenizer", "pretrain", "train", "evaluate", "seed")
"""What of a recipe may be said otherwise: the data are the champion's and the corrections."""

Again = tuple[TrainingSpec, Sources]


def again(
    workspace: Workspace,
    name: str,
    model: Artifact,
    dataset: Artifact,
    words: Sequence[str],
    recipe: Path | None,
    progress: Progress,
) -> Artifact:
    """Train a model again on another dataset, from where it stopped if it was interrupted.

    Args:
        workspace: Where everything is.
        name: What the new model is called.
        model: The one that was trained before; one of several families combined has its members trained again.
        dataset: What to train on.
        words: ``key=value`` over its recipe.
        recipe: A recipe in place of its own.
        progress: Told of every step.

    Returns:
        The new model, with its record.

    Raises:
        UsageError: A key is unknown or not of the training, or what the model started from is not at hand.
    """
    family = model.json("model.json")["family"]
    if recipe is None and (family in BASELINES or family == ENSEMBLE):
        if said := [word for word in words if not word.startswith("evaluate.")]:
            what = f"a {family} has no values to be set"
            raise UsageError(what, where=said[0], advice="leave them out, or name a recipe: recipe=FILE")
        if family in BASELINES:
            made = train_baseline(workspace, name, dataset, family, validation_scores, progress)
        else:
            roles = [role for role in model.manifest["parents"] if role != "dataset"]
            members = {role: workspace.with_digest(model.manifest["parents"][role]) for role in roles}
            trained = {
                role: again(workspace, f"{name}-{role}", member, dataset, (), None, progress)
                for role, member in members.items()
            }
            made = train_ensemble(workspace, name, dataset, trained, validation_scores, progress)
        return record(workspace, made, progress)
    spec, sources = _work(workspace, model, words, recipe, progress)
    if spec.train.processes > 1:
        what, advice = "danlu improve trains in one process", "leave train.processes out"
        raise UsageError(what, where="train.processes", advice=advice)
    made = train_model(workspace, name, dataset, spec, sources, validation_scores, progress)
    return record(workspace, made, progress)


def evaluation_of(workspace: Workspace, model: Artifact) -> dict[str, Any]:
    """The config of the first evaluation of a model, that of its recipe; empty where it was never evaluated."""
    found = [each for each in workspace.all("evaluation") if each.manifest["parents"].get("model") == model.digest]
    config = min(found, key=lambda each: str(each.manifest["created"])).config if found else {}
    return {key: value for key, value in config.items() if value != []}  # no baselines: it was no recipe's


def _work(
    workspace: Workspace, model: Artifact, words: Sequence[str], recipe: Path | None, progress: Progress
) -> Again:
    """What to train, and from what besides the dataset."""
    task = model.json("model.json")["task"]
    if recipe is not None:
        job = Job.load(recipe, words, workspace, progress)
        if job.recipe.task != task or job.recipe.ensemble:
            what = "of an ensemble" if job.recipe.ensemble else f"for {job.recipe.task}, the champion for {task}"
            raise UsageError(f"the recipe is {what}", where=str(recipe), advice="give a recipe of one model")
        return job.work(job.loaded)
    said = read_overrides(words)
    if other := [key for key in said.values if key not in _OVERRIDABLE]:
        what = f"{other[0]!r} is not about the training"
        raise UsageError(what, where="command line", advice=f"say something of {', '.join(_OVERRIDABLE)}")
    own, family = _own(model, task), str(model.config["model"]["family"])
    texts = model.manifest["parents"].get("texts")
    sources = Sources(None, None if texts is None else workspace.with_digest(texts))
    if "from" in (said.values.get("model") or {}):
        resolved = resolve(recipes.schema(task, family), [own])
        loaded = recipes.over(Loaded(resolved, Path.cwd() / "recipe", (own,), None, {}), words, workspace)
        return _spec(loaded.recipe), replace(sources, start=loaded.start)
    made: Recipe = resolve(recipes.schema(task, family), [own, said]).config
    return _spec(made), replace(sources, start=_start(workspace, model))


def _own(model: Artifact, task: str) -> Layer:
    """The recipe of a model, as its manifest has it."""
    config = model.config
    sections = ("tokenizer", "model", "pretrain", "train", "seed")
    values: dict[str, Any] = {name: config[name] for name in sections if config.get(name) is not None}
    data = {name: "-" if name == "source" else None for name in DataConfig.model_fields}
    values |= {"danlu": 1, "name": "model", "task": task, "data": {k: v for k, v in data.items() if v is not None}}
    return Layer(values, {key: f"the recipe of {model.path.name}" for key, _ in leaves(values)})


def _spec(recipe: Recipe) -> TrainingSpec:
    return TrainingSpec(
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=None if recipe.pretrain is None else recipe.pretrain.carried_out_as(recipe.train),
        train=recipe.train,
        seed=recipe.seed,
    )


def _start(workspace: Workspace, model: Artifact) -> Start | None:
    """The checkpoint that a model started from: the very same, or none will do."""
    digest = model.manifest["parents"].get("start")
    if digest is None:
        return None
    if (found := at_hand(workspace, digest)) is not None:
        return Start(found.path, digest)
    wanted = str(model.config["model"]["from"])
    measured: Mapping[str, Any] = model.manifest.get("measured", {})
    for place in filter(None, (measured.get("start"), wanted)):
        try:
            start = find_start(str(place), Path.cwd(), workspace)
        except UsageError:
            continue
        if start is not None and start.digest == digest:
            return start
    raise UsageError(
        f"the checkpoint that {model.path.name} started from ({wanted}) is not at hand",
        where="model.from",
        advice=f"give it again, model.from=FOLDER; or start from elsewhere: model.from={SCRATCH}, or name@champion",
    )
