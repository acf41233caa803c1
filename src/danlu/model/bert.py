"""BERT: a bidirectional Transformer encoder (Devlin et al., 2019).

    tokens -> embedding -> n_layers x (attention, feed-forward) -> norm -> head

It is pre-trained to name hidden tokens (and whether one text follows another), then trained to name classes. Its own
make is pre-norm with rotary positions; a checkpoint of the first BERT is post-norm with learnt ones.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import Model, Signature, TextConfig
from danlu.model.layers.attention import AttentionConfig, Sight, padding_mask
from danlu.model.layers.block import Block, BlockConfig
from danlu.model.layers.embedding import TokenEmbedding, hide
from danlu.model.layers.feedforward import Activation
from danlu.model.layers.heads import ClassificationHead, MaskedLanguageHead
from danlu.model.layers.pooling import FirstToken, Pooling, masked_mean
from danlu.model.layers.positions import LearnedPositions, Rotary

__all__ = ["Bert", "BertConfig"]


class BertConfig(TextConfig):
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
    positions: Literal["rotary", "learned"] = "rotary"
    """How the model knows the order of the tokens."""
    n_segments: int = Field(0, ge=0)
    """Vectors that tell the first from the second text of a pair; 0: none."""
    norm_first: bool = True
    """Whether each part of a block sees a normalised sequence, or the sum is normalised after it."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to variances before division."""
    activation: Activation = "gelu"
    """What stands between the layers of the feed-forward part."""
    pooling: Literal["mean", "first"] = "mean"
    """What a text's vector is made of: the mean of its tokens, or its first token."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share dropped of token vectors and of the text's vector, while it is trained to name classes."""
    block_dropout: float = Field(0.1, ge=0, lt=1)
    """Share dropped inside the blocks, while it is trained to name classes."""
    token_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of tokens hidden while it is trained to name classes."""
    embedding_from: Literal["cooccurrence", "random"] = "cooccurrence"
    """What the token vectors start from: which tokens stand near which in the training texts, or random numbers."""

    @model_validator(mode="after")
    def _heads_fit(self) -> BertConfig:
        pairs, kind = (2, "an even") if self.positions == "rotary" else (1, "a")
        if self.d_model % (pairs * self.n_heads):
            raise ValueError(f"d_model={self.d_model} is not {kind} multiple of n_heads={self.n_heads}")
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

    fine_tuning: ClassVar[dict[str, Any]] = {"epochs": 3, "learning_rate": 1e-4, "batch_tokens": 2048}


class Bert(Model):
    """The encoder; see :class:`danlu.model.base.Model`."""

    Config = BertConfig
    tasks = frozenset({"text-classification", "masked-language-modelling"})
    config: BertConfig

    def __init__(self, config: BertConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        # Naming hidden tokens is hard enough without dropout; the feed hides the tokens then.
        naming_classes = signature.task == "text-classification"
        dropout = config.dropout if naming_classes else 0.0
        self.token_dropout = config.token_dropout if naming_classes else 0.0
        self.embedding = TokenEmbedding(
            signature.vocab_size,
            config.d_model,
            positions=LearnedPositions(config.max_len, config.d_model) if config.positions == "learned" else None,
            n_segments=config.n_segments,
            norm_eps=config.norm_eps,
            dropout=dropout,
        )
        self.rotary = Rotary(config.d_model // config.n_heads) if config.positions == "rotary" else None
        block = _block(config, config.block_dropout if naming_classes else 0.0)
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.norm_first else nn.Identity()
        self.pooler = FirstToken(config.d_model) if config.pooling == "first" else None
        pooling: Pooling = self.pooler or masked_mean
        self.head = (
            ClassificationHead(config.d_model, signature.n_classes, dropout, [pooling])
            if naming_classes
            else MaskedLanguageHead(
                self.embedding.tokens, config.norm_eps, pooling if config.n_segments else None, config.activation
            )
        )

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of classes, or ``logits_MV`` of hidden tokens."""
        tokens_BT, mask_BT, positions_BT = batch.text
        if self.training and self.token_dropout:
            tokens_BT = hide(tokens_BT, self.token_dropout, self.signature.mask_token)
        x_BTD = self.embedding(tokens_BT, positions_BT, batch.segments_BT)
        rotation = None if self.rotary is None else self.rotary(positions_BT)
        sight = Sight(mask=padding_mask(mask_BT), rotation=rotation)
        for block in self.blocks:
            x_BTD = block(x_BTD, sight)
        answer: Output = self.head(self.norm(x_BTD), batch)
        return answer


def _block(config: BertConfig, dropout: float) -> BlockConfig:
    return BlockConfig(
        attention=AttentionConfig(d_model=config.d_model, n_heads=config.n_heads, dropout=dropout),
        d_ff=config.d_ff,
        activation=config.activation,
        norm_eps=config.norm_eps,
        norm_first=config.norm_first,
        dropout=dropout,
    )
