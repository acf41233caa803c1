"""CNN: a residual convolutional network (LeCun et al., 1998; He et al., 2016).

    pixels -> stem -> stages of n_blocks residual blocks, each stage at half the sides of the one before -> head

Every convolution is followed by batch norm (Ioffe & Szegedy, 2015) and ReLU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model, Signature
from danlu.model.layers.heads import ClassificationHead
from danlu.model.layers.pixels import MOVES, Pixels
from danlu.model.layers.pooling import masked_mean

__all__ = ["Cnn", "CnnConfig"]


class CnnConfig(FamilyConfig):
    """A residual convolutional network."""

    family: Literal["cnn"]
    """Which family."""
    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    """Width of each stage; each has half the sides of the one before, and the first half those of the stem."""
    n_blocks: int = Field(1, ge=0)
    """Residual blocks of a stage."""
    stem_kernel: int = Field(3, gt=0)
    """Side of the first convolution's kernel."""
    stem_stride: int = Field(1, gt=0)
    """Step of the first convolution: 2 for pictures of 100 pixels a side and more."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share dropped of the picture's vector in training."""

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"channels": [16, 32, 64], "n_blocks": 1},
            "train": {"optimizer": "muon", "epochs": 7, "learning_rate": 4e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "small": {
            "model": {"channels": [64, 128, 256], "n_blocks": 2},
            "train": {"optimizer": "muon", "epochs": 20, "learning_rate": 4e-3, "batch_tokens": 128, "augment": MOVES},
        },
        "base": {
            "model": {"channels": [64, 128, 256, 512], "n_blocks": 2, "stem_kernel": 7, "stem_stride": 2},
            "train": {"optimizer": "muon", "epochs": 60, "learning_rate": 2e-3, "batch_tokens": 256, "augment": MOVES},
        },
    }


class Cnn(Model):
    """The convolutional network; see :class:`danlu.model.base.Model`."""

    Config = CnnConfig
    tasks = frozenset({"image-classification"})
    config: CnnConfig

    def __init__(self, config: CnnConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.pixels = Pixels(signature.image_size)
        first, last = config.channels[0], config.channels[-1]
        self.stem = nn.Sequential(
            _convolution(self.pixels.size[0], first, config.stem_kernel, config.stem_stride),
            nn.MaxPool2d(2, ceil_mode=True),  # before the norm, which then has a quarter of the work
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        self.stages = nn.Sequential(_blocks(first, config.n_blocks))
        for narrow, wide in pairwise(config.channels):
            self.stages.append(_halving(narrow, wide))
            self.stages.append(_blocks(wide, config.n_blocks))
        self.head = ClassificationHead(last, signature.n_classes, config.dropout, [masked_mean])

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of pictures."""
        # Channels last in memory: a step on a CPU then takes 0.7 times as long. Not contiguous(), which leaves the
        # strides of pictures with one channel as they are, so that every layer after it goes channels first.
        images_BCYX = self.pixels(batch).to(memory_format=torch.channels_last)
        x_BCYX: torch.Tensor = self.stages(self.stem(images_BCYX))
        places_BTC = x_BCYX.flatten(2).transpose(1, 2)
        answer: Output = self.head(places_BTC, batch)
        return answer


class _Residual(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.first, self.second = (_convolution(n_channels, n_channels) for _ in range(2))
        self.first_norm, self.second_norm = (nn.BatchNorm2d(n_channels) for _ in range(2))

    def forward(self, x_BCYX: torch.Tensor) -> torch.Tensor:
        y_BCYX = F.relu(self.first_norm(self.first(x_BCYX)))
        return F.relu(x_BCYX + self.second_norm(self.second(y_BCYX)))


def _blocks(n_channels: int, n_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(n_channels) for _ in range(n_blocks)))


def _halving(narrow: int, wide: int) -> nn.Sequential:
    """To half the sides and another width."""
    return nn.Sequential(_convolution(narrow, wide, stride=2), nn.BatchNorm2d(wide), nn.ReLU())


def _convolution(n_in: int, n_out: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Without a bias, which the norm after it would take away again."""
    return nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)
