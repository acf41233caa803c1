"""AdamW over parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from danlu.core.config import Config

__all__ = ["OptimizerConfig", "learning_rate", "make_optimizer"]


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter, 2019) with linear warm-up and cosine decay."""

    learning_rate: float = 1e-3
    """The highest learning rate, reached at the end of the warm-up."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from 0."""
    final_learning_rate: float = 0.0
    """Share of the highest learning rate that is left at the end of the cosine."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; biases, norms and embeddings are not decayed."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the running mean of gradients and of their squares."""
    eps: float = 1e-8
    """Added to the root of the second moment."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with matrices decayed and everything else not.

    Args:
        model: Its parameters are grouped by whether they are the weight of a linear or recurrent layer.
        config: The optimizer's config.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in trained if p.ndim < 2 or id(p) in embeddings]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(step: int, n_steps: int, config: OptimizerConfig) -> float:
    """The learning rate of a step.

    Args:
        step: 0, 1, ..., n_steps - 1.
        n_steps: Steps in the whole run.
        config: The optimizer's config.
    """
    n_warmup = max(1, round(config.warmup * n_steps))
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
