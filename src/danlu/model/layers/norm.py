"""Normalisation of a vector: LayerNorm or RMSNorm."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

__all__ = ["Norm", "RmsNorm", "make_norm"]

Norm = Literal["layer", "rms"]
"""``layer``: zero mean, unit variance, scale and shift (Ba et al., 2016). ``rms``: unit mean square, scale (Zhang &
Sennrich, 2019)."""


class RmsNorm(nn.RMSNorm):
    """RMSNorm in the precision of its own weights, whatever the sequence comes in (bfloat16, under autocast)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` in and out."""
        return super().forward(x.to(self.weight.dtype))


def make_norm(kind: Norm, d_model: int, eps: float) -> nn.Module:
    """A norm over the last dimension, of width ``d_model``; ``eps`` is added to the variance or mean square."""
    return nn.LayerNorm(d_model, eps=eps) if kind == "layer" else RmsNorm(d_model, eps=eps)
