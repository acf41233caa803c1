"""The metrics of a classifier, each defined once, for one set of records and for all its resamples alike.

Every metric is a function of integer *weights*: how often each record (or each kind of record) counts. The metric of
the test set has the weights that were observed; a bootstrap has many rows of redrawn ones, and all rows are computed
together. Classification metrics depend on (label, predicted) only, so there the records may first be gathered into
cells with counts.

What happens where a denominator is zero:

- precision, recall or F1 of a class that has records or predictions: 0;
- the same for a class with neither: undefined (NaN), and left out of the macro means;
- AUROC of a class that all records or none belong to: undefined, and left out of the macro mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = [
    "MACRO_METRICS",
    "Floats",
    "Ints",
    "Metric",
    "Statistic",
    "SumStatistic",
    "auroc",
    "brier_per_record",
    "class_statistic",
    "confusion_cells",
    "confusion_matrix",
    "log_loss_per_record",
    "mean",
    "of_sums",
    "together",
]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Metric = Callable[[Ints], Floats]
"""From weights (R, M), for R resamples of M records or cells, to values (R,)."""
Statistic = Callable[[Ints], dict[str, Floats]]
"""The same for several named metrics, each (R,) or (R, N)."""
SumStatistic = Callable[[Floats], dict[str, Floats]]
"""From sums (R, J) over records of J numbers each, to named metrics (R,): bits per character, chrF, BLEU."""

MACRO_METRICS = ("accuracy", "macro_precision", "macro_recall", "macro_f1")


def confusion_matrix(label_B: Ints, predicted_B: Ints, n_classes: int) -> Ints:
    """Counts (N, N): rows are labels, columns predictions."""
    flat = np.bincount(label_B * n_classes + predicted_B, minlength=n_classes * n_classes)
    return flat.reshape(n_classes, n_classes)


def confusion_cells(confusion_NN: Ints) -> tuple[Ints, Ints, Ints]:
    """The label, the predicted class and the count of each cell that is not empty; each (M,)."""
    label_M, predicted_M = np.nonzero(confusion_NN)
    return label_M, predicted_M, confusion_NN[label_M, predicted_M]


def together(metrics: Mapping[str, Metric]) -> Statistic:
    """Several metrics as one statistic."""
    return lambda weights_RM: {name: metric(weights_RM) for name, metric in metrics.items()}


def of_sums(part_BJ: Floats, metrics: SumStatistic) -> Statistic:
    """Metrics that follow from sums over records, as a statistic of the records' weights.

    Args:
        part_BJ: J numbers of each record (its sufficient statistics).
        metrics: What follows from their sums.
    """
    return lambda weights_RB: metrics(weights_RB.astype(np.float64) @ part_BJ)


def class_statistic(label_M: Ints, predicted_M: Ints, n_classes: int) -> Statistic:
    """Accuracy, and precision, recall and F1 of each class and as macro means.

    Args:
        label_M: The label of each record or cell.
        predicted_M: Its predicted class.
        n_classes: N; classes are 0 to N - 1.

    Returns:
        A statistic with ``accuracy``, ``macro_precision``, ``macro_recall``, ``macro_f1`` (R,) and ``precision``,
        ``recall``, ``f1`` (R, N).
    """

    def one_hot(chosen: NDArray[np.bool_], class_M: Ints) -> csr_array:
        rows = np.flatnonzero(chosen)
        return csr_array((np.ones(len(rows), np.int64), (rows, class_M[rows])), shape=(len(class_M), n_classes))

    everything = np.ones(len(label_M), dtype=bool)
    of_label, of_prediction = one_hot(everything, label_M), one_hot(everything, predicted_M)
    of_hit = one_hot(label_M == predicted_M, label_M)

    def statistic(weights_RM: Ints) -> dict[str, Floats]:
        hits_RN, n_labels_RN, n_predicted_RN = (weights_RM @ matrix for matrix in (of_hit, of_label, of_prediction))
        seen_RN = n_labels_RN + n_predicted_RN > 0
        classwise = {
            "precision": _ratio(hits_RN, n_predicted_RN, seen_RN),
            "recall": _ratio(hits_RN, n_labels_RN, seen_RN),
            "f1": _ratio(2 * hits_RN, n_labels_RN + n_predicted_RN, seen_RN),
        }
        macro = {f"macro_{name}": _mean_defined(value_RN) for name, value_RN in classwise.items()}
        return {"accuracy": hits_RN.sum(1) / weights_RM.sum(1), **macro, **classwise}

    return statistic


def auroc(probabilities_BN: NDArray[np.floating], label_B: Ints) -> Metric:
    """Area under the ROC curve: of class 1 for two classes, otherwise the macro mean of one class against the rest.

    It is the Mann-Whitney probability that a record of the class scores higher than another, ties counting one half.
    """
    n_classes = probabilities_BN.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    areas = [_auroc_of_class(probabilities_BN[:, c], label_B == c) for c in classes]
    return lambda weights_RB: _mean_defined(np.stack([area(weights_RB) for area in areas], axis=1))


def _auroc_of_class(score_B: NDArray[np.floating], positive_B: NDArray[np.bool_]) -> Metric:
    positives, negatives = np.flatnonzero(positive_B), np.flatnonzero(~positive_B)
    negatives = negatives[np.argsort(score_B[negatives], kind="stable")]
    n_below, n_not_above = (np.searchsorted(score_B[negatives], score_B[positives], side) for side in ("left", "right"))

    def area(weights_RB: Ints) -> Floats:
        of_positives = weights_RB.take(positives, axis=1)
        up_to = np.zeros((len(weights_RB), len(negatives) + 1), np.int64)
        weights_RB.take(negatives, axis=1).cumsum(axis=1, out=up_to[:, 1:])
        # Twice the pairs won, so that ties stay whole numbers and the sum is exact.
        won_twice = (of_positives * (up_to.take(n_below, axis=1) + up_to.take(n_not_above, axis=1))).sum(1)
        n_pairs = of_positives.sum(1) * up_to[:, -1]
        return _ratio(won_twice, 2 * n_pairs, n_pairs > 0)

    return area


def mean(value_B: NDArray[np.floating]) -> Metric:
    """The mean of a number per record."""
    return lambda weights_RB: (weights_RB @ value_B.astype(np.float64)) / weights_RB.sum(1)


def log_loss_per_record(label_probability_B: NDArray[np.floating]) -> Floats:
    """Minus the natural log of the probability of the label, which is clipped at the float32 epsilon (1.2e-7)."""
    return -np.log(np.clip(label_probability_B.astype(np.float64), np.finfo(np.float32).eps, 1.0))


def brier_per_record(probabilities_BN: NDArray[np.floating], label_B: Ints) -> Floats:
    """Squared distance from the one-hot label, summed over all classes: 0 (sure and right) to 2 (Brier 1950)."""
    p_BN = probabilities_BN.astype(np.float64)
    distance_B: Floats = (p_BN**2).sum(1) - 2 * p_BN[np.arange(len(label_B)), label_B] + 1
    return distance_B


def _ratio(top: Ints, bottom: Ints, defined: NDArray[np.bool_]) -> Floats:
    """Top / bottom, 0 where both are zero, NaN where it is not defined."""
    value = np.divide(top, bottom, out=np.zeros(top.shape), where=bottom > 0)
    return np.where(defined, value, np.nan)


def _mean_defined(value_RN: Floats) -> Floats:
    """The mean over classes that are defined; NaN if none is."""
    defined = ~np.isnan(value_RN)
    n_defined = defined.sum(1)
    total = np.where(defined, value_RN, 0.0).sum(1)
    mean_R: Floats = np.divide(total, n_defined, out=np.full(len(value_RN), np.nan), where=n_defined > 0)
    return mean_R
