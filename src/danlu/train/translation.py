"""Training to translate: the next token of the translation, given the source and what was translated before."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.data.batches import Tokens, in_order
from danlu.data.sequences import Windows, collate_pairs, windows
from danlu.data.stage import Split
from danlu.model.base import Model, text_config
from danlu.model.translator import NeuralTranslator
from danlu.train.examples import load_pairs
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

__all__ = ["prepare"]


def prepare(material: Material) -> Prepared:
    """Get ready to translate the training texts. Both languages share one vocabulary."""
    config = material.spec.train
    pairs = cache(partial(load_pairs, material.dataset))
    seeds = kept_seeds(material)
    tokenizer = kept_tokenizer(material, lambda: [*pairs("train")[0], *pairs("train")[1]])
    room = text_config(material.spec.model).max_len - 1  # for the end

    def encoded(split: Split) -> tuple[Tokens, Tokens]:
        text = kept_tokens(material, tokenizer, f"{split} text", lambda: pairs(split)[0], room, special=False)
        target = kept_tokens(material, tokenizer, f"{split} target", lambda: pairs(split)[1], room, special=False)
        return text, target

    max_len = room + 1
    sources, targets = encoded("train")
    signature = text_signature(material, "translation", tokenizer)
    module = start_module(material, signature, seeds, Tokens.joined([sources, targets]))
    device = next(module.parameters()).device
    translator = NeuralTranslator(module, tokenizer)
    special = translator.special
    train = sources, windows(targets, special, max_len, 0)
    sources, targets = encoded("valid")
    valid = sources, windows(targets, special, max_len, 0)

    def make(rows: np.ndarray, _step: int) -> Batch:
        return collate_pairs(*train, rows, special)

    def evaluate(trained: Model) -> dict[str, float]:
        total, n_asked = 0.0, 0
        for rows in in_order(_lengths(*valid).max(1), config.batch_tokens):
            batch = collate_pairs(*valid, rows, special).to(device)
            n_here = int((batch.targets != NOT_PREDICTED).sum())
            total, n_asked = total + float(trained.loss(trained(batch), batch)) * n_here, n_asked + n_here
        loss = total / max(1, n_asked)
        return {"score": -loss, "loss": loss}

    return Prepared(
        module=module,
        feed=PlannedFeed(_lengths(*train), make, config, seeds),
        seeds=seeds,
        config=config,
        evaluate=evaluate,
        answerer=translator,
    )


def _lengths(source: Tokens, target: Windows) -> np.ndarray:
    """int64 [n, 2]: the tokens of both sides of a pair."""
    return np.stack([source.lengths + 1, target.lengths], axis=1)
