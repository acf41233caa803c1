"""From a sequence to one vector a text."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["Pooling", "masked_max", "masked_mean"]

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
