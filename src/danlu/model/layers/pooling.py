"""From a sequence to one vector a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["FirstToken", "Pooling", "masked_max", "masked_mean"]

Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``x_BTD`` and ``mask_BT`` to ``[B, D]``."""


def masked_mean(x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of each text, padding left out; an empty text gives zeros.

    Args:
        x_BTD: The sequence.
        mask_BT: True where there is a token.

    Returns:
        ``[B, D]``.
    """
    weights_BT1 = mask_BT[:, :, None].to(x_BTD.dtype)
    return (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)


def masked_max(x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Maximum over the tokens of each text, padding left out; an empty text gives zeros.

    Args and returns as in :func:`masked_mean`.
    """
    low = torch.finfo(x_BTD.dtype).min
    highest_BD = x_BTD.masked_fill(~mask_BT[:, :, None], low).amax(1)
    return highest_BD.masked_fill(~mask_BT.any(1, keepdim=True), 0.0)


class FirstToken(nn.Module):
    """The vector of a text's first token through a linear layer and tanh (Devlin et al., 2019).

    Args:
        d_model: Width D of the sequence.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, d_model)

    def forward(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """``[B, D]``; of an empty text, that of a vector of zeros."""
        return torch.tanh(self.linear(x_BTD[:, 0].masked_fill(~mask_BT[:, :1], 0.0)))
