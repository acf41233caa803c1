"""Integrated gradients: the change of an answer from a baseline, shared out exactly (Sundararajan, Taly and Yan, 2017).

Along the straight line from a baseline that says nothing to what was asked, the answer changes by as much as its
gradient comes to on the way; that integral, number by number of the input, is what each number did. The numbers sum to
the whole change (completeness), up to the error of the sum that stands for the integral: the gap. It is measured every
time, and while it is too large there are twice as many nodes (of Gauss and Legendre, exact for polynomials).

What is explained is the margin: how far the logit of a class is above the mean of those of the other classes. Between
two classes that is the log-odds. Unlike a probability it does not go flat where the model is sure; unlike one logit it
does not move where all logits move together, which changes no answer; and it adds up over the members of an ensemble.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

__all__ = ["Integral", "integrated_gradients", "margin"]

_FEWEST, _MOST = 16, 256
"""Nodes at first and at last."""
_SHARE, _FLOOR = 0.01, 0.01
"""The gap that is small enough: a share of the change, or so much of a logit where that is more."""
_AT_ONCE = 1 << 20
"""Numbers of the points that go through a model at a time."""

Answers = TypeVar("Answers", torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Integral:
    """A change of the margin, shared out.

    Attributes:
        weights: float64, of the shape of what was asked.
        change: The margin of what was asked minus that of the baseline.
        n_nodes: How many gradients were summed.
    """

    weights: np.ndarray
    change: float
    n_nodes: int

    @property
    def gap(self) -> float:
        """What the weights miss of the change."""
        return abs(float(self.weights.sum()) - self.change)

    @property
    def converged(self) -> bool:
        """Whether the gap is small enough: a hundredth of the change, or of a logit where that is more."""
        return self.gap <= max(_SHARE * abs(self.change), _FLOOR)


def margin(logits_BN: Answers, label: int) -> Answers:
    """``[B]``: how far the logit of a class is above the mean of the others'; log-probabilities give the same."""
    own_B = logits_BN[:, label]
    margin_B: Answers = own_B - (logits_BN.sum(1) - own_B) / (logits_BN.shape[1] - 1)
    return margin_B


def integrated_gradients(
    score: Callable[[torch.Tensor], torch.Tensor], baseline: torch.Tensor, asked: torch.Tensor
) -> Integral:
    """Share out the change of a score between two points.

    Args:
        score: ``[B, ...]`` points to ``[B]`` scores, each point by itself.
        baseline: Where the line begins, and
        asked: where it ends; of one shape.
    """
    with torch.no_grad():
        before, after = score(torch.stack([baseline, asked])).double().tolist()
    n_nodes = _FEWEST
    while True:
        weights = _mean_gradient(score, baseline, asked, n_nodes) * (asked - baseline).double()
        found = Integral(weights.numpy(force=True), after - before, n_nodes)
        if found.converged or n_nodes == _MOST:
            return found
        n_nodes *= 2


def _mean_gradient(
    score: Callable[[torch.Tensor], torch.Tensor], baseline: torch.Tensor, asked: torch.Tensor, n_nodes: int
) -> torch.Tensor:
    """The mean gradient along the line, float64."""
    places, shares = np.polynomial.legendre.leggauss(n_nodes)  # of the line from -1 to 1
    place_B = torch.from_numpy((places + 1) / 2).to(asked)
    share_B = torch.from_numpy(shares / 2).to(asked.device)
    rows = max(1, _AT_ONCE // max(1, asked.numel()))
    # A recurrent layer of cuDNN gives no gradient outside of training; PyTorch's own does.
    own_layers = torch.backends.cudnn.flags(enabled=False) if asked.is_cuda else nullcontext()
    total = torch.zeros_like(asked, dtype=torch.float64)
    with torch.enable_grad(), own_layers:
        for place, share in zip(torch.split(place_B, rows), torch.split(share_B, rows), strict=True):
            line = place.view(-1, *[1] * asked.ndim)
            points = (baseline + line * (asked - baseline)).requires_grad_()
            (gradient,) = torch.autograd.grad(score(points).sum(), points)
            total += torch.tensordot(share, gradient.double(), dims=1)
    return total
