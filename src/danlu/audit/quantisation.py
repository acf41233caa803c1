"""Which grid the numbers of a matrix lie on, if they were quantised and written out again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["SCHEMES", "scheme_of"]

_GROUPS = (32, 64, 128)
_NEAR = 0.02
"""How far from a whole step a number may be; one that is no multiple is as near as that in one case of 25."""
_MOST = 0.99
"""Share of numbers that must be on the grid."""
_NEARLY = 0.9
"""The same of the few that are looked at first,"""
_FEW = 128
"""so many groups, and numbers of each."""
_ROWS = 512
"""Rows that are looked at, at the most."""


def scheme_of(matrix: torch.Tensor) -> str | None:
    """How a matrix was quantised: ``int8 by row``, ``int4 in groups of 64``, ``fp8``, ...; None: it was not.

    Known are rounding to whole steps, symmetric about zero or from the smallest to the largest number, with one scale a
    matrix, a row or a group of a row, and the eight-bit floating-point format with three bits of mantissa.

    Args:
        matrix: float32 ``[rows, columns]``.
    """
    rows = matrix[:: max(1, len(matrix) // _ROWS)]
    shapes = {"by matrix": rows.reshape(1, -1), "by row": rows}
    shapes |= {f"in groups of {n}": rows.reshape(-1, n) for n in _GROUPS if matrix.shape[1] % n == 0}
    for bits in (4, 8):
        for where, groups in shapes.items():
            # A few numbers are near a grid of many steps by chance: where there is one step a number, none is shown.
            if groups.shape[1] >= 16 and _on_grid(groups, bits):
                return f"int{bits} {where}"
    return "fp8" if any(_short(groups) for where, groups in shapes.items() if "groups" not in where) else None


def _on_grid(groups: torch.Tensor, bits: int) -> bool:
    largest = 2 ** (bits - 1) - 1
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    far, zero = torch.maximum(high, -low), torch.zeros_like(low)
    grids = ((zero, far / largest), (zero, far / (largest + 1)), (low, (high - low) / (2**bits - 1)))
    rows, columns = (slice(None, None, max(1, n // _FEW)) for n in groups.shape)
    few = groups[rows, columns]
    for start, step in ((start, step.clamp(min=1e-30)) for start, step in grids):
        # Most matrices lie on no grid, which a few of their numbers tell.
        if _share((few - start[rows]) / step[rows], few) > _NEARLY and _near((groups - start) / step, groups):
            return True
    return False


def _near(steps: torch.Tensor, groups: torch.Tensor) -> bool:
    """Whether all are whole but for a few."""
    return bool(groups.any()) and _share(steps, groups) > _MOST


def _share(steps: torch.Tensor, groups: torch.Tensor) -> float:
    """Of those that are whole; numbers that are zero, and so on any grid, do not count. 1 where there are no others."""
    near = ((steps - steps.round()).abs() < _NEAR)[groups != 0]
    return float(near.float().mean()) if len(near) else 1.0


def _short(groups: torch.Tensor) -> bool:
    """Whether the numbers have no more than three bits after the first, times a scale by which the largest is 448."""
    scaled = groups / (groups.abs().amax(1, keepdim=True) / 448.0).clamp(min=1e-30)
    rows, columns = (slice(None, None, max(1, n // _FEW)) for n in groups.shape)
    for numbers in (groups, scaled):
        few = numbers[rows, columns]
        if _share(torch.frexp(few)[0] * 16, few) > _NEARLY and _near(torch.frexp(numbers)[0] * 16, numbers):
            return True
    return False


def _rounded(matrix: torch.Tensor, bits: int, n: int, zero: bool) -> torch.Tensor:
    """To whole steps of n numbers of a row; 0: of a row; -1: of the matrix. ``zero``: with steps symmetric about it."""
    size = {0: matrix.shape[1], -1: matrix.numel()}.get(n, n)
    if matrix.shape[1] % size and n > 0:
        return matrix
    groups = matrix.reshape(-1, size)
    low = torch.zeros(1) if zero else groups.amin(1, keepdim=True)
    far = groups.abs().amax(1, keepdim=True) if zero else groups.amax(1, keepdim=True) - low
    step = (far / (2 ** (bits - 1) - 1 if zero else 2**bits - 1)).clamp(min=1e-30)
    rounded: torch.Tensor = ((groups - low) / step).round() * step + low
    return rounded.reshape(matrix.shape)


def _short_numbers(matrix: torch.Tensor, scaled: bool) -> torch.Tensor:
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-30) / 448.0 if scaled else torch.ones(1)
    short: torch.Tensor = (matrix / scale).clamp(-448.0, 448.0).to(torch.float8_e4m3fn).float() * scale
    return short


_WHERE = {"by matrix": -1, "by row": 0} | {f"in groups of {n}": n for n in _GROUPS}
_GRIDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    f"int{bits} {where}{'' if zero else ', from the smallest number'}": partial(_rounded, bits=bits, n=n, zero=zero)
    for bits in (8, 4)
    for where, n in _WHERE.items()
    for zero in (True, False)
}
SCHEMES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bf16": lambda matrix: matrix.bfloat16().float(),
    "fp16": lambda matrix: matrix.half().float(),
    "fp8": partial(_short_numbers, scaled=False),
    "fp8 by row": partial(_short_numbers, scaled=True),
    **_GRIDS,
}
"""Ways to round a matrix, by what they are called."""
