"""What every way of training gets ready before the first step: seeds, tokenizer, weights, device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import SerializeAsAny
from tokenizers import Tokenizer

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.errors import UsageError
from danlu.core.files import digest_of
from danlu.core.progress import Progress, Silent
from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens
from danlu.data.stage import require_split
from danlu.data.token_store import TokenStore
from danlu.data.tokenizer import (
    TokenizerConfig,
    encode,
    load_tokenizer,
    save_tokenizer,
    special_tokens,
    train_tokenizer,
)
from danlu.model.base import FamilyConfig, Model, Signature, Task, TextConfig
from danlu.model.families import Answerer
from danlu.model.init import EMBEDDING_STD, initialise
from danlu.model.module import build_module
from danlu.model.pretrained.load import load_weights
from danlu.model.pretrained.tokenizers import read_signature, read_tokenizer
from danlu.train.adapt import adapt
from danlu.train.config import TrainConfig
from danlu.train.cooccurrence import cooccurrence_vectors
from danlu.train.engine import Training
from danlu.train.feed import PlannedFeed

__all__ = [
    "Material",
    "Prepared",
    "Score",
    "Sources",
    "Start",
    "TrainingSpec",
    "device",
    "kept_seeds",
    "kept_tokenizer",
    "kept_tokens",
    "start_module",
    "text_signature",
]

_SHOWN = 4
"""Names of tensors that are told."""

Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""Labels [n] and probabilities [n, N] of the validation split to metrics; ``"score"`` picks the best weights."""


class TrainingSpec(Config):
    """Everything besides the data that decides what a training run makes."""

    task: Task
    model: SerializeAsAny[FamilyConfig]
    tokenizer: TokenizerConfig
    pretrain: SerializeAsAny[TrainConfig] | None
    train: SerializeAsAny[TrainConfig]
    seed: int | None

    def made(self) -> dict[str, Any]:
        """What decides what comes out: all but how the runs are carried out."""
        phases = {"pretrain": self.pretrain, "train": self.train}
        made = {name: config.made() for name, config in phases.items() if config is not None}
        return self.plain() | made

    @property
    def pretrains(self) -> bool:
        """Whether the model learns from the texts alone first."""
        return self.pretrain is not None and self.pretrain.epochs > 0


@dataclass(frozen=True)
class Start:
    """A checkpoint to start from.

    Attributes:
        path: Its folder.
        digest: Of everything in it that matters.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class Sources:
    """What a model is made from besides its dataset.

    Attributes:
        start: The checkpoint to start from; None starts from drawn weights.
        texts: A dataset to pre-train on; None pre-trains on the training texts.
    """

    start: Start | None = None
    texts: Artifact | None = None

    @property
    def parents(self) -> dict[str, str]:
        """The digests of both, as parents of what is made."""
        found = {"start": self.start, "texts": self.texts}
        return {name: source.digest for name, source in found.items() if source is not None}


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run is prepared from.

    Attributes:
        dataset: What to train on; its test split is not touched.
        spec: The model and its training.
        folder: The run's folder, where seeds and tokenizer are kept from one process to the next; None keeps nothing.
        start: A folder with the weights and the tokenizer to start from; None starts from drawn weights.
        score: Judges a classifier on the validation split.
        progress: Told what did not come from the weights to start from.
        store: Where what texts were cut into is kept for other runs.
    """

    dataset: Artifact
    spec: TrainingSpec
    folder: Path | None
    start: Path | None
    score: Score
    progress: Progress = field(default_factory=Silent)
    store: TokenStore = field(default_factory=lambda: TokenStore(None))

    def __post_init__(self) -> None:
        for split in ("train", "valid"):
            require_split(self.dataset, split)


@dataclass(frozen=True, kw_only=True)
class Prepared(Training):
    """A run that is ready to take its first step.

    Attributes:
        feed: Every step's batch.
        answerer: What answers raw records by the module; it shares the module's weights.
    """

    feed: PlannedFeed
    answerer: Answerer


def kept_seeds(material: Material, phase: str = "") -> Seeds:
    """The seeds of a run, the same in every process; a phase before the last has its own."""
    seed = None if material.spec.seed is None else f"{material.spec.seed}{phase}"
    if material.folder is None:
        return Seeds.new(seed)
    path = material.folder / "seeds.json"
    if not path.exists():
        Seeds.new(seed).save(path)
    return Seeds.load(path)


def kept_tokenizer(material: Material, texts: Callable[[], list[str]], what: str = "train") -> Tokenizer:
    """The tokenizer of the weights to start from, or one trained on texts, the same in every process and run.

    Args:
        material: What the run is prepared from.
        texts: The texts to learn from, read where that was not done before.
        what: Which texts of the dataset these are; no others go by that name.
    """
    if material.start is not None:
        return read_tokenizer(material.start)
    config = material.spec.tokenizer

    def learnt() -> Tokenizer:
        key = {"dataset": material.dataset.digest, "what": what, "task": material.spec.task, "config": config.plain()}
        return material.store.tokenizer(key, lambda: train_tokenizer(texts(), config))

    if material.folder is None:
        return learnt()
    path = material.folder / "tokenizer.json"
    if not path.exists():
        save_tokenizer(path, learnt())
    return load_tokenizer(path)


def kept_tokens(
    material: Material,
    tokenizer: Tokenizer,
    what: str,
    texts: Callable[[], list[str]],
    max_len: int | None,
    *,
    special: bool = True,
) -> Tokens:
    """Texts as a tokenizer cuts them, the same in every process and run.

    Args:
        material: What the run is prepared from.
        tokenizer: The run's.
        what: Which texts of the dataset these are; no others go by that name.
        texts: The texts themselves, read where they were not cut before.
        max_len: As for :func:`danlu.data.tokenizer.encode`, and
        special: likewise.
    """
    key = {
        "dataset": material.dataset.digest,
        "what": what,
        "tokenizer": digest_of(tokenizer.to_str()),
        "max_len": max_len,
        "special": special,
    }
    return Tokens(**material.store.arrays(key, lambda: vars(encode(tokenizer, texts(), max_len, special=special))))


def text_signature(material: Material, task: Task, tokenizer: Tokenizer, n_classes: int = 0) -> Signature:
    """The signature of a model that reads what a tokenizer writes."""
    if material.start is not None:
        return read_signature(material.start, tokenizer, task, n_classes)
    special = special_tokens(tokenizer)
    return Signature(
        task=task,
        vocab_size=tokenizer.get_vocab_size(),
        mask_token=special.mask,
        begin_token=special.begin,
        end_token=special.end,
        n_classes=n_classes,
    )


def start_module(material: Material, signature: Signature, seeds: Seeds, tokens: Tokens | None = None) -> Model:
    """The module with its first weights, on the device, and what is not to be trained frozen.

    They are drawn from the seeds; then token vectors come from the training texts, if the model wants them so; or all
    but a new head's come from the weights to start from.

    Args:
        material: The model's config, and what to start from.
        signature: What the model takes and answers.
        seeds: The run's seeds.
        tokens: The training texts, where there are any.

    Raises:
        UsageError: The family does not do the task, or its sizes do not fit each other.
        CorruptError: The weights to start from do not fit.
    """
    config = material.spec.model
    try:
        module = build_module(config, signature)
    except ValueError as error:
        raise UsageError(str(error), where="model", advice="choose another family, or other sizes") from error
    initialise(module, seeds)
    if material.start is not None:
        loaded = load_weights(module, material.start)
        for names, what in ((loaded.new, "drawn anew"), (loaded.left_out, "of the checkpoint left out")):
            if names:
                material.progress.note(f"{what}: {', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}")
    elif isinstance(config, TextConfig) and config.embedding_from == "cooccurrence" and tokens is not None:
        weight = module.get_parameter("embedding.tokens.weight")
        seed = seeds.at("init", "cooccurrence")
        vectors = cooccurrence_vectors(tokens, weight.shape[0], weight.shape[1], std=EMBEDDING_STD, seed=seed)
        known_V1 = torch.from_numpy(vectors.any(axis=1, keepdims=True))
        with torch.no_grad():  # a token without company, such as the mask, keeps what was drawn for it
            weight.copy_(torch.where(known_V1, torch.from_numpy(vectors), weight))
    if signature.task == material.spec.task:
        adapt(module, material.spec.train.adapt, seeds)
    return module.to(device())


def device() -> torch.device:
    """Where models are trained: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
