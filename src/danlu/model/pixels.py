"""The baseline of picture classification: logistic regression on the pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.core.files import read_json, write_atomic, write_json

__all__ = ["PixelConfig", "PixelLogisticRegression"]


class PixelConfig(Config):
    """Logistic regression on pixels."""

    C: float = Field(default=0.1, gt=0)
    """The inverse strength of the L2 penalty."""
    n_iterations: int = Field(default=100, ge=1)
    """The most iterations of L-BFGS; pictures seldom need all that convergence would take."""


class PixelLogisticRegression:
    """Multinomial logistic regression (lbfgs, L2) on pixels from 0 to 1.

    Args:
        config: See :class:`PixelConfig`.
    """

    def __init__(self, config: PixelConfig) -> None:
        self.config = config
        self._coefficients_KP = np.zeros((0, 0), np.float32)
        self._intercepts_K = np.zeros(0, np.float32)

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercepts."""
        return self._coefficients_KP.size + self._intercepts_K.size

    def fit(self, images_nCYX: NDArray[np.uint8], labels: NDArray[np.integer]) -> Self:
        """Train.

        Args:
            images_nCYX: Pictures.
            labels: Their classes.

        Raises:
            DataError: There is one class only.
        """
        if len(np.unique(labels)) < 2:
            raise DataError("a classifier needs pictures of at least two classes", where="the training split")
        regression = LogisticRegression(C=self.config.C, max_iter=self.config.n_iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is a choice
            regression.fit(_flat(images_nCYX), labels)
        self._coefficients_KP = np.ascontiguousarray(regression.coef_, np.float32)  # the file takes bytes as they lie
        self._intercepts_K = regression.intercept_.astype(np.float32)
        return self

    def predict_proba(self, images_nCYX: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 ``[n, N]``; each row sums to 1."""
        logits_nK = _flat(images_nCYX) @ self._coefficients_KP.T + self._intercepts_K
        if logits_nK.shape[1] == 1:  # two classes share one row of coefficients
            logits_nK = np.concatenate([np.zeros_like(logits_nK), logits_nK], axis=1)
        probabilities: NDArray[np.float32] = softmax(logits_nK, axis=1).astype(np.float32)
        return probabilities

    def coefficients(self) -> NDArray[np.float32]:
        """What each number of a picture, from 0 to 1, counts for the logit of each class; ``[N, C * Y * X]``.

        The logits of two classes are 0 and what decides between them.
        """
        own_KP = self._coefficients_KP
        return np.concatenate([np.zeros_like(own_KP), own_KP]) if len(own_KP) == 1 else own_KP

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        write_json(folder / "config.json", self.config.plain())
        tensors = {"coefficients": self._coefficients_KP, "intercepts": self._intercepts_K}
        write_atomic(folder / "model.safetensors", save(tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is not what was written.
        """
        try:
            model = cls(PixelConfig(**read_json(folder / "config.json")))
            tensors = load_file(folder / "model.safetensors")
            model._coefficients_KP, model._intercepts_K = tensors["coefficients"], tensors["intercepts"]
            if len(model._coefficients_KP) != len(model._intercepts_K):
                raise ValueError("coefficients and intercepts differ in number")
        except (KeyError, TypeError, ValueError, ValidationError, SafetensorError, FileNotFoundError) as error:
            raise CorruptError(f"not a saved baseline: {error}", where=str(folder)) from error
        return model


def _flat(images_nCYX: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = images_nCYX.reshape(len(images_nCYX), -1).astype(np.float32) / np.float32(255)
    return flat
