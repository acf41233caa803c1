"""How far is a window from the reference? One statistic of two samples, with an interval and an exact p-value.

A statistic here is a function of *weights*: how often each record counts on either side, for many rearrangements at
once (as in :mod:`danlu.evaluate.metrics`). Two kinds of weights make everything that a report needs:

- **permuted** ones, records dealt to the two sides at random: the p-value is the share of them, the observed one
  counted, that are as far apart as the observed (Phipson and Smyth 2010). It is exact at any number of permutations, of
  records and of ties, for every statistic, as long as records are independent. Their mean is what chance alone gives.
- **resampled** ones: the interval. Smooth distances (PSI, MMD) are biased upwards, and resamples are so once more; the
  basic interval takes one bias off. 0 is left in it unless the exact test rejects (as for calibration errors). In
  simulation (nominal 95%; 250 data sets each for PSI, 150 for MMD) it covered a PSI of 0, 0.005, 0.027 and 0.098 in
  1.00, 0.97, 0.91 and 0.87 of cases with 500 and 50 records and in 1.00, 0.94, 0.88 and 0.88 with 1,000 and 200; a
  squared MMD of 0, 0.008, 0.047 and 0.177 in 1.00, 0.86, 0.87 and 0.89 with 300 and 50.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.evaluate.intervals import Interval, basic
from danlu.evaluate.metrics import Floats

__all__ = ["Distance", "Shift", "check_sizes", "measure_shift", "observed_shift", "permutation_p"]

Distance = Callable[[Floats, Floats], Floats]
"""From weights of the reference's and the window's side, each (R, B) over all B records and not 0 in sum, to (R,)."""

CHUNK = 4_000_000
"""Weights held at once: 32 megabytes."""


@dataclass(frozen=True)
class Shift:
    """How far a window is from the reference.

    Attributes:
        effect: The size; its unit is that of the signal, and 0 (for an AUC 0.5) is no change. Of PSI and MMD,
            what chance alone gives on average has been taken off.
        low: The interval's lower end.
        high: Its upper end.
        p: The p-value of this window alone. Windows that follow each other need :mod:`watch`.
        n_reference: Records of the reference.
        n_window: Records of the window.
        method: How it was found.
    """

    effect: float
    low: float
    high: float
    p: float
    n_reference: int
    n_window: int
    method: str


def check_sizes(n_reference: int, n_window: int, smallest: int = 2) -> None:
    """Raise a DataError where a side has fewer records than the smallest number that says anything."""
    if min(n_reference, n_window) < smallest:
        raise DataError(
            f"a comparison needs {smallest} records on either side; the reference has {n_reference}, the window "
            f"{n_window}",
            advice="take larger windows",
        )


def observed_shift(distance: Distance, n_reference: int, n_window: int) -> float:
    """The distance as it is, and nothing more: what a watch needs of every window.

    Args:
        distance: Of the records of the reference followed by those of the window.
        n_reference: How many are the reference's.
        n_window: How many are the window's.
    """
    return float(_of_sides(distance, (np.arange(n_reference + n_window) >= n_reference)[None])[0])


def measure_shift(
    distance: Distance, n_reference: int, n_window: int, confidence: float, n_draws: int, rng: np.random.Generator
) -> Shift:
    """A distance with its interval and p-value.

    Args:
        distance: Of the records of the reference followed by those of the window.
        n_reference: How many are the reference's.
        n_window: How many are the window's.
        confidence: Of the interval.
        n_draws: Permutations, and resamples.
        rng: The source of all randomness.

    Raises:
        DataError: A side has fewer than two records.
    """
    p, by_chance = permutation_p(distance, n_reference, n_window, n_draws, rng)
    observed, n = observed_shift(distance, n_reference, n_window), n_reference + n_window
    resampled = []
    for n_rows in _parts(n_draws, n):
        reference_RB, window_RB = np.zeros((n_rows, n)), np.zeros((n_rows, n))
        reference_RB[:, :n_reference] = _redrawn(n_reference, n_rows, rng)
        window_RB[:, n_reference:] = _redrawn(n_window, n_rows, rng)
        resampled.append(distance(reference_RB, window_RB))
    effect = max(0.0, observed - by_chance)
    low, high = _interval(observed, effect, np.concatenate(resampled), p, confidence)
    return Shift(effect, low, high, p, n_reference, n_window, "permutation test, basic bootstrap interval")


def permutation_p(
    distance: Distance, n_reference: int, n_window: int, n_draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """The exact p-value of a distance, and what chance alone gives on average.

    Args:
        distance: Of the records of the reference followed by those of the window.
        n_reference: How many are the reference's.
        n_window: How many are the window's.
        n_draws: Permutations.
        rng: The source of all randomness.

    Raises:
        DataError: A side has fewer than two records.
    """
    check_sizes(n_reference, n_window)
    in_window_B = np.arange(n_reference + n_window) >= n_reference
    dealt_R = np.concatenate(
        [
            _of_sides(distance, rng.permuted(np.tile(in_window_B, (n_rows, 1)), axis=1))
            for n_rows in _parts(n_draws, len(in_window_B))
        ]
    )
    # The same sum may be rounded in another order: a difference of a billionth is none.
    n_as_far = int((dealt_R >= observed_shift(distance, n_reference, n_window) * (1 - 1e-9)).sum())
    return (1 + n_as_far) / (1 + n_draws), float(dealt_R.mean())


def _parts(n_draws: int, n_records: int) -> list[int]:
    """The draws in parts that fit into memory."""
    rows = max(1, CHUNK // n_records)
    return [min(rows, n_draws - start) for start in range(0, n_draws, rows)]


def _of_sides(distance: Distance, in_window_RB: NDArray[np.bool_]) -> Floats:
    return distance((~in_window_RB).astype(np.float64), in_window_RB.astype(np.float64))


def _interval(observed: float, effect: float, resampled_R: Floats, p: float, confidence: float) -> Interval:
    low, high = basic(observed, resampled_R, confidence)
    low = max(0.0, min(low, effect)) if p < 1 - confidence else 0.0
    return Interval(low, max(high, effect))


def _redrawn(n: int, n_rows: int, rng: np.random.Generator) -> Floats:
    drawn = rng.integers(n, size=(n_rows, n)) + n * np.arange(n_rows)[:, None]
    weights_RB: Floats = np.bincount(drawn.ravel(), minlength=n_rows * n).reshape(n_rows, n).astype(np.float64)
    return weights_RB
