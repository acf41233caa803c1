"""From token ids to vectors."""

from __future__ import annotations

import torch
from torch import nn

from danlu.model.layers.positions import LearnedPositions, SinusoidalPositions

__all__ = ["TokenEmbedding", "hide"]


class TokenEmbedding(nn.Module):
    """A vector a token, and what else is added to it before the first layer.

    Args:
        vocab_size: Tokens V.
        d_model: Width D.
        positions: Adds a vector for each position; None: nothing (rotary positions come later).
        n_segments: Adds a vector for the first, second, ... text of a record; 0: nothing.
        scale: What the tokens' vectors are multiplied by.
        norm_eps: Epsilon of a LayerNorm of the sum; None: no norm.
        dropout: Share of channels dropped in training.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        positions: LearnedPositions | SinusoidalPositions | None = None,
        n_segments: int = 0,
        norm_eps: float | None = None,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = positions
        self.segments = nn.Embedding(n_segments, d_model) if n_segments else None
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(d_model, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, segments_BT: torch.Tensor | None = None
    ) -> torch.Tensor:
        """``[B, T]`` token ids with their positions, and segments (None: all of the first), to ``[B, T, D]``."""
        x_BTD: torch.Tensor = self.tokens(tokens_BT) * self.scale
        if self.segments is not None:
            x_BTD = x_BTD + self.segments(torch.zeros_like(tokens_BT) if segments_BT is None else segments_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(positions_BT)
        out: torch.Tensor = self.dropout(self.norm(x_BTD))
        return out


def hide(tokens_BT: torch.Tensor, share: float, mask_token: int) -> torch.Tensor:
    """Token ids with a random share of them replaced by ``mask_token`` (word dropout: Iyyer et al., 2015)."""
    hidden_BT = torch.rand(tokens_BT.shape, device=tokens_BT.device) < share
    return tokens_BT.masked_fill(hidden_BT, mask_token)
