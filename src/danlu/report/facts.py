"""What a report is about, gathered from artifacts: nothing here is computed that an artifact already says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.config import leaves

__all__ = ["Entry", "Facts", "ModelFacts", "gather"]


@dataclass(frozen=True)
class Entry:
    """A model and its evaluation on the test split.

    Attributes:
        label: What the comparison calls it; empty: its family.
    """

    model: Artifact
    evaluation: Artifact
    label: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """One column of the leaderboard.

    Attributes:
        label: What the comparison calls it: its family, or the name of a variant.
        ours: Whether it is the recipe's own model.
        model: Its artifact.
        evaluation: ``evaluation.json``.
        training: ``training.json``.
        curve: The lines of ``metrics.jsonl``; empty for what is not trained in steps.
        profile: ``profile.json``: where the time of its steps went; often it was not recorded.
        against: Its comparison with the baseline; None for the baseline itself, or where there is none.
        is_baseline: Whether the others are compared with it.
    """

    label: str
    ours: bool
    model: Artifact
    evaluation: Mapping[str, Any]
    evaluation_digest: str
    training: Mapping[str, Any]
    curve: Sequence[dict[str, Any]]
    profile: Mapping[str, Any] | None
    against: Mapping[str, Any] | None
    is_baseline: bool

    def metric(self, name: str) -> Mapping[str, Any]:
        """A metric's ``value``, ``low``, ``high``, ``n``, ``method``."""
        found: Mapping[str, Any] = self.evaluation["metrics"][name]
        return found

    @property
    def start(self) -> str | None:
        """The digest of the checkpoint that its weights started from."""
        found: str | None = self.model.manifest["parents"].get("start")
        return found

    @property
    def frozen(self) -> int:
        """Parameters that stayed as they were in the checkpoint."""
        return int(self.training["n_parameters"]) - int(self.training.get("n_trained", self.training["n_parameters"]))

    def worked(self, name: str) -> int:
        """The sum of ``step``, ``n_tokens`` or ``n_positions`` over pre-training, where there was any, and training."""
        phases = [self.training, self.training.get("pretraining", {})]
        return sum(int(phase.get(name, 0)) for phase in phases)


@dataclass(frozen=True)
class Facts:
    """Everything that the report and the model card say.

    Attributes:
        name: The recipe's name.
        recipe: Its resolved values.
        base: The folder that shown paths start from: where the workspace lies.
        models: The recipe's own first.
        few_shot: How good each model is after so many examples of each class: label -> examples ->
            ``value low high n``; the recipe's own first, the baseline last. Often there is none.
        gate: The gate's decision.
        plan: What was predicted before training.
    """

    name: str
    recipe: Mapping[str, Any]
    base: Path
    dataset: Artifact
    summary: Mapping[str, Any]
    models: Sequence[ModelFacts]
    comparison: Artifact
    few_shot: Mapping[str, Mapping[int, Mapping[str, Any]]]
    gate: Mapping[str, Any]
    plan: Mapping[str, Any] | None

    @property
    def task(self) -> str:
        """What the models do."""
        return str(self.ours.evaluation["task"])

    @property
    def primary(self) -> str:
        """The metric that decides."""
        return str(self.ours.evaluation["primary"])

    @property
    def ours(self) -> ModelFacts:
        """The recipe's own model."""
        return self.models[0]

    @cached_property
    def baseline(self) -> ModelFacts | None:
        """What the others are compared with."""
        return next((model for model in self.models if model.is_baseline and not model.ours), None)

    @cached_property
    def trained(self) -> ModelFacts | None:
        """What the recipe's model and train sections made step by step: the recipe's model, or a member of it."""
        wanted = self.recipe["model"]["family"]
        return next((model for model in self.models if model.label == wanted and model.curve), None)

    @property
    def alias(self) -> str:
        """What the recipe's own model is called now."""
        return f"{self.name}@{'champion' if self.gate['passed'] else 'challenger'}"

    @property
    def settings(self) -> Iterator[tuple[str, Any]]:
        """Every value of the recipe by its dotted key."""
        return leaves(dict(self.recipe))

    def shown(self, path: Path) -> str:
        """A path as it is typed where the workspace lies."""
        return str(path.relative_to(self.base))


def gather(
    name: str,
    base: Path,
    *,
    recipe: Mapping[str, Any],
    dataset: Artifact,
    entries: Sequence[Entry],
    comparison: Artifact,
    gate: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
) -> Facts:
    """Read what the artifacts hold.

    Raises:
        CorruptError: An artifact lacks a file, or it is damaged.
    """
    compared = comparison.json("comparison.json")
    against = {model["a"]: model for model in compared["models"]}
    models = []
    for index, entry in enumerate(entries):
        evaluation = entry.evaluation.json("evaluation.json")
        label = entry.label or evaluation["family"]
        models.append(
            ModelFacts(
                label=label,
                ours=index == 0,
                model=entry.model,
                evaluation=evaluation,
                evaluation_digest=entry.evaluation.digest,
                training=entry.model.json("training.json"),
                curve=_lines(entry.model, "metrics.jsonl"),
                profile=entry.model.json("profile.json") if "profile.json" in entry.model.manifest["files"] else None,
                against=against.get(label),
                is_baseline=label == compared["baseline"],
            )
        )
    summary = dataset.json("summary.json")
    few_shot = _few_shot(compared.get("few_shot", ()), models[0].label, compared["baseline"])
    return Facts(name, recipe, base, dataset, summary, models, comparison, few_shot, gate, plan)


def _few_shot(points: Sequence[Mapping[str, Any]], ours: str, baseline: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    labels = dict.fromkeys(str(point["label"]) for point in points)
    ordered = sorted(labels, key=lambda label: (label == baseline, label != ours))
    return {label: {point["shots"]: point for point in points if point["label"] == label} for label in ordered}


def _lines(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    if name not in artifact.manifest["files"]:
        return []
    return [json.loads(line) for line in (artifact.path / name).read_text(encoding="utf-8").splitlines()]
