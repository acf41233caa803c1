"""BERT: a bidirectional Transformer encoder (Devlin et al., 2019), pre-norm, with rotary positions.

tokens -> embedding -> n_layers x (attention, feed-forward) -> norm -> mean and maximum over the text -> classes
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model
from danlu.model.layers.block import EncoderBlock
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.pooling import masked_max, masked_mean
from danlu.model.loss import classification_loss

__all__ = ["Bert", "BertConfig"]


class BertConfig(FamilyConfig):
    """A BERT encoder."""

    family: Literal["bert"]
    """Which family."""
    d_model: int
    """Width of the sequence."""
    n_layers: int
    """Transformer blocks."""
    n_heads: int
    """Attention heads of a block."""
    d_ff: int
    """Width of a block's feed-forward part."""
    dropout: float = 0.1
    """Share dropped inside and after every part, in training."""
    token_dropout: float = 0.1
    """Share of tokens hidden in training."""
    label_smoothing: float = 0.0
    """Share of the uniform distribution mixed into the label."""

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {"model": {"d_model": 128, "n_layers": 2, "n_heads": 4, "d_ff": 512}},
        "small": {"model": {"d_model": 256, "n_layers": 4, "n_heads": 4, "d_ff": 1024}},
        "base": {"model": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 3072}},
    }


class Bert(Model):
    """The encoder with a classification head.

    Args:
        config: Its config.
        vocab_size: Tokens V.
        n_classes: Classes N.
        mask_token: The id of ``<mask>``.
    """

    Config = BertConfig
    config: BertConfig

    def __init__(self, config: BertConfig, *, vocab_size: int, n_classes: int, mask_token: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(vocab_size, config.d_model, mask_token, config.token_dropout, config.dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.d_model, config.n_heads, config.d_ff, config.dropout) for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(2 * config.d_model, n_classes)

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of texts."""
        x_BTD = self.embedding(batch.tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, batch.mask_BT, batch.positions_BT)
        x_BTD = self.norm(x_BTD)
        text_BD = torch.cat([masked_mean(x_BTD, batch.mask_BT), masked_max(x_BTD, batch.mask_BT)], dim=-1)
        return Output(logits=self.head(self.dropout(text_BD)))

    def loss(self, output: Output, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the labels."""
        assert batch.labels_B is not None
        return classification_loss(output.logits, batch.labels_B, self.config.label_smoothing)
