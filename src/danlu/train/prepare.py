"""Everything that comes before the first step: texts to tokens, initial weights, the planned batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, SerializeAsAny
from tokenizers import Tokenizer

from danlu.core.artifact import Artifact
from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.core.config import Config
from danlu.core.errors import UsageError
from danlu.core.files import write_atomic
from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens, collate, in_order
from danlu.data.stage import class_names
from danlu.data.tokenizer import MASK, PAD, TokenizerConfig, encode, load_tokenizer, train_tokenizer
from danlu.model.base import FamilyConfig, Model
from danlu.model.classifier import NeuralClassifier, build_module, load_backbone
from danlu.model.init import EMBEDDING_STD, initialise
from danlu.train.consistency import consistent_loss
from danlu.train.cooccurrence import cooccurrence_vectors
from danlu.train.examples import Score, load_examples
from danlu.train.feed import PlannedFeed
from danlu.train.loop import TrainConfig, Training, plain_loss
from danlu.train.masking import hide_tokens

__all__ = ["ClassifyConfig", "Prepared", "PretrainConfig", "TrainingSpec", "prepare_pretraining", "prepare_training"]


class ClassifyConfig(TrainConfig):
    """How a model is trained to name classes."""

    consistency: float = Field(0.0, ge=0)
    """How much two passes of a text, each with a dropout of its own, are to agree; 0 makes one pass only."""


class PretrainConfig(TrainConfig):
    """How a model learns from the training texts alone, by naming hidden tokens, before it is shown a label."""

    epochs: int = Field(0, ge=0)
    """Passes over the training texts; 0 leaves this out."""
    learning_rate: float = Field(2e-3, gt=0)
    """The highest learning rate, reached at the end of the warm-up."""
    hidden: float = Field(0.2, gt=0, lt=1)
    """Share of the tokens that are asked for."""


class TrainingSpec(Config):
    """Everything besides the data that decides what a training run makes."""

    model: SerializeAsAny[FamilyConfig]
    tokenizer: TokenizerConfig
    pretrain: PretrainConfig
    train: ClassifyConfig
    seed: int | None


@dataclass(frozen=True, kw_only=True)
class Prepared(Training):
    """A run that is ready to take its first step.

    Attributes:
        feed: Every step's batch.
        tokenizer: What the module's tokens mean.
    """

    feed: PlannedFeed
    tokenizer: Tokenizer


def prepare_pretraining(dataset: Artifact, spec: TrainingSpec, folder: Path | None) -> Prepared:
    """Get ready to name hidden tokens of the training texts.

    Args:
        dataset: Whose training texts.
        spec: The model, its tokenizer, ``pretrain``.
        folder: The run's folder, where seeds and tokenizer are kept from one process to the next; None keeps nothing.

    Raises:
        UsageError: The family cannot be trained so.
    """
    classes = class_names(dataset)
    train, valid = (load_examples(dataset, split, classes).texts for split in ("train", "valid"))
    seeds = _kept_seeds(folder, None if spec.seed is None else f"{spec.seed} pretrain")
    tokenizer = _kept_tokenizer(folder, train, spec.tokenizer)
    try:
        module = build_module(spec.model, tokenizer, None)
    except ValueError as error:
        raise UsageError(str(error), where="pretrain.epochs", advice="set pretrain.epochs=0") from error
    tokens, held_out = (encode(tokenizer, texts, spec.model.max_len) for texts in (train, valid))
    _initialise(module, tokens, seeds)
    device, config = _device(), spec.pretrain
    module.to(device)

    def make(rows: np.ndarray, step: int) -> Batch:
        batch = collate(tokens, rows, PAD)
        return hide_tokens(batch, config.hidden, MASK, seeds.generator("augment", step)).to(device)

    def evaluate(trained: Model) -> dict[str, float]:
        return _hidden_token_loss(trained, held_out, config, seeds)

    feed = PlannedFeed(tokens.lengths, make, config, seeds)
    return Prepared(module=module, feed=feed, seeds=seeds, config=config, evaluate=evaluate, tokenizer=tokenizer)


def prepare_training(
    dataset: Artifact, spec: TrainingSpec, folder: Path | None, pretrained: Artifact | None, score: Score
) -> Prepared:
    """Get ready to name the classes of the training texts.

    Args:
        dataset: Whose training texts.
        spec: The model, its tokenizer, ``train``.
        folder: As for :func:`prepare_pretraining`.
        pretrained: What the backbone and the tokenizer start from; None starts from drawn weights.
        score: Judges the validation split.
    """
    classes = class_names(dataset)
    train, valid = (load_examples(dataset, split, classes) for split in ("train", "valid"))
    seeds = _kept_seeds(folder, None if spec.seed is None else str(spec.seed))
    if pretrained is None:
        tokenizer = _kept_tokenizer(folder, train.texts, spec.tokenizer)
    else:
        tokenizer = load_tokenizer(pretrained.path / "tokenizer.json")
    module = build_module(spec.model, tokenizer, len(classes))
    tokens, held_out = (encode(tokenizer, each.texts, spec.model.max_len) for each in (train, valid))
    if pretrained is None:
        _initialise(module, tokens, seeds)
    else:
        initialise(module, seeds)
        load_backbone(module, pretrained.path)
    device = _device()
    module.to(device)

    def make(rows: np.ndarray, _step: int) -> Batch:
        return collate(tokens, rows, PAD, train.labels).to(device)

    def evaluate(trained: Model) -> dict[str, float]:
        return score(valid.labels, NeuralClassifier(trained, tokenizer, len(classes)).probabilities(held_out))

    feed = PlannedFeed(tokens.lengths, make, spec.train, seeds)
    loss = partial(consistent_loss, weight=spec.train.consistency) if spec.train.consistency else plain_loss
    return Prepared(
        module=module, feed=feed, seeds=seeds, config=spec.train, loss=loss, evaluate=evaluate, tokenizer=tokenizer
    )


def _initialise(module: Model, tokens: Tokens, seeds: Seeds) -> None:
    """Weights from the seeds; then, if the model wants them so, token vectors from the training texts."""
    initialise(module, seeds)
    if module.config.embedding_from == "cooccurrence":
        weight = module.embedding.tokens.weight
        vocab_size, d_model = weight.shape
        seed = seeds.at("init", "cooccurrence")
        vectors = cooccurrence_vectors(tokens, vocab_size, d_model, std=EMBEDDING_STD, seed=seed)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(vectors))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _hidden_token_loss(trained: Model, held_out: Tokens, config: PretrainConfig, seeds: Seeds) -> dict[str, float]:
    """The mean loss over hidden tokens of the validation texts, the same ones every time."""
    device = next(trained.parameters()).device
    total, n_asked = 0.0, 0
    for number, rows in enumerate(in_order(held_out.lengths, config.batch_tokens)):
        batch = collate(held_out, rows, PAD)
        batch = hide_tokens(batch, config.hidden, MASK, seeds.generator("sample", "valid", number)).to(device)
        assert batch.targets_BT is not None
        n_here = int((batch.targets_BT != NOT_PREDICTED).sum())
        total, n_asked = total + float(trained.loss(trained(batch), batch)) * n_here, n_asked + n_here
    loss = total / max(1, n_asked)
    return {"score": -loss, "loss": loss}


def _kept_seeds(folder: Path | None, seed: str | None) -> Seeds:
    if folder is None:
        return Seeds.new(seed)
    path = folder / "seeds.json"
    if not path.exists():
        Seeds.new(seed).save(path)
    return Seeds.load(path)


def _kept_tokenizer(folder: Path | None, texts: list[str], config: TokenizerConfig) -> Tokenizer:
    if folder is None:
        return train_tokenizer(texts, config)
    path = folder / "tokenizer.json"
    if not path.exists():
        write_atomic(path, train_tokenizer(texts, config).to_str(pretty=True).encode())
    return load_tokenizer(path)
