"""Whether numbers were changed by noise drawn for each of them: what no training leaves behind.

A training changes a matrix along few directions, for every step of it is a sum over examples, and by more where its
inputs are larger. Rounding makes errors that are as wide as the step, and pruning and merging errors that depend on the
number. Normal noise does none of this: its rows point into directions that have nothing to do with each other, its
numbers are normal, and neither they nor their size depend on what they were added to. Each of these four is a standard
normal deviate where there is noise alone, and what departs from one of them is called no noise. Noise that is not
normal, or of a size that goes with the number that it is added to, is not known here.

Like :mod:`danlu.audit.changes` this names what was done once kinship is established by other tests.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

__all__ = ["departures", "is_noise"]

_MOST_ROWS = 256
"""Rows of a matrix that are looked at, evenly spaced where there are more,"""
_MOST_COLUMNS = 1024
"""and columns."""
_FEWEST = 32
"""Rows and columns below which a training could not be told from noise."""
_LARGE = 5.0
"""Standard deviations that noise departs by in about one matrix of 400,000. Of 1,086 matrices of the lineage
benchmark that were trained or merged, 64 by 64 and larger, for four steps and more, none departs by less than 30."""


def is_noise(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether the suspect's matrix is the reference's with independent normal noise of one size.

    Args:
        theirs: ``[rows, columns]``, the suspect's.
        ours: ``[rows, columns]``, the reference's.
    """
    if min(ours.shape) < _FEWEST:
        return False
    return all(abs(z) <= _LARGE for z in departures(theirs, ours).values())


def departures(theirs: torch.Tensor, ours: torch.Tensor) -> dict[str, float]:
    """How far a difference is from being such noise, in standard deviations of noise.

    Args:
        theirs: ``[rows, columns]``, the suspect's.
        ours: ``[rows, columns]``, the reference's.

    Returns:
        ``directions``: of the squared cosines of all pairs of rows (Schott, 2005); ``shape``: of the kurtosis;
        ``sign``: of the correlation with the reference's numbers; ``size``: of that of their squares.
    """
    rows, columns = (
        slice(None, None, -(-n // most)) for n, most in zip(ours.shape, (_MOST_ROWS, _MOST_COLUMNS), strict=True)
    )
    a = ours[rows, columns].double()
    d = theirs[rows, columns].double() - a
    n, width = d.shape
    directions = F.normalize(d, dim=1)
    pairs, squared = n * (n - 1) / 2, float((directions @ directions.T).square().triu(1).sum())
    spread = math.sqrt(pairs * 2 * (width - 1) / (width**2 * (width + 2)))  # of pairs of directions, which any two are
    normal = (d / d.square().mean().sqrt().clamp(min=1e-30)).flatten()
    return {
        "directions": (squared - pairs / width) / spread,
        "shape": float(normal.pow(4).mean() - 3) * math.sqrt(d.numel() / 24),
        "sign": _correlation(normal, a.flatten()) * math.sqrt(d.numel()),
        "size": _correlation(normal.square(), a.flatten().square()) * math.sqrt(d.numel()),
    }


def _correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x.norm() * y.norm()).clamp(min=1e-30))
