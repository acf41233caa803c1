"""Training to name the next token of texts."""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np

from danlu.core.batch import Batch
from danlu.core.errors import UsageError
from danlu.data.sequences import collate_packed, collate_windows, windows
from danlu.model.base import Model
from danlu.model.families import LanguageModel
from danlu.model.gpt import Gpt
from danlu.model.language import NeuralLanguageModel
from danlu.train.config import TrainConfig
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

__all__ = [
    "N_VALID_TEXTS",
    "LanguageConfig",
    "bits_per_character",
    "prepare",
]

N_VALID_TEXTS = 2000
"""The most validation texts that are read during training: the first ones."""


class LanguageConfig(TrainConfig):
    """How a model is trained to name the next token."""

    pack: bool = False
    """Whether several texts share a row, each seeing itself alone: no padding, and rows of one length; for ``gpt``."""


def prepare(material: Material) -> Prepared:
    """Get ready to name the next token of the training texts; every text stands alone."""
    config = material.spec.train
    pack = isinstance(config, LanguageConfig) and config.pack
    valid = load_texts(material.dataset, "valid")[:N_VALID_TEXTS]
    train = cache(partial(load_texts, material.dataset, "train"))
    seeds = kept_seeds(material)
    tokenizer = kept_tokenizer(material, train)
    tokens = kept_tokens(material, tokenizer, "train", train, None, special=False)
    module = start_module(material, text_signature(material, "language-modelling", tokenizer), seeds, tokens)
    language_model = NeuralLanguageModel(module, tokenizer)
    found = windows(tokens, language_model.special, language_model.config.max_len, 0)

    max_len = language_model.config.max_len
    if pack and not isinstance(module, Gpt):
        what = f"a {material.spec.model.family} takes what it has read into the next text of a row"
        raise UsageError(what, where="train.pack", advice="leave train.pack out, or set model.family=gpt")

    def make(rows: np.ndarray, _step: int) -> Batch:
        return collate_packed(found, rows, max_len) if pack else collate_windows(found, rows)

    def evaluate(_trained: Model) -> dict[str, float]:
        bits = bits_per_character(language_model, valid)
        return {"score": -bits, "bits_per_character": bits}

    return Prepared(
        module=module,
        feed=PlannedFeed(found.lengths, make, config, seeds, max_len if pack else None, found.texts),
        seeds=seeds,
        config=config,
        evaluate=evaluate,
        answerer=language_model,
    )


def bits_per_character(model: LanguageModel, texts: list[str]) -> float:
    """What a model needs for texts and their ends, by the character."""
    return float(model.nats(texts).sum()) / math.log(2) / sum(len(text) for text in texts)
