"""What every way of training shares: the records of a split, and the finished folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.files import write_json
from danlu.data.clean import CleanConfig
from danlu.data.stage import Split, class_names, image_size, read_split
from danlu.model.base import Task
from danlu.model.families import Answerer
from danlu.model.predictor import Predictor

__all__ = ["Examples", "load_examples", "load_pairs", "load_texts", "write_model"]


@dataclass(frozen=True)
class Examples:
    """The texts of a split with their classes.

    Attributes:
        texts: n texts.
        labels: int64 [n].
    """

    texts: list[str]
    labels: np.ndarray


def load_texts(dataset: Artifact, split: Split) -> list[str]:
    """The texts of a whole split."""
    texts: list[str] = read_split(dataset, split, ["text"]).column("text").to_pylist()
    return texts


def load_pairs(dataset: Artifact, split: Split) -> tuple[list[str], list[str]]:
    """The texts of a whole split and their translations."""
    table = read_split(dataset, split, ["text", "target"])
    return table.column("text").to_pylist(), table.column("target").to_pylist()


def load_examples(dataset: Artifact, split: Split, classes: list[str]) -> Examples:
    """The texts and classes of a whole split.

    Raises:
        DataError: Its records have no label.
    """
    table = read_split(dataset, split, ["text", "label"])
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[label] for label in table.column("label").to_pylist()], np.int64)
    return Examples(table.column("text").to_pylist(), labels)


def write_model(
    folder: Path, answerer: Answerer, labels: tuple[Task, str], dataset: Artifact, facts: dict[str, Any]
) -> None:
    """Write a trained model and the facts of its training into an artifact's folder.

    Args:
        folder: The draft's folder.
        answerer: What was trained.
        labels: Its task and its family.
        dataset: What it was trained on: the model keeps its classes and the way its texts were cleaned.
        facts: For ``training.json``.
    """
    task, family = labels
    clean = CleanConfig(**dataset.config["clean"])
    classes = class_names(dataset) if task.endswith("classification") else ()
    size = image_size(dataset) if task == "image-classification" else None
    Predictor(answerer, task, family, clean, classes, size).save(folder)
    write_json(folder / "training.json", facts)
