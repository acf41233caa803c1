"""The evaluation of one model on one split, from its predictions file, as plain JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from danlu.evaluate.calibration import ece, ece_if_calibrated, ece_interval, p_calibrated, reliability
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import measure, observed, percentile, resample, wilson
from danlu.evaluate.metrics import (
    MACRO_METRICS,
    Floats,
    Ints,
    Metric,
    auroc,
    brier_per_record,
    class_statistic,
    confusion_cells,
    confusion_matrix,
    log_loss_per_record,
    mean,
    together,
)
from danlu.evaluate.predictions import Predictions, latency, read_predictions
from danlu.evaluate.slices import length_quarters, slice_metrics

__all__ = ["evaluate_predictions", "probability_metrics"]


def evaluate_predictions(path: Path, config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Every metric with its interval, and what to look at.

    Args:
        path: A file by :class:`~danlu.evaluate.predictions.PredictionWriter`.
        config: Resamples, confidence, bins, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``n``, ``class_names``, ``confidence``, ``n_resamples``; ``metrics`` and ``classes``, each metric a ``value``
        with ``low``, ``high``, ``n`` and ``method``; ``confusion`` (rows are labels); ``calibration``; ``slices``;
        ``most_confident_wrong`` and ``slowest`` records; ``latency_ms`` a text.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    predictions = read_predictions(path)
    label_B, predicted_B = predictions.label_B, predictions.predicted
    confusion = confusion_matrix(label_B, predicted_B, predictions.n_classes)
    macro, classes = _class_measures(confusion, predictions.class_names, config, rng)
    probabilistic, calibration = _probability_measures(predictions, config, rng)
    names, slice_B = length_quarters(predictions.n_chars_B)
    return {
        "n": len(label_B),
        "class_names": predictions.class_names,
        "confidence": config.confidence,
        "n_resamples": config.bootstrap,
        "metrics": {**macro, **probabilistic},
        "classes": classes,
        "confusion": confusion.tolist(),
        "calibration": calibration,
        "slices": {"n_chars": slice_metrics(names, slice_B, label_B, predicted_B, predictions.n_classes, config, rng)},
        "most_confident_wrong": _most_confident_wrong(predictions, config.examples),
        "slowest": predictions.examples(np.argsort(-predictions.milliseconds_B, kind="stable")[: config.examples]),
        "latency_ms": latency(predictions.milliseconds_B),
    }


def probability_metrics(predictions: Predictions) -> dict[str, Metric]:
    """The metrics that need the probabilities of each record."""
    p_BN, label_B = predictions.probabilities_BN, predictions.label_B
    return {
        "auroc": auroc(p_BN, label_B),
        "log_loss": mean(log_loss_per_record(p_BN[np.arange(len(label_B)), label_B])),
        "brier": mean(brier_per_record(p_BN, label_B)),
    }


def _class_measures(
    confusion: Ints, class_names: list[str], config: EvaluateConfig, rng: np.random.Generator
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metrics that follow from the confusion matrix: over all classes, and of each."""
    label_M, predicted_M, count_M = confusion_cells(confusion)
    statistic = class_statistic(label_M, predicted_M, len(class_names))
    value, draws = observed(count_M, statistic), resample(count_M, statistic, config.bootstrap, rng)
    n, hits = int(count_M.sum()), confusion.diagonal()
    n_labels, n_predicted = confusion.sum(1), confusion.sum(0)

    def proportion(share: float, n_hits: int, n_tried: int) -> dict[str, Any]:
        return measure(share, wilson(n_hits, n_tried, config.confidence), n_tried, "wilson")

    def bootstrapped(share: float, draws_R: Floats, n_records: int) -> dict[str, Any]:
        return measure(share, percentile(draws_R, config.confidence), n_records, "bootstrap")

    macro = {"accuracy": proportion(float(value["accuracy"]), int(hits.sum()), n)}
    macro |= {name: bootstrapped(float(value[name]), draws[name], n) for name in MACRO_METRICS if name != "accuracy"}
    classes = [
        {
            "name": name,
            "n": int(n_labels[c]),
            "n_predicted": int(n_predicted[c]),
            "precision": proportion(float(value["precision"][c]), int(hits[c]), int(n_predicted[c])),
            "recall": proportion(float(value["recall"][c]), int(hits[c]), int(n_labels[c])),
            "f1": bootstrapped(float(value["f1"][c]), draws["f1"][:, c], int(n_labels[c])),
        }
        for c, name in enumerate(class_names)
    ]
    return macro, classes


def _probability_measures(
    predictions: Predictions, config: EvaluateConfig, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics that need each record, and the calibration picture."""
    n, n_bins = len(predictions.label_B), config.calibration_bins
    confidence_B, correct_B = predictions.confidence, predictions.predicted == predictions.label_B
    statistic = together({**probability_metrics(predictions), "ece": ece(confidence_B, correct_B, n_bins)})
    ones_B = np.ones(n, dtype=np.int64)
    value, draws = observed(ones_B, statistic), resample(ones_B, statistic, config.bootstrap, rng)
    metrics = {
        name: measure(float(value[name]), percentile(draws[name], config.confidence), n, "bootstrap")
        for name in ("auroc", "log_loss", "brier")
    }
    error = float(value["ece"])
    calibrated = ece_if_calibrated(confidence_B, n_bins, config.bootstrap, rng)
    interval = ece_interval(error, draws["ece"], calibrated, config.confidence)
    metrics["ece"] = measure(error, interval, n, "basic bootstrap")
    calibration = {
        "bins": reliability(confidence_B, correct_B, n_bins, config.confidence),
        "ece_by_chance": float(np.quantile(calibrated, config.confidence)),
        "p_calibrated": p_calibrated(error, calibrated),
        "mean_confidence": float(confidence_B.mean(dtype=np.float64)),
    }
    return metrics, calibration


def _most_confident_wrong(predictions: Predictions, n_examples: int) -> list[dict[str, Any]]:
    wrong = np.flatnonzero(predictions.predicted != predictions.label_B)
    surest = np.argsort(-predictions.confidence[wrong], kind="stable")[:n_examples]
    return predictions.examples(wrong[surest])
