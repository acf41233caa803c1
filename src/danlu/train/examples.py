"""What every way of training shares: texts with their classes, the judge of a validation split, the finished folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.files import write_json
from danlu.data.clean import CleanConfig
from danlu.data.stage import Split, class_names, read_split, require_split
from danlu.model.families import Classifier
from danlu.model.predictor import Predictor

__all__ = ["Examples", "Score", "load_examples", "write_model"]

Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""Labels [n] and probabilities [n, N] of the validation split to metrics; ``"score"`` picks the best weights."""


@dataclass(frozen=True)
class Examples:
    """The texts of a split with their classes.

    Attributes:
        texts: n texts.
        labels: int64 [n].
    """

    texts: list[str]
    labels: np.ndarray


def load_examples(dataset: Artifact, split: Split, classes: list[str]) -> Examples:
    """The texts and classes of a whole split.

    Raises:
        DataError: The split is empty, or its records have no label.
    """
    require_split(dataset, split)
    table = read_split(dataset, split, ["text", "label"])
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[label] for label in table.column("label").to_pylist()], np.int64)
    return Examples(table.column("text").to_pylist(), labels)


def write_model(folder: Path, classifier: Classifier, family: str, dataset: Artifact, facts: dict[str, Any]) -> None:
    """Write a trained model and the facts of its training into an artifact's folder.

    Args:
        folder: The draft's folder.
        classifier: What was trained.
        family: Its family.
        dataset: What it was trained on: the model keeps its classes and the way its texts were cleaned.
        facts: For ``training.json``.
    """
    clean = CleanConfig(**dataset.config["clean"])
    Predictor(classifier, family, class_names(dataset), clean).save(folder)
    write_json(folder / "training.json", facts)
