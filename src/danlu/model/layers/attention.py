"""Multi-head attention (Vaswani et al., 2017) over padded batches, with rotary positions."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from danlu.model.layers.positions import Rotary

__all__ = ["SelfAttention"]


class SelfAttention(nn.Module):
    """Every token looks at every token of its own text.

    Args:
        d_model: Width D of the sequence.
        n_heads: Heads H; D is a multiple of it.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model={d_model} is not a multiple of n_heads={n_heads}")
        self.n_heads = n_heads
        self.dropout = dropout
        self.rotary = Rotary(d_model // n_heads)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            x_BTD: The sequence.
            mask_BT: True where there is a token; nothing attends to padding.
            positions_BT: int64 position of each token in its text.

        Returns:
            ``[B, T, D]``; rows on padding hold no meaning.
        """
        q_BHTK, k_BHTK, v_BHTK = self.qkv(x_BTD).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        q_BHTK, k_BHTK = self.rotary(q_BHTK, positions_BT), self.rotary(k_BHTK, positions_BT)
        mask_B11T = None if bool(mask_BT.all()) else mask_BT[:, None, None, :]
        mixed_BHTK = F.scaled_dot_product_attention(
            q_BHTK, k_BHTK, v_BHTK, attn_mask=mask_B11T, dropout_p=self.dropout if self.training else 0.0
        )
        mixed: torch.Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return mixed
