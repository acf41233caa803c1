"""Training to name the classes of pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.batch import Batch
from danlu.data.stage import Split, class_names, image_size, read_images
from danlu.model.base import Model, Signature
from danlu.model.image_classifier import NeuralImageClassifier, image_batch
from danlu.train.augment import AugmentConfig, augment
from danlu.train.config import TrainConfig
from danlu.train.feed import PlannedFeed
from danlu.train.prepare import Material, Prepared, kept_seeds, start_module

__all__ = ["ImageConfig", "load_images", "prepare"]


class ImageConfig(TrainConfig):
    """How a model is trained to name the classes of pictures."""

    augment: AugmentConfig = AugmentConfig()
    """How training pictures are varied, each time anew."""


def prepare(material: Material) -> Prepared:
    """Get ready to name the classes of the training pictures."""
    config = material.spec.train
    assert isinstance(config, ImageConfig)
    classes = class_names(material.dataset)
    (images, labels), valid = (load_images(material.dataset, split, classes) for split in ("train", "valid"))
    seeds = kept_seeds(material)
    signature = Signature(task="image-classification", n_classes=len(classes), image_size=image_size(material.dataset))
    module = start_module(material, signature, seeds)
    classifier = NeuralImageClassifier(module)

    def make(rows: np.ndarray, step: int) -> Batch:
        batch = image_batch(images, rows, labels)
        varied = augment(batch.images, config.augment, seeds.generator("augment", step))
        return replace(batch, images_BCYX=varied)

    def evaluate(_trained: Model) -> dict[str, float]:
        return material.score(valid[1], classifier.predict_proba(valid[0]))

    return Prepared(
        module=module,
        feed=PlannedFeed(np.ones(len(images), np.int64), make, config, seeds),
        seeds=seeds,
        config=config,
        evaluate=evaluate,
        answerer=classifier,
    )


def load_images(dataset: Artifact, split: Split, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of a whole split, uint8 ``[n, C, Y, X]``, and their classes, int64 ``[n]``."""
    images, labels = read_images(dataset, split)
    number = {name: index for index, name in enumerate(classes)}
    return images, np.array([number[label] for label in labels], np.int64)
