"""Heads: from the backbone's sequence to the answer of a task, and from the answer to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import NOT_PREDICTED, Batch, Output
from danlu.model.layers.pooling import Pooling

__all__ = ["ClassificationHead", "Head", "MaskedLanguageHead"]


class Head(nn.Module, ABC):
    """What every head is."""

    @abstractmethod
    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """Answer a batch from the backbone's sequence."""

    @abstractmethod
    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """The scalar loss of an answer in nats, mean over what is to be predicted."""


class ClassificationHead(Head):
    """One vector a text, then a linear layer.

    Args:
        d_model: Width D of the sequence.
        n_classes: Classes N.
        dropout: Share of channels dropped in training.
        poolings: What the text's vector is made of, side by side: ``masked_mean``, ``masked_max``.
    """

    def __init__(self, d_model: int, n_classes: int, dropout: float, poolings: Sequence[Pooling]) -> None:
        super().__init__()
        self.poolings = poolings
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(len(poolings) * d_model, n_classes)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """``logits_BN``."""
        text_BD = torch.cat([pool(x_BTD, batch.mask_BT) for pool in self.poolings], dim=-1)
        return Output(logits=self.linear(self.dropout(text_BD)))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the labels."""
        assert batch.labels_B is not None, "a classifier is trained on labels"
        return F.cross_entropy(output.logits.float(), batch.labels_B)


class MaskedLanguageHead(Head):
    """Which token was hidden here? (Devlin et al., 2019.) Logits only where one was.

    Args:
        embedding: The token embedding, whose vectors also score the tokens (Press & Wolf, 2017).
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        vocab_size, d_model = embedding.weight.shape
        self.linear = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        # In a tuple, so that the shared weight is the embedding's alone when the model is saved.
        self._shared = (embedding,)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """``logits_MV`` of the M hidden tokens, in reading order."""
        assert batch.targets_BT is not None, "hidden tokens are asked for by targets"
        x_MD = x_BTD[batch.targets_BT != NOT_PREDICTED]
        return Output(logits=F.linear(self.norm(F.gelu(self.linear(x_MD))), self._shared[0].weight, self.bias))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the hidden tokens; 0 where a batch hides none."""
        assert batch.targets_BT is not None, "hidden tokens are asked for by targets"
        targets_M = batch.targets_BT[batch.targets_BT != NOT_PREDICTED]
        return F.cross_entropy(output.logits.float(), targets_M, reduction="sum") / max(1, len(targets_M))
