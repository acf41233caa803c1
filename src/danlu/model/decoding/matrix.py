"""A product with fixed weights, laid out for how many rows there are."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

__all__ = ["Curve", "Matrix"]

Curve = Literal["none", "relu", "gelu", "gelu-tanh"]
"""What the product goes through."""

_PACKED_FROM = 3
"""Rows from which oneDNN's blocked weights are faster than a plain product: with fewer, reading the weights is all.

The operators are those that torch.compile's frozen linear layers come down to; they need no compiler.
"""
_ONEDNN = {"none": ("none", ""), "relu": ("relu", ""), "gelu": ("gelu", "none"), "gelu-tanh": ("gelu", "tanh")}


class Matrix:
    """``curve(x W' + b)`` in float32 on a CPU.

    Args:
        weight_FD: The weights W, from D to F channels.
        bias_F: b, or None.
        curve: What follows.
    """

    def __init__(self, weight_FD: torch.Tensor, bias_F: torch.Tensor | None, curve: Curve = "none") -> None:
        self._weight_FD = weight_FD
        self._bias = bias_F
        self._curve = curve
        self._packs = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
        # Each layout is made when it is first used: most decoding is of one text or of many, not of both.
        self._plain_DF: torch.Tensor | None = None
        self._packed: torch.Tensor | None = None

    def __call__(self, x_BD: torch.Tensor) -> torch.Tensor:
        """``[B, D]`` to ``[B, F]``."""
        if self._packs and len(x_BD) >= _PACKED_FROM:
            name, algorithm = _ONEDNN[self._curve]
            out: torch.Tensor = _linear(x_BD, self._blocked(), self._bias, name, [], algorithm)
            return out
        product = self._product(x_BD)
        if self._curve == "none":
            return product
        if self._curve == "relu":
            return product.relu_()
        return F.gelu(product, approximate="tanh" if self._curve == "gelu-tanh" else "none")

    def add_to(self, y_BF: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
        """``y + x W' + b``; there is no curve."""
        if self._packs and len(x_BD) >= _PACKED_FROM:
            out: torch.Tensor = _linear_onto(x_BD, y_BF, self._blocked(), self._bias, "add")
            return out
        return self._product(x_BD).add_(y_BF)

    def _product(self, x_BD: torch.Tensor) -> torch.Tensor:
        if self._plain_DF is None:
            self._plain_DF = _plain(self._weight_FD)
        if self._bias is None:
            return torch.mm(x_BD, self._plain_DF)
        return torch.addmm(self._bias, x_BD, self._plain_DF)

    def _blocked(self) -> torch.Tensor:
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight_FD, 32)
        return self._packed


_linear = torch.ops.mkldnn._linear_pointwise.default
_linear_onto = torch.ops.mkldnn._linear_pointwise.binary


def _plain(weight_FD: torch.Tensor) -> torch.Tensor:
    """``[D, F]``, the longer dimension contiguous: long stretches of memory are read faster."""
    wide = weight_FD.shape[0] >= weight_FD.shape[1]
    return weight_FD.t().contiguous() if wide else weight_FD.contiguous().t()
