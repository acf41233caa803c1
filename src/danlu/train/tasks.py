"""What can be trained: each task's config, and how its runs are prepared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from danlu.core.config import Config
from danlu.model.base import Task
from danlu.model.families import FAMILIES
from danlu.train import classification, images, language, translation
from danlu.train.classification import ClassifyConfig
from danlu.train.config import TrainConfig
from danlu.train.images import ImageConfig
from danlu.train.language import LanguageConfig
from danlu.train.prepare import Material, Prepared, TrainingSpec
from danlu.train.pretrain import PretrainConfig

__all__ = ["TRAINING", "TaskTraining", "read_spec"]


@dataclass(frozen=True)
class TaskTraining:
    """How models of a task are trained.

    Attributes:
        config: What the recipe's ``train`` section may say.
        prepare: Gets a run ready.
    """

    config: type[TrainConfig]
    prepare: Callable[[Material], Prepared]


TRAINING: dict[Task, TaskTraining] = {
    "text-classification": TaskTraining(ClassifyConfig, classification.prepare),
    "image-classification": TaskTraining(ImageConfig, images.prepare),
    "language-modelling": TaskTraining(LanguageConfig, language.prepare),
    "translation": TaskTraining(TrainConfig, translation.prepare),
}
"""The tasks that a recipe can name."""


def read_spec(values: Mapping[str, Any]) -> TrainingSpec:
    """The spec whose plain values these are, each section as its task and family have it."""
    sections: dict[str, type[Config]] = {
        "model": FAMILIES[values["model"]["family"]].Config,
        "pretrain": PretrainConfig,
        "train": TRAINING[values["task"]].config,
    }
    read = {name: config(**values[name]) for name, config in sections.items() if values[name] is not None}
    return TrainingSpec(**{**values, **read})
