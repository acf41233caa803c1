"""Is the service slower, or does it fail more often, than before? Exact tests for one window.

Requests that are answered together are slow together. These tests take requests as independent, so their p-values say
how far from chance one window is if they were; whether to raise an alarm is decided by windows (:mod:`watch`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, fisher_exact

from danlu.core.errors import DataError
from danlu.evaluate.intervals import wilson
from danlu.monitor.shift import Shift, check_sizes

__all__ = ["failure_shift", "slow_shift"]

SLOW = 0.95


def slow_shift(reference_B: NDArray[np.floating], window_B: NDArray[np.floating], confidence: float) -> Shift:
    """How many more requests than before are slower than 95% of the reference.

    Let s be the r-th smallest of the n latencies of the reference. If nothing has changed, the number of the window's m
    that are above it is beta-binomial, whatever the distribution of latencies (exceedance test; Gumbel and von
    Schelling 1950): the p-value is exact, and with ties on the safe side.

    Args:
        reference_B: Seconds of each reference request.
        window_B: Those of the window.
        confidence: Of Wilson's interval.

    Returns:
        The effect is the share of slow requests less that of the reference.

    Raises:
        DataError: Fewer than 20 requests in the reference, or 2 in the window.
    """
    check_sizes(len(window_B), len(window_B))
    check_sizes(len(reference_B), len(reference_B), 20)
    if not (np.isfinite(reference_B).all() and np.isfinite(window_B).all()):
        raise DataError("a latency is not a number", advice="leave out requests that were not answered")
    n, m = len(reference_B), len(window_B)
    r = math.ceil(SLOW * n)
    n_slow = int((window_B > np.sort(reference_B)[r - 1]).sum())
    p = float(betabinom.sf(n_slow - 1, m, n - r + 1, r))
    usual = float((reference_B > np.sort(reference_B)[r - 1]).mean())
    low, high = wilson(n_slow, m, confidence)
    return Shift(n_slow / m - usual, low - usual, high - usual, p, n, m, "exceedance test, Wilson interval")


def failure_shift(
    n_failed_reference: int, n_reference: int, n_failed_window: int, n_window: int, confidence: float
) -> Shift:
    """How many more requests than before fail: Fisher's exact one-sided test, Newcombe's interval (1998, method 10).

    Returns:
        The effect is the difference of the shares.

    Raises:
        DataError: Counts that cannot be.
    """
    check_sizes(n_reference, n_window)
    if not (0 <= n_failed_reference <= n_reference and 0 <= n_failed_window <= n_window):
        raise DataError(
            f"{n_failed_reference} of {n_reference} and {n_failed_window} of {n_window} requests cannot have failed"
        )
    table = [[n_failed_window, n_window - n_failed_window], [n_failed_reference, n_reference - n_failed_reference]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    before, now = n_failed_reference / n_reference, n_failed_window / n_window
    before_low, before_high = wilson(n_failed_reference, n_reference, confidence)
    now_low, now_high = wilson(n_failed_window, n_window, confidence)
    low = now - before - math.hypot(now - now_low, before_high - before)
    high = now - before + math.hypot(now_high - now, before - before_low)
    return Shift(now - before, low, high, p, n_reference, n_window, "Fisher's exact test, Newcombe interval")
