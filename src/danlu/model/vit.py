"""ViT: a bidirectional Transformer encoder over the patches of a picture (Dosovitskiy et al., 2021), pre-norm.

    pixels -> patches, positions -> n_layers x (attention, feed-forward) -> norm -> head

The picture's vector is the mean of its patches' (Beyer et al., 2022), so that there is no class token.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model, Signature
from danlu.model.layers.attention import AttentionConfig, Sight
from danlu.model.layers.block import Block, BlockConfig
from danlu.model.layers.heads import ClassificationHead
from danlu.model.layers.patches import PatchEmbedding
from danlu.model.layers.pixels import MOVES, Pixels
from danlu.model.layers.pooling import masked_mean

__all__ = ["Vit", "VitConfig"]


class VitConfig(FamilyConfig):
    """A vision Transformer."""

    family: Literal["vit"]
    """Which family."""
    patch_size: int = Field(gt=0)
    """Side of a patch in pixels; it divides both sides of the pictures."""
    d_model: int = Field(gt=0)
    """Width of the sequence."""
    n_layers: int = Field(gt=0)
    """Transformer blocks."""
    n_heads: int = Field(gt=0)
    """Attention heads of a block."""
    d_ff: int = Field(gt=0)
    """Width of a block's feed-forward part."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share dropped in training of attention weights and of what each part of a block adds."""

    @model_validator(mode="after")
    def _heads_fit(self) -> VitConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}")
        return self

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"patch_size": 7, "d_model": 128, "n_layers": 2, "n_heads": 2, "d_ff": 256},
            "train": {"optimizer": "muon", "epochs": 11, "learning_rate": 4e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "small": {
            "model": {"patch_size": 8, "d_model": 192, "n_layers": 8, "n_heads": 3, "d_ff": 768, "dropout": 0.1},
            "train": {"optimizer": "muon", "epochs": 40, "learning_rate": 2e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "base": {
            "model": {"patch_size": 16, "d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 3072, "dropout": 0.1},
            "train": {"optimizer": "muon", "epochs": 100, "learning_rate": 1e-3, "batch_tokens": 256, "augment": MOVES},
        },
    }


class Vit(Model):
    """The vision Transformer; see :class:`danlu.model.base.Model`."""

    Config = VitConfig
    tasks = frozenset({"image-classification"})
    config: VitConfig

    def __init__(self, config: VitConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.pixels = Pixels(signature.image_size)
        self.patches = PatchEmbedding(self.pixels.size, config.patch_size, config.d_model)
        block = BlockConfig(
            attention=AttentionConfig(d_model=config.d_model, n_heads=config.n_heads, dropout=config.dropout),
            d_ff=config.d_ff,
            dropout=config.dropout,
        )
        self.blocks = nn.ModuleList(Block(block) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = ClassificationHead(config.d_model, signature.n_classes, config.dropout, [masked_mean])

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of pictures."""
        x_BTD: torch.Tensor = self.patches(self.pixels(batch))
        sight = Sight()
        for block in self.blocks:
            x_BTD = block(x_BTD, sight)
        answer: Output = self.head(self.norm(x_BTD), batch)
        return answer
