"""Low-rank adaptation (LoRA; Hu et al., 2022): a frozen linear layer and a small trainable correction beside it."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from danlu.core.config import Config

__all__ = ["LoraConfig", "LoraLinear"]


class LoraConfig(Config):
    """Low-rank adapters on linear layers; everything else is frozen."""

    rank: int = Field(8, gt=0)
    """Width in the middle of an adapter: how many directions it can change."""
    alpha: float = Field(16.0, gt=0)
    """Strength of an adapter: what it adds is scaled by alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share dropped of what an adapter sees in training."""
    targets: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    """Which linear layers get one, by the last parts of their names (``[attention.q, attention.v]``), or all of the
    blocks: needed to come up to full fine-tuning (Dettmers et al., 2023), where queries and values alone were the first
    advice (Hu et al., 2022)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, so that a high rank still learns (Kalajdzievski, 2023)."""
    train_head: bool | None = None
    """Whether the head is trained too, in full; null: where it names classes, because such a head is new."""

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


class LoraLinear(nn.Module):
    """``y = W x + b + scale B A dropout(x)``: W and b are frozen, A and B are trained.

    In a state dict the names are PEFT's but for the first: ``base.weight``, ``base.bias``, ``lora_A.weight`` [R, D] and
    ``lora_B.weight`` [D', R] for rank R. Merging leaves all four as they are: W can never be lost or saved changed.

    B starts as zero, so that the layer starts as what it adapts. A is not a number until
    :func:`danlu.model.adapters.initialise_adapters` or a file sets it: forgetting to is then seen at once.

    Args:
        linear: The layer to adapt; it is kept, and frozen.
        config: Rank, scale and dropout.

    Attributes:
        merged_weight: W + scale B A, between :meth:`merge` and :meth:`unmerge`.
    """

    merged_weight: torch.Tensor | None

    def __init__(self, linear: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.base = linear.requires_grad_(False)
        self.lora_A = _empty(linear.in_features, config.rank, like=linear.weight)
        self.lora_B = _empty(config.rank, linear.out_features, like=linear.weight)
        nn.init.constant_(self.lora_A.weight, math.nan)
        nn.init.zeros_(self.lora_B.weight)
        self.dropout = nn.Dropout(config.dropout)
        self.scale = config.scale
        self.register_buffer("merged_weight", None, persistent=False)
        self.train(linear.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer; ``[..., D]`` in, ``[..., D']`` out."""
        if self.merged_weight is not None:
            return F.linear(x, self.merged_weight, self.base.bias)
        return torch.add(self.base(x), self.lora_B(self.lora_A(self.dropout(x))), alpha=self.scale)

    def merge(self) -> None:
        """Answer by one matrix from now on: as fast as the layer without its adapter, for as much memory again."""
        self.merged_weight = self._sum()

    def unmerge(self) -> None:
        """Answer by the adapter again."""
        self.merged_weight = None

    def fold(self) -> nn.Linear:
        """The layer as one ordinary linear layer, trainable, in place of this one, which is of no more use."""
        with torch.no_grad():
            self.base.weight.copy_(self._sum())
        return self.base.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; training unmerges, because the sum would not follow A and B."""
        if mode:
            self.unmerge()
        return super().train(mode)

    @torch.no_grad()
    def _sum(self) -> torch.Tensor:
        """W + scale B A, in one operation: half precision is then rounded once."""
        return torch.addmm(self.base.weight, self.lora_B.weight, self.lora_A.weight, alpha=self.scale)


def _empty(n_in: int, n_out: int, like: torch.Tensor) -> nn.Linear:
    """A matrix not set yet. Made on the device without memory, where nothing is drawn from torch's own generator."""
    return nn.Linear(n_in, n_out, bias=False, device="meta", dtype=like.dtype).to_empty(device=like.device)
