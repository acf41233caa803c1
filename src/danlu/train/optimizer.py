"""AdamW over parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from danlu.core.config import Config

__all__ = ["OptimizerConfig", "learning_rate", "make_optimizer"]

Share = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter, 2019) with linear warm-up and cosine decay."""

    learning_rate: float = Field(1e-3, gt=0)
    """The highest learning rate, reached at the end of the warm-up."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of all steps over which the learning rate rises from 0."""
    final_learning_rate: float = Field(0.0, ge=0, le=1)
    """Share of the highest learning rate that is left at the end of the cosine."""
    embedding_rate: float = Field(1.0, ge=0)
    """The learning rate of token vectors, as a share of the others'."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay of matrices; biases, norms and embeddings are not decayed."""
    betas: tuple[Share, Share] = (0.9, 0.98)
    """Decay of the running mean of gradients and of their squares."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second moment."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW in groups: matrices, which are decayed; vectors; token vectors, with a learning rate of their own.

    A group's ``"rate"`` is its learning rate as a share of the step's.

    Args:
        model: What is trained.
        config: The optimizer's config.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    embeddings = [parameter for parameter in trained if id(parameter) in tables]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in tables]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": vectors, "weight_decay": 0.0, "rate": 1.0},
        {"params": embeddings, "weight_decay": 0.0, "rate": config.embedding_rate},
    ]
    used = [group for group in groups if group["params"]]
    return torch.optim.AdamW(used, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


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
