"""Calibration: does a confidence of 0.8 mean right four times in five?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from danlu.evaluate.intervals import wilson
from danlu.evaluate.metrics import Floats, Ints, Statistic

__all__ = ["apply_temperature", "bin_edges", "ece_statistic", "fit_temperature", "reliability"]


def bin_edges(confidence_B: NDArray[np.floating], n_bins: int) -> NDArray[np.floating]:
    """The upper edges, included, of bins that hold equally many records.

    Records of one confidence always share a bin, so that the result does not depend on the order of records; there
    may then be fewer bins than asked for, and none is empty.

    Equal-mass bins make the estimate less biased than equal-width bins (Nixon et al. 2019; Roelofs et al. 2022).
    """
    last = np.ceil(len(confidence_B) * np.arange(1, n_bins + 1) / n_bins).astype(int) - 1
    return np.unique(np.sort(confidence_B)[np.maximum(last, 0)])


def ece_statistic(
    confidence_B: NDArray[np.floating], correct_B: NDArray[np.bool_], n_bins: int, name: str = "ece"
) -> Statistic:
    """Expected calibration error: the mean of abs(accuracy - mean confidence) over bins, weighted by their records.

    The bins are those of the observed records (:func:`bin_edges`) and stay when the records are resampled.
    """
    bin_B = np.searchsorted(bin_edges(confidence_B, n_bins), confidence_B)
    order = np.argsort(bin_B, kind="stable")
    starts = np.searchsorted(bin_B[order], np.arange(bin_B.max() + 1))
    gap_B = (correct_B - confidence_B.astype(np.float64))[order]

    def statistic(weights_RB: Ints) -> dict[str, Floats]:
        gaps = np.add.reduceat(weights_RB[:, order] * gap_B, starts, axis=1)
        return {name: np.abs(gaps).sum(1) / weights_RB.sum(1)}

    return statistic


def reliability(
    confidence_B: NDArray[np.floating], correct_B: NDArray[np.bool_], n_bins: int, confidence: float
) -> list[dict[str, Any]]:
    """The bins of a reliability diagram, lowest confidence first.

    Returns:
        For each bin: ``n``, the lowest and highest confidence in it (``from``, ``to``), the mean ``confidence``, the
        ``accuracy`` and its Wilson interval (``low``, ``high``).
    """
    bin_B = np.searchsorted(bin_edges(confidence_B, n_bins), confidence_B)
    bins = []
    for index in range(int(bin_B.max()) + 1):
        inside = confidence_B[bin_B == index].astype(np.float64)
        n_correct = int(correct_B[bin_B == index].sum())
        interval = wilson(n_correct, len(inside), confidence)
        bins.append(
            {
                "n": len(inside),
                "from": float(inside.min()),
                "to": float(inside.max()),
                "confidence": float(inside.mean()),
                "accuracy": n_correct / len(inside),
                "low": interval.low,
                "high": interval.high,
            }
        )
    return bins


def fit_temperature(probabilities_BN: NDArray[np.floating], label_B: Ints) -> float:
    """The temperature that makes validation probabilities likeliest (Guo et al. 2017, section 4.2).

    The log loss is convex in the inverse temperature, which is sought between 1/100 and 100.

    Args:
        probabilities_BN: Softmax outputs on validation records, never on the test's.
        label_B: Their labels.

    Returns:
        T > 0; above 1 the model was too sure of itself. Apply it with :func:`apply_temperature`.
    """
    log_BN = _log(probabilities_BN)
    rows = np.arange(len(label_B))

    def loss(log_inverse: float) -> float:
        scaled = log_BN * np.exp(log_inverse)
        top = scaled.max(1)
        return float(np.mean(np.log(np.exp(scaled - top[:, None]).sum(1)) + top - scaled[rows, label_B]))

    limit = np.log(100.0)
    return float(np.exp(-minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-9}).x))


def apply_temperature(probabilities_BN: NDArray[np.floating], temperature: float) -> Floats:
    """softmax(logits / T), from the probabilities alone: a constant added to all logits of a record cancels."""
    scaled = _log(probabilities_BN) / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def _log(probabilities_BN: NDArray[np.floating]) -> Floats:
    return np.log(np.maximum(probabilities_BN.astype(np.float64), np.finfo(np.float32).tiny))
