"""Losses, each the mean over what is to be predicted."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["classification_loss"]


def classification_loss(logits_BN: torch.Tensor, labels_B: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy, the label mixed with a uniform distribution (label smoothing: Szegedy et al., 2016).

    Args:
        logits_BN: Logits of N classes.
        labels_B: int64 classes.
        smoothing: Share of the uniform distribution.

    Returns:
        A scalar, in nats.
    """
    return F.cross_entropy(logits_BN.float(), labels_B, label_smoothing=smoothing)
