"""Masked language modelling before classification (Devlin et al., 2019): naming hidden tokens of the training texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from danlu.core.artifact import Artifact
from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.core.errors import UsageError
from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens, collate, in_order
from danlu.data.pairs import N_MARKS, collate_halves, halves
from danlu.data.stage import DataConfig, Split, read_split
from danlu.data.tokenizer import PAD, SpecialTokens
from danlu.model.base import Model, text_config
from danlu.model.text import TextModel
from danlu.train.config import TrainConfig
from danlu.train.feed import PlannedFeed
from danlu.train.masking import hide_tokens
from danlu.train.prepare import (
    Material,
    Prepared,
    kept_seeds,
    kept_tokenizer,
    kept_tokens,
    start_module,
    text_signature,
)

__all__ = ["PretrainConfig", "prepare"]

_SPLITS: tuple[Split, Split] = ("train", "valid")
_ENDS = frozenset("。！？；…!?;.\n")


class PretrainConfig(TrainConfig):
    """How a model learns from the training texts alone, by naming hidden tokens, before it is shown a label."""

    epochs: int = Field(0, ge=0)
    """Passes over the training texts; 0 leaves this out."""
    learning_rate: float = Field(2e-3, gt=0)
    """The highest learning rate, reached at the end of the warm-up."""
    hidden: float = Field(0.2, gt=0, lt=1)
    """Share of the tokens that are asked for."""
    next_sentence: bool = False
    """Whether it also learns to tell if the second part of a text follows the first; needs ``model.n_segments=2``."""
    data: DataConfig | None = None
    """Other texts to learn from, without labels; null: the training texts."""


def prepare(material: Material, held_out: Artifact) -> Prepared:
    """Get ready to name hidden tokens of texts.

    Args:
        material: Its dataset has the texts.
        held_out: The dataset to be trained on later: what is in its test split is not read now either.
    """
    config = material.spec.pretrain
    assert isinstance(config, PretrainConfig)
    if config.next_sentence and getattr(material.spec.model, "n_segments", 0) < 2:
        raise UsageError("next-sentence prediction tells two parts apart", advice="set model.n_segments=2")
    seeds = kept_seeds(material, " pretrain")
    test = set(read_split(held_out, "test", ["id"]).column("id").to_pylist())
    unseen = cache(lambda split: _unseen(material.dataset, split, test))
    train, valid = (f"{split} without the test split of {held_out.digest}" for split in _SPLITS)
    tokenizer = kept_tokenizer(material, lambda: unseen("train"), train)
    signature = text_signature(material, "masked-language-modelling", tokenizer)
    special = SpecialTokens(signature.mask_token, signature.begin_token, signature.end_token)
    max_len = text_config(material.spec.model).max_len - (N_MARKS if config.next_sentence else 0)
    tokens, others = (
        kept_tokens(material, tokenizer, what, partial(unseen, split), max_len, special=not config.next_sentence)
        for split, what in zip(_SPLITS, (train, valid), strict=True)
    )
    module = start_module(material, signature, seeds, tokens)

    def batches(texts: Tokens) -> Callable[[np.ndarray, np.random.Generator], Batch]:
        cut = halves(texts, _sentence_ends(tokenizer)) if config.next_sentence else None

        def make(rows: np.ndarray, generator: np.random.Generator) -> Batch:
            batch = collate(texts, rows, PAD) if cut is None else collate_halves(cut, rows, special, generator)
            marks = (special.begin, special.end)
            return hide_tokens(batch, config.hidden, special.mask, generator, marks)

        return make

    in_training, in_validation = batches(tokens), batches(others)

    def evaluate(trained: Model) -> dict[str, float]:
        return _loss(trained, in_order(others.lengths, config.batch_tokens), in_validation, seeds)

    return Prepared(
        module=module,
        feed=PlannedFeed(
            tokens.lengths,
            lambda rows, step: in_training(rows, seeds.generator("augment", step)),
            config,
            seeds,
            records=_unseen_rows(material.dataset, "train", test),
        ),
        seeds=seeds,
        config=config,
        evaluate=evaluate,
        answerer=TextModel(module, tokenizer),
    )


def _unseen(dataset: Artifact, split: Split, test: set[str]) -> list[str]:
    """The texts of a split that are no test texts."""
    texts = read_split(dataset, split, ["text"]).column("text").to_pylist()
    return [texts[row] for row in _unseen_rows(dataset, split, test)]


def _unseen_rows(dataset: Artifact, split: Split, test: set[str]) -> np.ndarray:
    """int64 [n]: which texts of a split these are."""
    numbers = read_split(dataset, split, ["id"]).column("id").to_pylist()
    return np.array([row for row, number in enumerate(numbers) if number not in test], np.int64)


def _loss(
    trained: Model, rows: list[np.ndarray], make: Callable[[np.ndarray, np.random.Generator], Batch], seeds: Seeds
) -> dict[str, float]:
    """The mean loss over hidden tokens of the validation texts (and their pairs), the same ones every time."""
    device = next(trained.parameters()).device
    total, n_asked = 0.0, 0
    for number, some in enumerate(rows):
        batch = make(some, seeds.generator("sample", "valid", number)).to(device)
        n_here = int((batch.targets != NOT_PREDICTED).sum())
        total, n_asked = total + float(trained.loss(trained(batch), batch)) * n_here, n_asked + n_here
    loss = total / max(1, n_asked)
    return {"score": -loss, "loss": loss}


def _sentence_ends(tokenizer: Tokenizer) -> np.ndarray:
    """Bool [V]: the tokens with which a sentence can end."""
    ends = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    for token, number in tokenizer.get_vocab().items():
        ends[number] = token[-1:] in _ENDS
    return ends
