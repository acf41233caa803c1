"""What every model family is: a config beside a module that turns a batch into an output and an output into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.core.config import Config
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.heads import Head

__all__ = ["FamilyConfig", "Model"]


class FamilyConfig(Config):
    """Base of a family's config.

    Attributes:
        sizes: What the size dial derives: size -> section of the recipe -> the values that it sets there.
    """

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]]

    family: str
    """Which family."""
    size: str = "tiny"
    """The dial that derives the rest; every derived value can be given instead."""
    from_: Literal["scratch"] = Field("scratch", alias="from")
    """What the weights start from."""
    embedding_from: Literal["cooccurrence", "random"] = "cooccurrence"
    """What the token vectors start from: which tokens stand near which in the training texts, or random numbers."""
    max_len: int = Field(128, gt=1)
    """The most tokens of a text that the model sees: the first half and the last half of a longer one."""


class Model(nn.Module, ABC):
    """Base of every family: the trainer, evaluation, serving and audit know nothing more of a model than this.

    A family's constructor takes its config, ``vocab_size`` (tokens V), ``mask_token`` (the id of a hidden token) and
    ``n_classes`` (N; None asks for hidden tokens instead of classes).

    Attributes:
        Config: The family's config class.
        config: What the model was made with.
        embedding: Tokens to vectors.
        head: What answers the task.
    """

    Config: ClassVar[type[FamilyConfig]]
    config: FamilyConfig
    embedding: TokenEmbedding
    head: Head

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Answer a batch."""

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """The scalar loss of an answer in nats, mean over what is to be predicted."""
        return self.head.loss(output, batch)

    def n_parameters(self) -> int:
        """Trainable parameters; one that is shared counts once."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
