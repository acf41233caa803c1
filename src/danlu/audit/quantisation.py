"""Which grid the numbers of a matrix lie on, if they were quantised and written out again."""

from __future__ import annotations

import torch

__all__ = ["scheme_of"]

_GROUPS = (32, 64, 128)
_NEAR = 0.02
"""How far from a whole step a number may be; one that is no multiple is as near as that in one case of 25."""
_MOST = 0.99
"""Share of numbers that must be on the grid."""
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
    far = groups.abs().amax(1, keepdim=True)
    grids = ((groups, far / largest), (groups, far / (largest + 1)), (groups - low, (high - low) / (2**bits - 1)))
    return any(_near(shifted / step.clamp(min=1e-30), groups) for shifted, step in grids)


def _near(steps: torch.Tensor, groups: torch.Tensor) -> bool:
    """Whether all are whole but for a few; numbers that are zero, and so on any grid, do not count."""
    near = ((steps - steps.round()).abs() < _NEAR)[groups != 0]
    return len(near) > 0 and float(near.float().mean()) > _MOST


def _short(groups: torch.Tensor) -> bool:
    """Whether the numbers have no more than three bits after the first, times a scale by which the largest is 448."""
    scaled = groups / (groups.abs().amax(1, keepdim=True) / 448.0).clamp(min=1e-30)
    for numbers in (groups, scaled):
        mantissa, _ = torch.frexp(numbers)
        if _near(mantissa * 16, numbers):
            return True
    return False
