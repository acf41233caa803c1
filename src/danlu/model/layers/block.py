"""One pre-norm Transformer encoder block."""

from __future__ import annotations

import torch
from torch import nn

from danlu.model.layers.attention import SelfAttention
from danlu.model.layers.feedforward import FeedForward

__all__ = ["EncoderBlock"]


class EncoderBlock(nn.Module):
    """``x + attention(norm(x))``, then ``x + feedforward(norm(x))`` (pre-norm: Xiong et al., 2020).

    Args:
        d_model: Width D.
        n_heads: Attention heads.
        d_ff: Width of the feed-forward part.
        dropout: Share dropped of attention weights and of what each part adds.
    """

    def __init__(self, d_model: int, n_heads: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = SelfAttention(d_model, n_heads, dropout)
        self.feedforward_norm = nn.LayerNorm(d_model)
        self.feedforward = FeedForward(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
        """Mix the sequence; ``[B, T, D]`` in and out. Masks and positions as in :class:`SelfAttention`."""
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), mask_BT, positions_BT))
        x_BTD = x_BTD + self.dropout(self.feedforward(self.feedforward_norm(x_BTD)))
        return x_BTD
