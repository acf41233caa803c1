"""GRU: a bidirectional gated recurrent network (Cho et al., 2014) over the tokens of a text.

tokens -> embedding -> n_layers x bidirectional GRU -> mean and maximum over the text -> classes
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.pooling import masked_max, masked_mean
from danlu.model.loss import classification_loss

__all__ = ["Gru", "GruConfig"]


class GruConfig(FamilyConfig):
    """A bidirectional GRU."""

    family: Literal["gru"]
    """Which family."""
    d_model: int
    """Width of the embedding."""
    n_layers: int
    """Recurrent layers."""
    d_hidden: int
    """Width of the state, in each direction."""
    dropout: float = 0.1
    """Share of channels dropped in training, of the embedding and of the text's vector."""
    token_dropout: float = 0.1
    """Share of tokens hidden in training."""

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {"model": {"d_model": 128, "n_layers": 1, "d_hidden": 64}},
        "small": {"model": {"d_model": 256, "n_layers": 1, "d_hidden": 256}},
        "base": {"model": {"d_model": 512, "n_layers": 2, "d_hidden": 512}},
    }


class Gru(Model):
    """The recurrent network with a classification head.

    Args:
        config: Its config.
        vocab_size: Tokens V.
        n_classes: Classes N.
        mask_token: The id of ``<mask>``.
    """

    Config = GruConfig
    config: GruConfig

    def __init__(self, config: GruConfig, *, vocab_size: int, n_classes: int, mask_token: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(vocab_size, config.d_model, mask_token, config.token_dropout, config.dropout)
        self.gru = nn.GRU(config.d_model, config.d_hidden, config.n_layers, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(4 * config.d_hidden, n_classes)

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of texts; the state of a text never sees padding."""
        lengths_B = batch.mask_BT.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            self.embedding(batch.tokens_BT), lengths_B, batch_first=True, enforce_sorted=False
        )
        x_BTD, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=batch.tokens_BT.shape[1])
        text_BD = torch.cat([masked_mean(x_BTD, batch.mask_BT), masked_max(x_BTD, batch.mask_BT)], dim=-1)
        return Output(logits=self.head(self.dropout(text_BD)))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the labels."""
        assert batch.labels_B is not None
        return classification_loss(output.logits, batch.labels_B)
