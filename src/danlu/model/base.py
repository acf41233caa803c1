"""What every model family is: a config beside a module that turns a batch into an output and an output into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from pydantic import Field
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.core.config import Config
from danlu.model.layers.heads import Head

__all__ = ["FamilyConfig", "Generative", "Model", "Signature", "State", "Task", "TextConfig", "text_config"]

Task = Literal[
    "text-classification", "image-classification", "masked-language-modelling", "language-modelling", "translation"
]
"""What a model can be trained to do."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and what it answers: fixed by the data and the tokenizer, not by the recipe.

    Attributes:
        task: What it does.
        vocab_size: Tokens V, where it takes text.
        mask_token: The id that stands for a hidden token.
        begin_token: The id before the first token of a text, where texts are generated.
        end_token: The id after its last token.
        n_classes: Classes N, where it names classes.
        image_size: Channels C, height Y and width X, where it takes pictures.
    """

    task: Task
    vocab_size: int = 0
    mask_token: int = 0
    begin_token: int = 0
    end_token: int = 0
    n_classes: int = 0
    image_size: tuple[int, int, int] | None = None


class FamilyConfig(Config):
    """Base of a family's config.

    Attributes:
        sizes: What the size dial derives: size -> section of the recipe -> the values that it sets there.
        fine_tuning: What the ``train`` section is where the weights start from a checkpoint.
    """

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]]
    fine_tuning: ClassVar[dict[str, Any]] = {"epochs": 3, "learning_rate": 1e-4}

    family: str
    """Which family."""
    size: str = "tiny"
    """The dial that derives the rest; every derived value can be given instead."""
    from_: str = Field("scratch", alias="from")
    """What the weights start from: ``scratch``, a checkpoint's folder, ``sample:NAME`` or ``name@alias``."""


class TextConfig(FamilyConfig):
    """Base of the config of a family that reads text."""

    embedding_from: Literal["cooccurrence", "random"] = "random"
    """What the token vectors start from: which tokens stand near which in the training texts, or random numbers."""
    max_len: int = Field(128, gt=1)
    """The most tokens of a text that the model sees."""


class Model(nn.Module, ABC):
    """Base of every family: the trainer, evaluation, serving and audit know nothing more of a model than this.

    Args:
        config: The family's own.
        signature: What it takes and answers.

    Attributes:
        Config: The family's config class.
        tasks: What a model of the family can be trained to do.
        head: What answers the task.
    """

    Config: ClassVar[type[FamilyConfig]]
    tasks: ClassVar[frozenset[Task]]
    config: FamilyConfig
    signature: Signature
    head: Head

    def __init__(self, config: FamilyConfig, signature: Signature) -> None:
        super().__init__()
        if signature.task not in self.tasks:
            raise ValueError(f"a {config.family} is not trained for {signature.task}, but for {sorted(self.tasks)}")
        self.config = config
        self.signature = signature

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Answer a batch."""

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """The scalar loss of an answer in nats, mean over what is to be predicted."""
        return self.head.loss(output, batch)

    def n_parameters(self) -> int:
        """Parameters; one that is shared counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def n_trained(self) -> int:
        """Parameters that are not frozen."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def text_config(config: FamilyConfig) -> TextConfig:
    """The config of a family that reads text."""
    assert isinstance(config, TextConfig), f"a {config.family} reads no text"
    return config


class State(Protocol):
    """What a model keeps of the texts that it is continuing."""

    lengths_B: torch.Tensor

    def select(self, rows_B: torch.Tensor) -> Self:
        """The state of some rows, in this order; a row may come several times."""
        ...


class Generative(Protocol):
    """A model that continues texts, or translates them, one token at a time."""

    config: TextConfig

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, State]:
        """Read prompts.

        Args:
            batch: Prompts of at least one token each, padded on the right.
            max_len: The most tokens, prompt included, that a text may come to.

        Returns:
            ``logits_BV`` of the token after each prompt, and the state to go on from.
        """
        ...

    def advance(self, tokens_B: torch.Tensor, state: State) -> torch.Tensor:
        """Read one more token of every text; the state is changed in place.

        Returns:
            ``logits_BV`` of the token after it.
        """
        ...
