"""The position-wise part of a Transformer block."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["FeedForward"]


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them (Hendrycks & Gimpel, 2016).

    Args:
        d_model: Width D.
        d_ff: Width F in between.
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff)
        self.down = nn.Linear(d_ff, d_model)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Apply it to every position; ``[B, T, D]`` in and out."""
        out: torch.Tensor = self.down(F.gelu(self.up(x_BTD)))
        return out
