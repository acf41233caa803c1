"""The position-wise part of a Transformer block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Activation", "FeedForward", "curve"]

Activation = Literal["relu", "gelu", "gelu-tanh", "swiglu"]
"""``gelu-tanh`` is GELU by the approximation with tanh; ``swiglu`` gates one projection with SiLU of another."""

_CURVES: dict[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "swiglu": F.silu,
}


def curve(activation: Activation) -> Callable[[torch.Tensor], torch.Tensor]:
    """What an activation does to every number (``swiglu``: to those of the gate)."""
    return _CURVES[activation]


class FeedForward(nn.Module):
    """Two linear layers with a ReLU or GELU (Hendrycks & Gimpel, 2016) between them, or gated (Shazeer, 2020).

    Args:
        d_model: Width D.
        d_ff: Width F in between.
        activation: What stands between.
        bias: Whether the linear layers have one.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation = "gelu", bias: bool = True) -> None:
        super().__init__()
        self.curve = curve(activation)
        self.gate = nn.Linear(d_model, d_ff, bias=bias) if activation == "swiglu" else None
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Apply it to every position; ``[B, T, D]`` in and out."""
        up_BTF = self.up(x_BTD)
        inner_BTF = self.curve(up_BTF) if self.gate is None else self.curve(self.gate(x_BTD)) * up_BTF
        out: torch.Tensor = self.down(inner_BTF)
        return out
