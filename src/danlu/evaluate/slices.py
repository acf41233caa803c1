"""Metrics of parts of a test set: where is the model weak?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import measure, observed, percentile, resample, wilson
from danlu.evaluate.metrics import Ints, class_statistic, confusion_cells, confusion_matrix

__all__ = ["length_quarters", "slice_metrics"]


def length_quarters(n_chars_B: NDArray[np.integer]) -> tuple[list[str], Ints]:
    """Four slices by length, as nearly equal in records as equal lengths allow; fewer if the lengths are few.

    Returns:
        The name of each slice (``"12-35"``, both included, in characters) and the slice of each record.
    """
    edges = np.quantile(n_chars_B, [0.25, 0.5, 0.75, 1.0], method="inverted_cdf")
    slice_B = np.searchsorted(np.unique(edges), n_chars_B)
    parts = [n_chars_B[slice_B == index] for index in range(int(slice_B.max()) + 1)]
    return [f"{part.min()}-{part.max()}" for part in parts], slice_B


def slice_metrics(
    names: Sequence[str],
    slice_B: Ints,
    label_B: Ints,
    predicted_B: Ints,
    n_classes: int,
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Accuracy (with Wilson's interval) and macro F1 (bootstrap) of each slice.

    Args:
        names: A name for each slice.
        slice_B: The slice of each record, as an index into the names.
        label_B: Labels.
        predicted_B: Predicted classes.
        n_classes: N.
        config: Confidence and resamples.
        rng: The source of all randomness.

    Returns:
        ``name``, ``n``, ``accuracy`` and ``macro_f1`` of each slice that has records.
    """
    slices = []
    for index, name in enumerate(names):
        inside = slice_B == index
        n = int(inside.sum())
        if n == 0:
            continue
        confusion = confusion_matrix(label_B[inside], predicted_B[inside], n_classes)
        label_M, predicted_M, count_M = confusion_cells(confusion)
        statistic = class_statistic(label_M, predicted_M, n_classes)
        value, draws = observed(count_M, statistic), resample(count_M, statistic, config.bootstrap, rng)
        n_right = int(confusion.trace())
        f1_interval = percentile(draws["macro_f1"], config.confidence)
        slices.append(
            {
                "name": name,
                "n": n,
                "accuracy": measure(n_right / n, wilson(n_right, n, config.confidence), n, "wilson"),
                "macro_f1": measure(float(value["macro_f1"]), f1_interval, n, "bootstrap"),
            }
        )
    return slices
