"""Training to name the next token of texts."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np

from danlu.core.batch import Batch
from danlu.data.sequences import collate_windows, windows
from danlu.model.base import Model
from danlu.model.families import LanguageModel
from danlu.model.language import NeuralLanguageModel
from danlu.train.examples import load_texts
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

__all__ = ["N_VALID_TEXTS", "bits_per_character", "prepare"]

N_VALID_TEXTS = 2000
"""The most validation texts that are read during training: the first ones."""


def prepare(material: Material) -> Prepared:
    """Get ready to name the next token of the training texts; every text stands alone."""
    config = material.spec.train
    valid = load_texts(material.dataset, "valid")[:N_VALID_TEXTS]
    train = cache(partial(load_texts, material.dataset, "train"))
    seeds = kept_seeds(material)
    tokenizer = kept_tokenizer(material, train)
    tokens = kept_tokens(material, tokenizer, "train", train, None, special=False)
    module = start_module(material, text_signature(material, "language-modelling", tokenizer), seeds, tokens)
    language_model = NeuralLanguageModel(module, tokenizer)
    found = windows(tokens, language_model.special, language_model.config.max_len, 0)

    def make(rows: np.ndarray, _step: int) -> Batch:
        return collate_windows(found, rows)

    def evaluate(_trained: Model) -> dict[str, float]:
        bits = bits_per_character(language_model, valid)
        return {"score": -bits, "bits_per_character": bits}

    return Prepared(
        module=module,
        feed=PlannedFeed(found.lengths, make, config, seeds),
        seeds=seeds,
        config=config,
        evaluate=evaluate,
        answerer=language_model,
    )


def bits_per_character(model: LanguageModel, texts: list[str]) -> float:
    """What a model needs for texts and their ends, by the character."""
    return float(model.nats(texts).sum()) / math.log(2) / sum(len(text) for text in texts)
