"""Several classifiers that answer as one: a weighted sum of their log-probabilities (stacking: Wolpert, 1992).

    log p(class) = sum over members of weight * log p_member(class) + bias(class) + constant

The few weights are fitted on the validation split, which no member was fitted on, so that the ensemble also corrects
members that are too sure of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json
from danlu.model.families import Classifier, answerer_class

__all__ = ["Ensemble", "fit_weights"]

_RIDGE = 1e-3
"""Pull of the weights towards equal ones: it decides only where the members agree so well that the data cannot."""


class Ensemble:
    """A weighted sum of classifiers.

    Args:
        members: M classifiers by family.
        weights_M: How much the log-probabilities of each count.
        bias_N: Added to each class.
    """

    def __init__(self, members: dict[str, Classifier], weights_M: np.ndarray, bias_N: np.ndarray) -> None:
        self.members = members
        self.weights_M = weights_M
        self.bias_N = bias_N

    @classmethod
    def fit(cls, members: dict[str, Classifier], texts: Sequence[str], labels_B: np.ndarray) -> Self:
        """Fit the weights of trained members.

        Args:
            members: M classifiers by family, of the same classes.
            texts: Texts that none of them was fitted on.
            labels_B: int64; their classes.
        """
        log_p_MBN = np.stack([_log(member.predict_proba(texts)) for member in members.values()])
        return cls(members, *fit_weights(log_p_MBN, labels_B))

    @property
    def n_parameters(self) -> int:
        """Those of all members, and the weights."""
        own = len(self.weights_M) + len(self.bias_N)
        return own + sum(member.n_parameters for member in self.members.values())

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        log_p_MBN = np.stack([_log(member.predict_proba(texts)) for member in self.members.values()])
        return _combine(log_p_MBN, self.weights_M, self.bias_N).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write ``ensemble.json`` and each member in a folder of its own."""
        for family, member in self.members.items():
            (folder / "members" / family).mkdir(parents=True)
            member.save(folder / "members" / family)
        weights = dict(zip(self.members, self.weights_M.tolist(), strict=True))
        write_json(folder / "ensemble.json", {"weights": weights, "bias": self.bias_N.tolist()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is missing or not what was written.
        """
        stored = read_json(folder / "ensemble.json")
        try:
            weights, bias_N = dict(stored["weights"]), np.array(stored["bias"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("not an ensemble", where=str(folder / "ensemble.json")) from error
        members = {
            family: answerer_class("text-classification", family).load(folder / "members" / family)
            for family in weights
        }
        return cls(cast("dict[str, Classifier]", members), np.array(list(weights.values()), np.float64), bias_N)


def fit_weights(log_p_MBN: np.ndarray, labels_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights, none negative, that make the labels likeliest.

    Args:
        log_p_MBN: Log-probabilities of M members.
        labels_B: int64 classes.

    Returns:
        ``weights_M`` and ``bias_N``, float64; the biases sum to 0.
    """
    n_members, n_records, n_classes = log_p_MBN.shape
    hot_BN = np.eye(n_classes)[labels_B]
    equal = 1.0 / n_members

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights_M, bias_N = values[:n_members], values[n_members:]
        p_BN = _combine(log_p_MBN, weights_M, bias_N)
        loss = -np.log(np.maximum((p_BN * hot_BN).sum(1), np.finfo(float).tiny)).mean()
        wrong_BN = (p_BN - hot_BN) / n_records
        slope_M = np.einsum("mbn,bn->m", log_p_MBN, wrong_BN) + 2 * _RIDGE * (weights_M - equal)
        slope_N = wrong_BN.sum(0) + 2 * _RIDGE * bias_N
        penalty = _RIDGE * (((weights_M - equal) ** 2).sum() + (bias_N**2).sum())
        return loss + penalty, np.concatenate([slope_M, slope_N])

    start = np.concatenate([np.full(n_members, equal), np.zeros(n_classes)])
    bounds = [(0.0, None)] * n_members + [(None, None)] * n_classes
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:n_members], found[n_members:] - found[n_members:].mean()


def _log(p_BN: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p_BN.astype(np.float64), np.finfo(np.float32).tiny))


def _combine(log_p_MBN: np.ndarray, weights_M: np.ndarray, bias_N: np.ndarray) -> np.ndarray:
    combined: np.ndarray = softmax(np.tensordot(weights_M, log_p_MBN, axes=1) + bias_N, axis=1)
    return combined
