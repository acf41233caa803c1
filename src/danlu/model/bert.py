"""BERT: a bidirectional Transformer encoder (Devlin et al., 2019), pre-norm, with rotary positions.

    tokens -> embedding -> n_layers x (attention, feed-forward) -> norm -> head

It is pre-trained to name hidden tokens, then trained to name classes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model
from danlu.model.layers.block import EncoderBlock
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.heads import ClassificationHead, MaskedLanguageHead
from danlu.model.layers.pooling import masked_mean

__all__ = ["Bert", "BertConfig"]


class BertConfig(FamilyConfig):
    """A BERT encoder."""

    family: Literal["bert"]
    """Which family."""
    d_model: int = Field(gt=0)
    """Width of the sequence."""
    n_layers: int = Field(gt=0)
    """Transformer blocks."""
    n_heads: int = Field(gt=0)
    """Attention heads of a block."""
    d_ff: int = Field(gt=0)
    """Width of a block's feed-forward part."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share dropped of token vectors and of the text's vector, while it is trained to name classes."""
    block_dropout: float = Field(0.1, ge=0, lt=1)
    """Share dropped inside the blocks, while it is trained to name classes."""
    token_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of tokens hidden while it is trained to name classes."""

    @model_validator(mode="after")
    def _heads_fit(self) -> BertConfig:
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model={self.d_model} is not an even multiple of n_heads={self.n_heads}")
        return self

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"d_model": 128, "n_layers": 1, "n_heads": 4, "d_ff": 384},
            "pretrain": {"epochs": 3},
            "train": {"epochs": 3, "learning_rate": 1e-3, "embedding_rate": 0.3, "consistency": 2.0},
        },
        "small": {
            "model": {"d_model": 256, "n_layers": 4, "n_heads": 4, "d_ff": 1024},
            "pretrain": {"epochs": 10, "learning_rate": 1e-3},
            "train": {"epochs": 4, "learning_rate": 5e-4, "embedding_rate": 0.3},
        },
        "base": {
            "model": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 3072},
            "pretrain": {"epochs": 20, "learning_rate": 4e-4, "batch_tokens": 32768},
            "train": {"epochs": 4, "learning_rate": 5e-5, "batch_tokens": 8192},
        },
    }


class Bert(Model):
    """The encoder; see :class:`danlu.model.base.Model` for the arguments."""

    Config = BertConfig
    config: BertConfig

    def __init__(self, config: BertConfig, *, vocab_size: int, mask_token: int, n_classes: int | None) -> None:
        super().__init__()
        self.config = config
        # Naming hidden tokens is hard enough without dropout; the feed hides the tokens then.
        dropout, block_dropout, token_dropout = (
            (config.dropout, config.block_dropout, config.token_dropout) if n_classes else (0.0, 0.0, 0.0)
        )
        self.embedding = TokenEmbedding(vocab_size, config.d_model, mask_token, token_dropout, dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(config.d_model, config.n_heads, config.d_ff, block_dropout) for _ in range(config.n_layers)
        )
        self.norm = nn.LayerNorm(config.d_model)
        self.head = (
            ClassificationHead(config.d_model, n_classes, dropout, [masked_mean])
            if n_classes
            else MaskedLanguageHead(self.embedding.tokens)
        )

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of classes, or ``logits_MV`` of hidden tokens."""
        x_BTD = self.embedding(batch.tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, batch.mask_BT, batch.positions_BT)
        answer: Output = self.head(self.norm(x_BTD), batch)
        return answer
