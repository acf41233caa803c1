"""AdamW and Muon over parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from danlu.core.config import Config

__all__ = ["MuonAdamW", "OptimizerConfig", "learning_rate", "make_optimizer", "orthogonalise"]

Share = Annotated[float, Field(ge=0, lt=1)]


_POLYNOMIALS = ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107))
"""Coefficients of x, x^3 and x^5, one after another: each comes nearest to 1, by its largest error, over where those
before it leave singular values from 0.02 to 1 (Amsel et al., 2025). They end between 0.907 and 1.093; smaller ones stay
small.

Three rounds instead of the usual five (Jordan et al., 2024): the step of a small model takes 0.9 of the time.
"""
_LIKE_ADAM = 0.2
"""Root mean square of AdamW's steps, to which Muon's are scaled, so that both share a learning rate (Liu et al., 2025).
"""


class OptimizerConfig(Config):
    """The optimizer, and a learning rate with linear warm-up and cosine decay."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """``adamw`` (Loshchilov & Hutter, 2019), or ``muon`` (Jordan et al., 2024) for matrices and AdamW for the rest."""
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
    """Decay of the running mean of gradients and of their squares, in AdamW."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay of the sum of gradients, in Muon."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of the second moment."""


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but for groups with a ``"momentum"``: Muon (Jordan et al., 2024), for matrices.

    Muon steps along the momentum with all its singular values made equal, so that no direction of a matrix is starved.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # a closure is never given
        """One step of every group."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if "momentum" not in group]
        super().step()
        self.param_groups = groups
        for group in groups:
            if "momentum" in group:
                self._step_matrices(group)

    def _step_matrices(self, group: dict[str, Any]) -> None:
        """One step of Muon; matrices of one shape are worked on together."""
        alike: defaultdict[torch.Size, list[torch.Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape].append(parameter)
        for shape, parameters in alike.items():
            directions = []
            for parameter in parameters:
                slot, gradient = self.state[parameter], parameter.grad
                assert gradient is not None
                if "momentum" not in slot:
                    slot["momentum"] = torch.zeros_like(parameter)
                slot["momentum"].lerp_(gradient, 1 - group["momentum"])
                directions.append(gradient.lerp(slot["momentum"], group["momentum"]))  # Nesterov
            steps = orthogonalise(torch.stack(directions).flatten(2))
            rate = group["lr"] * _LIKE_ADAM * math.sqrt(max(steps.shape[1:]))
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step.view(shape), alpha=rate)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices with the same singular vectors and all singular values about 1, by polynomials of their own products.

    Args:
        matrices: ``[n, rows, columns]``. Singular values below 0.02 of a matrix's norm come out the smaller the smaller
            they were.
    """
    x: torch.Tensor = matrices / (matrices.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for a, b, c in _POLYNOMIALS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """The optimizer in groups: matrices, which are decayed; vectors; token vectors, with a learning rate of their own.

    A group's ``"rate"`` is its learning rate as a share of the step's.

    Args:
        model: What is trained.
        config: The optimizer's config.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = {id(parameter) for parameter in getattr(model, "head", nn.Module()).parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    embeddings = [parameter for parameter in trained if id(parameter) in tables]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in tables]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    muon = {"momentum": config.momentum} if config.optimizer == "muon" else {}
    heads = [parameter for parameter in matrices if muon and id(parameter) in head]  # AdamW's, like token vectors
    matrices = [parameter for parameter in matrices if not any(parameter is each for each in heads)]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay, "rate": 1.0, **muon},
        {"params": heads, "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": vectors, "weight_decay": 0.0, "rate": 1.0},
        {"params": embeddings, "weight_decay": 0.0, "rate": config.embedding_rate},
    ]
    used = [group for group in groups if group["params"]]
    kind = MuonAdamW if muon else torch.optim.AdamW
    return kind(used, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)


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
