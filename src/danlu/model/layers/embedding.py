"""From token ids to vectors."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["TokenEmbedding"]


class TokenEmbedding(nn.Module):
    """A vector a token, normalised; in training some tokens are hidden (word dropout: Iyyer et al., 2015).

    Args:
        vocab_size: Tokens V.
        d_model: Width D.
        mask_token: The id that stands for a hidden token.
        token_dropout: Share of tokens hidden in training.
        dropout: Share of channels dropped in training.
    """

    def __init__(self, vocab_size: int, d_model: int, mask_token: int, token_dropout: float, dropout: float) -> None:
        super().__init__()
        self.mask_token = mask_token
        self.token_dropout = token_dropout
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` token ids to ``[B, T, D]``."""
        if self.training and self.token_dropout:
            hidden_BT = torch.rand(tokens_BT.shape, device=tokens_BT.device) < self.token_dropout
            tokens_BT = tokens_BT.masked_fill(hidden_BT, self.mask_token)
        embedded: torch.Tensor = self.dropout(self.norm(self.tokens(tokens_BT)))
        return embedded
