"""R-Drop (Liang et al., 2021): two passes of a text, each with a dropout of its own, should agree."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.model.base import Model

__all__ = ["consistent_loss", "disagreement"]


def consistent_loss(model: Model, batch: Batch, weight: float) -> torch.Tensor:
    """The mean loss of two passes, and ``weight`` times how much they disagree.

    Args:
        model: In training mode, so that its dropout differs from pass to pass.
        batch: Texts with labels.
        weight: How much agreeing counts.

    Returns:
        A scalar, in nats.
    """
    first, second = model(batch), model(batch)
    loss = (model.loss(first, batch) + model.loss(second, batch)) / 2
    return loss + weight * disagreement(first.logits, second.logits) / batch.n_records


def disagreement(first_BN: torch.Tensor, second_BN: torch.Tensor) -> torch.Tensor:
    """The symmetric Kullback-Leibler divergence of two sets of logits, half the sum of both ways, summed over texts."""
    p_BN, q_BN = first_BN.float().log_softmax(-1), second_BN.float().log_softmax(-1)
    ways = F.kl_div(p_BN, q_BN, reduction="sum", log_target=True) + F.kl_div(
        q_BN, p_BN, reduction="sum", log_target=True
    )
    return ways / 2
