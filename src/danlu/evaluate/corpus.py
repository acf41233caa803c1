"""Metrics that follow from sums over records (bits per character, chrF, BLEU): with intervals, by slice, and compared.

A record's share in such a metric is a row of J numbers. A resample of the records is then a product of weights and
rows, and two models are permuted by moving rows from one sum to the other, so that thousands of resamples and
permutations are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import measure, observed, percentile, resample
from danlu.evaluate.metrics import Floats, Ints, SumStatistic, of_sums
from danlu.evaluate.significance import bootstrap_differences, swap_test

__all__ = ["compare_sums", "measure_slices", "measure_sums"]


def measure_sums(
    part_BJ: Floats, metrics: SumStatistic, config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, dict[str, Any]]:
    """Each metric with its bootstrap interval over records.

    Args:
        part_BJ: J numbers of each record.
        metrics: What follows from their sums.
        config: Resamples and confidence.
        rng: The source of all randomness.

    Returns:
        Metric name -> ``value``, ``low``, ``high``, ``n``, ``method``.
    """
    n = len(part_BJ)
    ones_B, statistic = np.ones(n, dtype=np.int64), of_sums(part_BJ, metrics)
    draws = resample(ones_B, statistic, config.bootstrap, rng)
    return {
        name: measure(float(value), percentile(draws[name], config.confidence), n, "bootstrap")
        for name, value in observed(ones_B, statistic).items()
    }


def measure_slices(
    names: Sequence[str],
    slice_B: Ints,
    part_BJ: Floats,
    metrics: SumStatistic,
    config: EvaluateConfig,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The metrics of each slice.

    Args:
        names: A name for each slice; each has records.
        slice_B: The slice of each record, as an index into the names.
        part_BJ: J numbers of each record.
        metrics: What follows from their sums.
        config: Resamples and confidence.
        rng: The source of all randomness.

    Returns:
        ``name``, ``n`` and the metrics of each slice.
    """
    parts = [part_BJ[slice_B == index] for index in range(len(names))]
    return [
        {"name": name, "n": len(part), **measure_sums(part, metrics, config, rng)}
        for name, part in zip(names, parts, strict=True)
    ]


def compare_sums(
    a_BJ: Floats, b_BJ: Floats, metrics: SumStatistic, config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, dict[str, float | None]]:
    """Model A against model B: paired bootstrap intervals and permutation tests over records.

    Args:
        a_BJ: J numbers of each record from A.
        b_BJ: The same from B, records in the same order.
        metrics: What follows from their sums.
        config: Resamples, permutations and confidence.
        rng: The source of all randomness.

    Returns:
        Metric name -> ``a``, ``b``, ``difference`` (A - B), ``low``, ``high``, ``p_bootstrap``, ``p_permutation``; null
        where undefined.
    """
    of_a, of_b = of_sums(a_BJ, metrics), of_sums(b_BJ, metrics)
    p_values = swap_test(a_BJ, b_BJ, metrics, config.permutations, rng)

    def paired(weights_RB: Ints) -> dict[str, Floats]:
        both = {"a": of_a(weights_RB), "b": of_b(weights_RB)}
        return {f"{model}.{name}": value_R for model, found in both.items() for name, value_R in found.items()}

    ones_B = np.ones(len(a_BJ), dtype=np.int64)
    differences = bootstrap_differences(tuple(p_values), ones_B, paired, config, rng)
    return {name: {**found, "p_permutation": p_values[name]} for name, found in differences.items()}
