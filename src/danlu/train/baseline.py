"""The simple models that nothing may ship without beating, trained on the same records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.files import digest_of
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import class_names
from danlu.model.base import Task
from danlu.model.families import (
    MEMORY,
    NGRAM,
    PIXELS,
    TFIDF,
    Answerer,
    Classifier,
    ImageClassifier,
    LanguageModel,
)
from danlu.model.ngram import NgramConfig, NgramModel
from danlu.model.pixels import PixelConfig, PixelLogisticRegression
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from danlu.model.translation_memory import TranslationMemory, TranslationMemoryConfig
from danlu.train.examples import load_examples, load_pairs, load_texts, write_model
from danlu.train.images import load_images
from danlu.train.language import N_VALID_TEXTS, bits_per_character
from danlu.train.prepare import Score

__all__ = ["BASELINES", "Simple", "train_baseline"]


@dataclass(frozen=True)
class Simple:
    """A simple model.

    Attributes:
        task: What it does.
        config: Its config.
        fit: Trains it on a dataset.
        judge: Its score on the validation split as training would measure it; None where that takes a neural model.
    """

    task: Task
    config: Config
    fit: Callable[[Artifact], Answerer]
    judge: Callable[[Any, Artifact, Score], float | None]


def train_baseline(
    workspace: Workspace, name: str, dataset: Artifact, label: str, score: Score, progress: Progress
) -> Artifact:
    """Train a simple model, or find the one that the same work made before.

    Args:
        workspace: Where the artifact goes.
        name: The model's name.
        dataset: What to train on; its test split is not touched.
        label: Which model.
        score: Judges a classifier on the validation split.
        progress: Told that it begins.

    Raises:
        DataError: There is too little to learn from.
    """
    progress.stage(f"train: {label} on {dataset.path.name}")
    simple = BASELINES[label]
    config = {"task": simple.task, "family": label, **simple.config.plain()}
    key = digest_of({"dataset": dataset.digest, **config})
    if found := workspace.with_key("model", key):
        progress.note(f"{found.path.name} is there already")
        return found
    started = time.monotonic()
    answerer = simple.fit(dataset)
    facts = {
        "seconds": round(time.monotonic() - started, 3),
        "best_score": simple.judge(answerer, dataset, score),
        "n_parameters": answerer.n_parameters,
    }
    with workspace.create("model", name, key=key, config=config, parents={"dataset": dataset.digest}) as draft:
        write_model(draft.folder, answerer, (simple.task, label), dataset, facts)
    return draft.artifact


def _fit_tfidf(dataset: Artifact) -> Answerer:
    train = load_examples(dataset, "train", class_names(dataset))
    return TfidfLogisticRegression(TfidfConfig()).fit(train.texts, train.labels)


def _judge_classes(classifier: Classifier, dataset: Artifact, score: Score) -> float:
    valid = load_examples(dataset, "valid", class_names(dataset))
    return score(valid.labels, classifier.predict_proba(valid.texts))["score"]


def _fit_ngram(dataset: Artifact) -> Answerer:
    model: Answerer = NgramModel(NgramConfig()).fit(load_texts(dataset, "train"))
    return model


def _judge_language(model: LanguageModel, dataset: Artifact, _score: Score) -> float:
    return -bits_per_character(model, load_texts(dataset, "valid")[:N_VALID_TEXTS])


def _fit_memory(dataset: Artifact) -> Answerer:
    return TranslationMemory(TranslationMemoryConfig()).fit(*load_pairs(dataset, "train"))


def _not_judged(_answerer: Answerer, _dataset: Artifact, _score: Score) -> None:
    return None


def _fit_pixels(dataset: Artifact) -> Answerer:
    return PixelLogisticRegression(PixelConfig()).fit(*load_images(dataset, "train", class_names(dataset)))


def _judge_pixels(classifier: ImageClassifier, dataset: Artifact, score: Score) -> float:
    images, labels = load_images(dataset, "valid", class_names(dataset))
    return score(labels, classifier.predict_proba(images))["score"]


BASELINES = {
    TFIDF: Simple("text-classification", TfidfConfig(), _fit_tfidf, _judge_classes),
    PIXELS: Simple("image-classification", PixelConfig(), _fit_pixels, _judge_pixels),
    NGRAM: Simple("language-modelling", NgramConfig(), _fit_ngram, _judge_language),
    MEMORY: Simple("translation", TranslationMemoryConfig(), _fit_memory, _not_judged),
}
"""The simple models by name."""
