"""A product with fixed weights, laid out for how many rows there are."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

__all__ = ["Curve", "Matrix"]

Curve = Literal["none", "relu", "gelu", "gelu-tanh"]
"""What the product goes through."""

_PACKED_FROM = 6
"""Rows from which oneDNN's blocked weights are faster than BLAS.

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
        self._weight_FD = weight_FD.contiguous()
        self._bias = bias_F
        self._curve = curve
        self._packs = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
        self._packed: torch.Tensor | None = None  # made when it is first used: much decoding is of few texts only

    def __call__(self, x_BD: torch.Tensor) -> torch.Tensor:
        """``[B, D]`` to ``[B, F]``."""
        if self._packs and len(x_BD) >= _PACKED_FROM:
            name, algorithm = _ONEDNN[self._curve]
            out: torch.Tensor = _linear(x_BD, self._blocked(), self._bias, name, [], algorithm)
            return out
        product_BF = self._product(x_BD).contiguous()
        if self._bias is not None:
            product_BF += self._bias
        if self._curve == "none":
            return product_BF
        if self._curve == "relu":
            return product_BF.relu_()
        return F.gelu(product_BF, approximate="tanh" if self._curve == "gelu-tanh" else "none")

    def add_to(self, y_BF: torch.Tensor, x_BD: torch.Tensor) -> torch.Tensor:
        """``y + x W' + b``; there is no curve."""
        if self._packs and len(x_BD) >= _PACKED_FROM:
            out: torch.Tensor = _linear_onto(x_BD, y_BF, self._blocked(), self._bias, "add")
            return out
        sum_BF = y_BF + self._product(x_BD)
        return sum_BF if self._bias is None else sum_BF.add_(self._bias)

    def _product(self, x_BD: torch.Tensor) -> torch.Tensor:
        """``x W'`` by BLAS, the rows as columns: all threads then share the weights, each of which is read once.

        With a single column BLAS would take another way, on one thread and at half the speed: it gets a second one.
        """
        n_rows = len(x_BD)
        columns_DB = (x_BD if n_rows > 1 else torch.cat((x_BD, x_BD))).t()
        return torch.mm(self._weight_FD, columns_DB).t()[:n_rows]

    def _blocked(self) -> torch.Tensor:
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight_FD, 32)
        return self._packed


_linear = torch.ops.mkldnn._linear_pointwise.default
_linear_onto = torch.ops.mkldnn._linear_pointwise.binary
