"""Training to name the classes of texts."""

from __future__ import annotations

from functools import partial

import numpy as np
from pydantic import Field

from danlu.core.batch import Batch
from danlu.data.batches import collate
from danlu.data.stage import class_names
from danlu.data.tokenizer import PAD
from danlu.model.base import Model, text_config
from danlu.model.classifier import NeuralClassifier
from danlu.train.config import TrainConfig
from danlu.train.consistency import consistent_loss
from danlu.train.engine import plain_loss
from danlu.train.examples import load_examples
from danlu.train.feed import PlannedFeed
from danlu.train.prepare import (
    Material,
    Prepared,
    kept_seeds,
    kept_tokenizer,
    kept_tokens,
    start_module,
    text_signature,
)

__all__ = ["ClassifyConfig", "prepare"]


class ClassifyConfig(TrainConfig):
    """How a model is trained to name classes."""

    consistency: float = Field(0.0, ge=0)
    """How much two passes of a text, each with a dropout of its own, are to agree; 0 makes one pass only."""


def prepare(material: Material) -> Prepared:
    """Get ready to name the classes of the training texts."""
    config = material.spec.train
    assert isinstance(config, ClassifyConfig)
    classes = class_names(material.dataset)
    train, valid = (load_examples(material.dataset, split, classes) for split in ("train", "valid"))
    seeds = kept_seeds(material)
    tokenizer = kept_tokenizer(material, lambda: train.texts)
    max_len = text_config(material.spec.model).max_len
    tokens = kept_tokens(material, tokenizer, "train", lambda: train.texts, max_len)
    held_out = kept_tokens(material, tokenizer, "valid", lambda: valid.texts, max_len)
    module = start_module(
        material, text_signature(material, "text-classification", tokenizer, len(classes)), seeds, tokens
    )
    classifier = NeuralClassifier(module, tokenizer)

    def make(rows: np.ndarray, _step: int) -> Batch:
        return collate(tokens, rows, PAD, train.labels)

    def evaluate(_trained: Model) -> dict[str, float]:
        return material.score(valid.labels, classifier.probabilities(held_out))

    return Prepared(
        module=module,
        feed=PlannedFeed(tokens.lengths, make, config, seeds),
        seeds=seeds,
        config=config,
        loss=partial(consistent_loss, weight=config.consistency) if config.consistency else plain_loss,
        evaluate=evaluate,
        answerer=classifier,
    )
