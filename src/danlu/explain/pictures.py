"""What each pixel of a picture did to the answer of a classifier.

The picture that says nothing has one colour throughout, the mean of the one that was asked: it has its brightness and
shows no thing. With a black one, black pixels could never have done anything, and a dark scratch on bright metal
could not be why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from danlu.core.batch import Output
from danlu.core.errors import UsageError
from danlu.explain.gradients import integrated_gradients, margin
from danlu.model.families import Answerer
from danlu.model.image_classifier import NeuralImageClassifier, image_batch
from danlu.model.pixels import PixelLogisticRegression

__all__ = ["PixelShares", "gives_reasons", "shares_of_picture"]


@dataclass(frozen=True, kw_only=True)
class PixelShares:
    """A change of the margin, shared out among the pixels of a picture.

    Attributes:
        weights_YX: float64, summed over the channels.
        change: The margin of the picture minus that of one that says nothing.
        gap: What the weights miss of it.
        method: How it was found, for people.
    """

    weights_YX: np.ndarray
    change: float
    gap: float
    method: str


def gives_reasons(answerer: Answerer) -> bool:
    """Whether :func:`shares_of_picture` knows how a classifier of pictures comes to its answers."""
    return isinstance(answerer, NeuralImageClassifier | PixelLogisticRegression)


def shares_of_picture(answerer: Answerer, image_CYX: np.ndarray, label: int) -> PixelShares:
    """Share out how far a picture moves a classifier towards a class.

    Args:
        answerer: The classifier.
        image_CYX: uint8, of the size that it takes.
        label: The number of the class.

    Raises:
        UsageError: It is of a kind that is not explained here.
    """
    if isinstance(answerer, NeuralImageClassifier):
        return _of_network(answerer, image_CYX, label)
    if isinstance(answerer, PixelLogisticRegression):
        return _of_regression(answerer, image_CYX, label)
    advice = "neural classifiers and the baseline can be explained"
    raise UsageError(f"a {type(answerer).__name__} gives no reasons for its answers", advice=advice)


def _of_network(model: NeuralImageClassifier, image_CYX: np.ndarray, label: int) -> PixelShares:
    """Integrated gradients on the pixels."""
    batch = image_batch(image_CYX[None], np.zeros(1, np.int64)).to(next(model.module.parameters()).device)
    asked_CYX = batch.images[0]

    def score(points_BCYX: torch.Tensor) -> torch.Tensor:
        answer: Output = model.module(replace(batch, images_BCYX=points_BCYX))
        return margin(answer.logits.float(), label)

    found = integrated_gradients(score, _plain(asked_CYX), asked_CYX)
    method = "integrated gradients, from a picture of its mean colour"
    if not found.converged:
        method += f", {found.n_nodes} steps were not enough"
    return PixelShares(weights_YX=found.weights.sum(0), change=found.change, gap=found.gap, method=method)


def _of_regression(model: PixelLogisticRegression, image_CYX: np.ndarray, label: int) -> PixelShares:
    """Coefficient times distance from the mean colour: exact, for the model is linear."""
    asked_CYX = image_batch(image_CYX[None], np.zeros(1, np.int64)).images[0]
    step_P = (asked_CYX.double() - _plain(asked_CYX.double())).numpy().ravel()
    slope_P = margin(model.coefficients().T.astype(np.float64), label)
    weights_YX = (slope_P * step_P).reshape(image_CYX.shape).sum(0)
    method = "coefficient times distance from the mean colour"
    return PixelShares(weights_YX=weights_YX, change=float(weights_YX.sum()), gap=0.0, method=method)


def _plain(image_CYX: torch.Tensor) -> torch.Tensor:
    """A picture of the mean colour of another."""
    return image_CYX.mean((1, 2), keepdim=True).expand_as(image_CYX)
