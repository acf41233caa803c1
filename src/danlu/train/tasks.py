"""What can be trained: each task's config, and how its runs are prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from danlu.model.base import Task
from danlu.train import classification, images, language, translation
from danlu.train.classification import ClassifyConfig
from danlu.train.config import TrainConfig
from danlu.train.images import ImageConfig
from danlu.train.prepare import Material, Prepared

__all__ = ["TRAINING", "TaskTraining"]


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
    "language-modelling": TaskTraining(TrainConfig, language.prepare),
    "translation": TaskTraining(TrainConfig, translation.prepare),
}
"""The tasks that a recipe can name."""
