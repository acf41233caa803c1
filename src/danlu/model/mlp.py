"""MLP: a multilayer perceptron on the pixels of a picture.

pixels -> n_layers x (linear, batch norm, ReLU, dropout) -> head

It knows nothing of what lies beside what: the baseline of the other families of pictures.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model, Signature
from danlu.model.layers.heads import ClassificationHead
from danlu.model.layers.pixels import MOVES, Pixels
from danlu.model.layers.pooling import masked_mean

__all__ = ["Mlp", "MlpConfig"]


class MlpConfig(FamilyConfig):
    """A multilayer perceptron."""

    family: Literal["mlp"]
    """Which family."""
    d_model: int = Field(gt=0)
    """Width of the layers."""
    n_layers: int = Field(gt=0)
    """Layers before the head."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of each layer's channels dropped in training."""

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"d_model": 1024, "n_layers": 2},
            "train": {"epochs": 8, "learning_rate": 2e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "small": {
            "model": {"d_model": 1024, "n_layers": 3},
            "train": {"epochs": 20, "learning_rate": 1e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "base": {
            "model": {"d_model": 2048, "n_layers": 4},
            "train": {"epochs": 40, "learning_rate": 5e-4, "batch_tokens": 256, "augment": MOVES},
        },
    }


class Mlp(Model):
    """The perceptron; see :class:`danlu.model.base.Model`."""

    Config = MlpConfig
    tasks = frozenset({"image-classification"})
    config: MlpConfig

    def __init__(self, config: MlpConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.pixels = Pixels(signature.image_size)
        widths = [math.prod(self.pixels.size)] + config.n_layers * [config.d_model]
        self.layers = nn.Sequential(*(_layer(*pair, config.dropout) for pair in pairwise(widths)))
        self.head = ClassificationHead(config.d_model, signature.n_classes, 0.0, [masked_mean])

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of pictures."""
        x_BD: torch.Tensor = self.layers(self.pixels(batch).flatten(1))
        answer: Output = self.head(x_BD[:, None], batch)
        return answer


def _layer(d_in: int, d_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d_in, d_out), nn.BatchNorm1d(d_out), nn.ReLU(), nn.Dropout(dropout))
