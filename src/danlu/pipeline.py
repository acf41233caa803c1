"""The composition root: calls the stages in order, each reading artifacts and writing one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.events import EventLog
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.engine import EngineName
from danlu.data.few_shot import few_shot_dataset
from danlu.data.stage import build_dataset, require_split
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import mean_of_runs
from danlu.evaluate.stage import compare_models, evaluate_model, validation_scores
from danlu.model.families import ENSEMBLE
from danlu.recipe import Loaded, Recipe, load
from danlu.recording import record
from danlu.report.stage import Entry, write_data_card, write_report
from danlu.train import stage
from danlu.train.baseline import BASELINES, train_baseline
from danlu.train.config import RunConfig
from danlu.train.ensemble import train_ensemble
from danlu.train.plan import Plan, plan_training
from danlu.train.prepare import Sources, TrainingSpec
from danlu.train.stage import train_model

__all__ = ["Gate", "Job", "Ran", "attend", "compare_targets", "evaluate_target"]


@dataclass(frozen=True)
class Gate:
    """The decision whether a model may become champion: only one that beats the simple baseline may.

    Attributes:
        passed: Whether it did.
        verdict: ``better``, ``worse`` or ``no difference shown``.
        metric: What was compared.
        difference: Model minus baseline.
        low: Lower end of the difference's interval.
        high: Upper end.
        p: Paired permutation test, corrected for the number of models (Holm).
        alpha: The level it was held to.
        baseline: What it had to beat.
    """

    passed: bool
    verdict: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    alpha: float
    baseline: str


@dataclass(frozen=True)
class Ran:
    """What a whole run made; ``alias`` is what the recipe's model is called now: ``champion`` or ``challenger``."""

    recipe: Recipe
    dataset: Artifact
    models: dict[str, Artifact]
    evaluations: dict[str, Artifact]
    comparison: Artifact
    gate: Gate
    report: Artifact
    alias: str


@dataclass(frozen=True)
class Job:
    """A recipe to be carried out in a workspace; ``engine`` is where the records of its dataset are worked on."""

    loaded: Loaded
    workspace: Workspace
    progress: Progress
    engine: EngineName = "local"

    @classmethod
    def load(
        cls,
        path: Path,
        overrides: Sequence[str] | None,
        workspace: Workspace,
        progress: Progress,
        engine: EngineName = "local",
    ) -> Job:
        """Read a recipe; errors as of :func:`danlu.recipe.load`."""
        job = cls(load(path, overrides or (), workspace), workspace, progress, engine)
        if job.recipe.train.tensorboard:
            progress.note(f"to watch it: tensorboard --logdir {workspace.runs}")
        return job

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.loaded.recipe

    @cached_property
    def dataset(self) -> Artifact:
        """The dataset; made unless it is there."""
        recipe = self.recipe
        return build_dataset(self.workspace, recipe.name, recipe.data, self.loaded.base, self.progress, self.engine)

    def work(self, loaded: Loaded) -> tuple[TrainingSpec, Sources]:
        """What training the model of a recipe is, and what it is made from besides the dataset."""
        return _spec(loaded.recipe, self.recipe.train), self._sources(loaded)

    def _sources(self, loaded: Loaded) -> Sources:
        """What a recipe's own model is made from besides the dataset."""
        pretrain = loaded.recipe.pretrain
        texts = None
        if pretrain is not None and pretrain.epochs and pretrain.data is not None:
            name = f"{loaded.recipe.name}-texts"
            texts = build_dataset(self.workspace, name, pretrain.data, loaded.base, self.progress)
        return Sources(loaded.start, texts)

    def data_card(self) -> Artifact:
        """The page about the dataset."""
        return write_data_card(self.workspace, self.dataset, self.progress)

    def plan(self) -> Plan:
        """What training the recipe's model will cost."""
        spec, sources = self.work(self.loaded)
        return plan_training(self.workspace, self.dataset, spec, sources, validation_scores, self.progress)

    def models(self) -> dict[str, Artifact]:
        """The recipe's model by its family; where there is an ensemble, that first, then its members."""
        recipe = self.recipe
        if not recipe.ensemble:
            return {recipe.model.family: self._train(recipe.model.family, recipe.name)}
        members = {
            label: self._train(label, f"{recipe.name}-{label}") for label in (recipe.model.family, *recipe.ensemble)
        }
        ensemble = train_ensemble(self.workspace, recipe.name, self.dataset, members, validation_scores, self.progress)
        record(self.workspace, ensemble, self.progress)
        return {ENSEMBLE: self._called_latest(recipe.name, ensemble), **members}

    def run(self) -> Ran:
        """From raw data to the report, and the gate's decision.

        Raises:
            DanluError: A stage failed; what the stages before it made is kept, and the same command goes on from there.
            RefusedError: All is made and kept, and there has been another champion since the run began.
        """
        champion = self.workspace.ledger.current(self.recipe.name, "champion")
        recipe, dataset = self.recipe, self.dataset
        require_split(dataset, "test")
        events = EventLog(self.workspace.events, "run")
        events.write("run started", name=recipe.name)
        self.data_card()
        plan = self.plan()
        models = self.models()
        candidate = next(iter(models))
        for label in (*recipe.variants, *recipe.evaluate.baselines):
            if label not in models:
                models[label] = self._train(label, f"{recipe.name}-{label}")
        evaluations = {
            label: _evaluated(self.workspace, model, dataset, recipe.evaluate, self.progress)
            for label, model in models.items()
        }
        first = recipe.evaluate.baselines[0]
        few = self.few_shot([recipe.model.family, *recipe.variants, first])
        comparison = compare_models(
            self.workspace, recipe.name, evaluations, first, recipe.evaluate, self.progress, {"few_shot": few}
        )
        gate = _decide(comparison.json("comparison.json"), candidate, recipe.evaluate)
        report = write_report(
            self.workspace,
            recipe=recipe.plain(),
            dataset=dataset,
            entries=[Entry(models[label], evaluations[label], label) for label in models],
            comparison=comparison,
            gate=vars(gate),
            plan=vars(plan),
            progress=self.progress,
        )
        alias = self._promote(models[candidate], gate, comparison, champion)
        events.write("run ended", name=recipe.name, report=report.digest, gate=gate.passed)
        return Ran(recipe, dataset, models, evaluations, comparison, gate, report, alias)

    def few_shot(self, labels: Sequence[str]) -> list[dict[str, Any]]:
        """How good models are with a few examples of each class, on the whole test split.

        Returns:
            One row a number of examples and model: ``shots label value low high n`` of the primary metric, the mean
            over the draws; its interval is that of the draws where there are several, else that of the test records.
        """
        recipe, asked = self.recipe, self.recipe.evaluate.few_shot
        train = {"epochs": asked.epochs, "batch_tokens": asked.batch_tokens, "patience": asked.epochs}
        rows = []
        for shots, label in product(asked.shots, labels):
            drawn = []
            for draw in range(asked.repeats):
                dataset = few_shot_dataset(self.workspace, self.dataset, shots, draw)
                model = self._made(label, f"{recipe.name}-{label}-{shots}-shots", dataset, train)
                found = _evaluated(self.workspace, model, dataset, recipe.evaluate, self.progress)
                facts = found.json("evaluation.json")
                drawn.append(facts["metrics"][facts["primary"]])
            rows.append({"shots": shots, "label": label, **mean_of_runs(drawn, recipe.evaluate.confidence)})
        return rows

    def _train(self, label: str, name: str) -> Artifact:
        """A model of the recipe's own family, a variant of it, one of another family, or a simple one."""
        return self._called_latest(name, self._made(label, name, self.dataset, {}))

    def _made(self, label: str, name: str, dataset: Artifact, train: dict[str, Any]) -> Artifact:
        """The model of a label, trained on a dataset; ``train`` lies over what the recipe says of training."""
        if label in BASELINES:
            model = train_baseline(self.workspace, name, dataset, label, validation_scores, self.progress)
        else:
            loaded = self.loaded.variants.get(label, self.loaded)
            own = loaded is not self.loaded or label == self.recipe.model.family
            recipe = loaded.recipe if own else self.loaded.with_family(label)
            sources = self._sources(loaded) if own else Sources()
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=train)})
            spec = _spec(recipe, self.recipe.train)
            model = train_model(self.workspace, name, dataset, spec, sources, validation_scores, self.progress)
        return record(self.workspace, model, self.progress)

    def _called_latest(self, name: str, model: Artifact) -> Artifact:
        self._call(name, "latest", model, "trained")
        return model

    def _promote(self, model: Artifact, gate: Gate, comparison: Artifact, before: str | None) -> str:
        """Record in the ledger what the gate decided; ``before`` was champion when the run began.

        Returns:
            What the model is called now: ``champion`` or ``challenger``.

        Raises:
            RefusedError: Another is champion now.
        """
        name, ledger, evidence = self.recipe.name, self.workspace.ledger, (comparison.digest,)
        reason = f"{gate.metric} {gate.difference:+.4f} against {gate.baseline}, p = {gate.p:.2g}"
        self._call(name, "challenger", model, reason, evidence)
        if ledger.current(name, "champion") == model.digest:
            return "champion"
        if not gate.passed:
            return "challenger"
        if any((entry.alias, entry.digest) == ("champion", model.digest) for entry in ledger.history(name)):
            again = f"danlu promote {name} back=true to={model.digest[:12]} why=..."
            self.progress.note(
                f"{model.path.name} was champion before, and is not made so again; if it is to be: {again}"
            )
            return "challenger"
        if running := self.workspace.experiments.running(name):
            then = f"when it has ended: danlu promote {name}"
            self.progress.note(f"a trial of {name} runs ({running.id}), so the champion stays; {then}")
            return "challenger"
        ledger.set_alias(name, "champion", model, reason=reason, expect=before, evidence=evidence)
        return "champion"

    def _call(self, name: str, alias: str, model: Artifact, reason: str, evidence: Sequence[str] = ()) -> None:
        """Let an alias of this recipe's name mean a model, which another recipe of the same content may have made."""
        if not self.workspace.ledger.means(name, alias, model.digest):
            self.workspace.ledger.set_alias(name, alias, model, reason=reason, evidence=evidence)


def attend() -> None:
    """Train along with the first of several processes; see :func:`danlu.train.stage.attend`."""
    stage.attend(validation_scores)


def evaluate_target(workspace: Workspace, target: str, overrides: Sequence[str], progress: Progress) -> Artifact:
    """Evaluate a model on the test split of the dataset that it was trained on.

    Args:
        workspace: Where the model is.
        target: Its folder, ``name@alias`` or name.
        overrides: ``key=value`` of the evaluation's config.
        progress: Told of every step.

    Raises:
        UsageError: No such model, or no such key.
    """
    from danlu.core.config import read_overrides, resolve

    model = workspace.target(target, "model")
    dataset = workspace.with_digest(model.manifest["parents"]["dataset"])
    config = resolve(EvaluateConfig, [read_overrides(overrides)]).config
    return _evaluated(workspace, model, dataset, config, progress)


def compare_targets(workspace: Workspace, targets: Sequence[str], progress: Progress) -> Artifact:
    """Compare models on the test split of the dataset that they were trained on; the first is the baseline.

    Raises:
        UsageError: No such model, fewer than two, or they were trained on different datasets.
    """
    config = EvaluateConfig()
    models = {target: workspace.target(target, "model") for target in targets}
    if len(models) < 2:
        raise UsageError(
            "a comparison needs two models", where=" ".join(targets), advice="danlu compare BASELINE MODEL ..."
        )
    if len(datasets := {model.manifest["parents"]["dataset"] for model in models.values()}) > 1:
        raise UsageError(
            f"the models were trained on {len(datasets)} different datasets",
            advice="compare models of one dataset: their test splits must be the same",
        )
    evaluations = {
        target: _evaluated(
            workspace, model, workspace.with_digest(model.manifest["parents"]["dataset"]), config, progress
        )
        for target, model in models.items()
    }
    name = next(iter(models.values())).name
    return compare_models(workspace, name, evaluations, targets[0], config, progress)


def _evaluated(
    workspace: Workspace, model: Artifact, dataset: Artifact, config: EvaluateConfig, progress: Progress
) -> Artifact:
    """The evaluation of a model, with its record."""
    return record(workspace, evaluate_model(workspace, model, dataset, config, progress), progress)


def _spec(recipe: Recipe, how: RunConfig) -> TrainingSpec:
    """What to train; it is carried out as is said of the recipe's own model, where nothing else is said."""
    return TrainingSpec(
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=None if recipe.pretrain is None else recipe.pretrain.carried_out_as(how),
        train=recipe.train.carried_out_as(how),
        seed=recipe.seed,
    )


def _decide(comparison: dict[str, Any], candidate: str, config: EvaluateConfig) -> Gate:
    """The model must be better than the baseline in its task's primary metric, beyond chance."""
    found = next(model for model in comparison["models"] if model["a"] == candidate)
    metric = comparison["primary"]
    primary = found["metrics"][metric]
    return Gate(
        passed=found["verdict"] == "better",
        verdict=found["verdict"],
        metric=metric,
        difference=primary["difference"],
        low=primary["low"],
        high=primary["high"],
        p=primary["p_holm"],
        alpha=1 - config.confidence,
        baseline=comparison["baseline"],
    )
