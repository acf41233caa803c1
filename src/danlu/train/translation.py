"""Training to translate: the next token of the translation, given the source and what was translated before."""

from __future__ import annotations

import numpy as np

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.data.batches import Tokens, in_order
from danlu.data.sequences import Windows, collate_pairs, windows
from danlu.data.tokenizer import encode
from danlu.model.base import Model, text_config
from danlu.model.translator import NeuralTranslator
from danlu.train.examples import load_pairs
from danlu.train.feed import PlannedFeed
from danlu.train.prepare import Material, Prepared, kept_seeds, kept_tokenizer, start_module, text_signature

__all__ = ["prepare"]


def prepare(material: Material) -> Prepared:
    """Get ready to translate the training texts. Both languages share one vocabulary."""
    config = material.spec.train
    texts = load_pairs(material.dataset, "train")
    seeds = kept_seeds(material)
    tokenizer = kept_tokenizer(material, lambda: texts[0] + texts[1])
    max_len = text_config(material.spec.model).max_len

    def encoded(texts: list[str]) -> Tokens:
        return encode(tokenizer, texts, max_len - 1, special=False)  # room for the end

    sources, targets = map(encoded, texts)
    signature = text_signature(material, "translation", tokenizer)
    module = start_module(material, signature, seeds, Tokens.joined([sources, targets]))
    device = next(module.parameters()).device
    translator = NeuralTranslator(module, tokenizer)
    special = translator.special
    train = sources, windows(targets, special, max_len, 0)
    sources, targets = map(encoded, load_pairs(material.dataset, "valid"))
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
