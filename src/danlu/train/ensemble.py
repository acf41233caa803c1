"""The ensemble: models that are trained already, answering as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import class_names
from danlu.model.base import Task
from danlu.model.cascade import Cascade, best_threshold
from danlu.model.ensemble import Ensemble
from danlu.model.families import CASCADE, ENSEMBLE, Answerer, Classifier
from danlu.model.predictor import load_predictor
from danlu.model.translation_memory import TranslationMemory
from danlu.model.translator import NeuralTranslator
from danlu.train.examples import load_examples, load_pairs, write_model
from danlu.train.prepare import Score

__all__ = ["COMBINED", "Combination", "Judges", "train_ensemble"]

_Combined = tuple[Answerer, dict[str, Any]]
"""What answers, and facts about it."""


@dataclass(frozen=True)
class Judges:
    """What tells good answers to the validation split.

    Attributes:
        classes: Scores the probabilities of a classifier.
        translations: How good each translation is (hypotheses and references, n each): float64 [n], higher is better.
    """

    classes: Score
    translations: Callable[[Sequence[str], Sequence[str]], np.ndarray]


def train_ensemble(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    task: Task,
    members: Mapping[str, Artifact],
    judges: Judges,
    progress: Progress,
) -> Artifact:
    """Fit on the validation split how trained models answer together, or find what the same members made before.

    Args:
        workspace: Where the artifact goes.
        name: The model's name.
        dataset: What the members were trained on.
        task: What they do; one of ``COMBINED``.
        members: The model artifacts by family.
        judges: What tells good answers.
        progress: Told that it begins, and what was fitted.
    """
    combination = COMBINED[task]
    progress.stage(f"train: {combination.family} of {', '.join(members)}")
    parents = {"dataset": dataset.digest, **{family: member.digest for family, member in members.items()}}
    key = digest_of({"family": combination.family, "parents": parents})
    if found := workspace.with_key("model", key):
        progress.note(f"{found.path.name} is there already")
        return found
    started = time.monotonic()
    loaded = {family: load_predictor(member).answerer for family, member in members.items()}
    answerer, facts = combination.fit(loaded, dataset, judges, progress)
    seconds = time.monotonic() - started + sum(member.json("training.json")["seconds"] for member in members.values())
    facts = {"seconds": round(seconds, 3), "n_parameters": answerer.n_parameters, **facts}
    config = {"family": combination.family, "members": list(members)}
    with workspace.create("model", name, key=key, config=config, parents=parents) as draft:
        write_model(draft.folder, answerer, (task, combination.family), dataset, facts)
    return draft.artifact


def _weighted(members: dict[str, Answerer], dataset: Artifact, judges: Judges, progress: Progress) -> _Combined:
    valid = load_examples(dataset, "valid", class_names(dataset))
    classifiers = {family: cast("Classifier", member) for family, member in members.items()}
    ensemble = Ensemble.fit(classifiers, valid.texts, valid.labels)
    weights = dict(zip(members, ensemble.weights_M.tolist(), strict=True))
    progress.note(" · ".join(f"{family} {weight:.2f}" for family, weight in weights.items()))
    score = judges.classes(valid.labels, ensemble.predict_proba(valid.texts))["score"]
    return ensemble, {"best_score": score, "weights": weights}


def _memory_first(members: dict[str, Answerer], dataset: Artifact, judges: Judges, progress: Progress) -> _Combined:
    memory = next(member for member in members.values() if isinstance(member, TranslationMemory))
    network = next(member for member in members.values() if isinstance(member, NeuralTranslator))
    sources, references = load_pairs(dataset, "valid")
    known = memory.answers(sources)
    similarity_B = np.array([answer.similarity for answer in known])
    memory_B = judges.translations([answer.translation for answer in known], references)
    network_B = judges.translations(network.translate(sources), references)
    threshold = best_threshold(similarity_B, memory_B, network_B)
    sure_B = similarity_B >= threshold
    share = float(sure_B.mean())
    progress.note(f"from a similarity of {threshold:.2f} on the memory is asked: {share:.0%} of the validation texts")
    score = float(np.where(sure_B, memory_B, network_B).mean())
    return Cascade(memory, network, threshold), {"best_score": score, "threshold": threshold, "memory_share": share}


@dataclass(frozen=True)
class Combination:
    """How models of a task answer together.

    Attributes:
        family: What the model made of them is called.
        fit: Fits it to the validation split of a dataset.
    """

    family: str
    fit: Callable[[dict[str, Answerer], Artifact, Judges, Progress], _Combined]


COMBINED: dict[Task, Combination] = {
    "text-classification": Combination(ENSEMBLE, _weighted),
    "translation": Combination(CASCADE, _memory_first),
}
"""The tasks whose models can be combined."""
