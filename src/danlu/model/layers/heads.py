"""Heads: from the backbone's sequence to the answer of a task, and from the answer to its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch, Output, Unscored
from danlu.model.layers.cross_entropy import LARGE, linear_cross_entropy
from danlu.model.layers.feedforward import Activation, curve
from danlu.model.layers.pooling import Pooling

__all__ = ["ClassificationHead", "Head", "LanguageHead", "MaskedLanguageHead"]


class Head(nn.Module, ABC):
    """What every head is."""

    @abstractmethod
    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """Answer a batch from the backbone's sequence."""

    @abstractmethod
    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """The scalar loss of an answer in nats: its sum over what is to be predicted, divided by how much that is.

        Where the batch is a part of a step (:attr:`Batch.whole`), that is how much the whole step asks for.
        """


class ClassificationHead(Head):
    """One vector a record, then a linear layer.

    Args:
        d_model: Width D of the sequence.
        n_classes: Classes N.
        dropout: Share of channels dropped in training.
        poolings: What the record's vector is made of, side by side: ``masked_mean``, ``masked_max``, a ``FirstToken``.
    """

    def __init__(self, d_model: int, n_classes: int, dropout: float, poolings: Sequence[Pooling]) -> None:
        super().__init__()
        self.poolings = tuple(poolings)  # a pooling with weights is the backbone's, and saved with it
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(len(poolings) * d_model, n_classes)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """``logits_BN``."""
        mask_BT = batch.mask_BT
        if mask_BT is None:  # a sequence of patches has no padding
            mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        record_BD = torch.cat([pool(x_BTD, mask_BT) for pool in self.poolings], dim=-1)
        return Output(scored=self.linear(self.dropout(record_BD)))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the labels."""
        return _of_labels(output.logits, batch)


class MaskedLanguageHead(Head):
    """Which token was hidden here, and does the second text follow the first (Devlin et al., 2019)?

    Args:
        embedding: The token embedding, whose vectors also score the tokens (Press & Wolf, 2017).
        norm_eps: Epsilon of its LayerNorm.
        pooling: What the pair's vector is made of, where pairs are judged; None: they are not.
        activation: What stands between its layers.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        norm_eps: float = 1e-5,
        pooling: Pooling | None = None,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        vocab_size, d_model = embedding.weight.shape
        self.linear = nn.Linear(d_model, d_model)
        self.curve = curve(activation)
        self.norm = nn.LayerNorm(d_model, eps=norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.pair = None if pooling is None else nn.Linear(d_model, 2)
        # In a tuple, so that the shared weights are the backbone's alone when the model is saved.
        self._shared = (embedding, pooling)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """``logits_MV`` of the tokens asked for, in reading order, or ``logits_BTV``; and ``pair_logits_B2``."""
        embedding, pooling = self._shared
        x_MD = _asked_for(x_BTD, batch)
        answer = _scored(self.norm(self.curve(self.linear(x_MD))), embedding.weight, self.bias)
        if self.pair is None or pooling is None:
            return answer
        assert batch.mask_BT is not None, "pairs are texts"
        return replace(answer, pair_logits_B2=self.pair(pooling(x_BTD, batch.mask_BT)))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the hidden tokens (0 where a batch hides none), plus that of the pairs where there are."""
        loss = _of_tokens(output, batch)
        if output.pair_logits_B2 is not None and batch.labels_B is not None:
            loss = loss + _of_labels(output.pair_logits_B2, batch)
        return loss


class LanguageHead(Head):
    """Which token comes next?

    Args:
        embedding: The token embedding, whose vectors also score the tokens; None: the head has its own.
        vocab_size: Tokens V.
        d_model: Width D of the sequence.
        smoothing: Share of the target that is spread over all tokens in training (Szegedy et al., 2016).
    """

    def __init__(self, embedding: nn.Embedding | None, vocab_size: int, d_model: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, vocab_size, bias=False) if embedding is None else None
        self.smoothing = smoothing
        self._shared = (embedding,)

    @property
    def weight(self) -> torch.Tensor:
        """``[V, D]``: the vectors that score the tokens."""
        (embedding,) = self._shared
        if self.linear is not None:
            return self.linear.weight
        assert embedding is not None
        return embedding.weight

    def scores(self, x_BD: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` to logits ``[..., V]``."""
        return F.linear(x_BD, self.weight)

    def forward(self, x_BTD: torch.Tensor, batch: Batch) -> Output:
        """``logits_MV`` where there is a target, or ``logits_BTV`` where the batch has none."""
        return _scored(_asked_for(x_BTD, batch), self.weight)

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the next tokens; 0 where there is none."""
        return _of_tokens(output, batch, self.smoothing if self.training else 0.0)


def _asked_for(x_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
    """``[M, D]``: the places where there is a target; all of them, ``[B, T, D]``, where the batch has none."""
    return x_BTD if batch.targets_BT is None else x_BTD.flatten(0, 1).index_select(0, batch.asked)


def _scored(x_MD: torch.Tensor, weight_VD: torch.Tensor, bias_V: torch.Tensor | None = None) -> Output:
    """An answer with the scores of all tokens; in training, where these would be too many, without."""
    too_many = x_MD.requires_grad and x_MD.ndim == 2 and len(x_MD) * len(weight_VD) >= LARGE
    if too_many:
        return Output(unscored=Unscored(x_MD=x_MD, weight_VD=weight_VD, bias_V=bias_V))
    return Output(scored=F.linear(x_MD, weight_VD, bias_V))


def _of_tokens(output: Output, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    targets_M = batch.targets.flatten().index_select(0, batch.asked)
    if (left := output.unscored) is not None:
        total = linear_cross_entropy(left.x_MD, left.weight_VD, left.bias_V, targets_M, smoothing)
    else:
        total = F.cross_entropy(output.logits.float(), targets_M, reduction="sum", label_smoothing=smoothing)
    return total / max(1, batch.n_targets)


def _of_labels(logits_BN: torch.Tensor, batch: Batch) -> torch.Tensor:
    assert batch.labels_B is not None, "a classifier is trained on labels"
    return F.cross_entropy(logits_BN.float(), batch.labels_B, reduction="sum") / batch.n_records
