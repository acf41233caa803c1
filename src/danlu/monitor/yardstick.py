"""From the columns of a window to its effects: how far it is from a base of reference records, signal by signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from danlu.evaluate.metrics import Floats
from danlu.monitor.accuracy import ConfidenceLevels
from danlu.monitor.columns import Columns
from danlu.monitor.drift import PRIOR, bandwidth_of, gaussian_kernel, ks_distance, psi_distance
from danlu.monitor.shift import Distance, observed_shift

__all__ = ["Yardstick", "levels_of"]

NEAR = 500
"""Records of the base whose embeddings are compared with: time and memory grow with their number squared."""
DIGITS = 12
LEVELS = 10
SMALLEST_LEVEL = 10
"""Reference records in a level of confidence, at least."""


class Yardstick:
    """Measures windows against a base.

    Args:
        base: The reference records that windows are compared with; no window shares a record with it.
        correct_B: Whether the model was right about each of them, where that is known.

    Attributes:
        base: See above.
        names: The signals.
        near_BD: Embeddings of the base that windows are compared with, where there are some.

    Raises:
        DataError: Most embeddings of the base are the same, or a number is none.
    """

    def __init__(self, base: Columns, correct_B: NDArray[np.bool_] | None = None) -> None:
        self.base, self._n = base, len(base)
        self._levels = levels_of(base, correct_B)
        self.near_BD = None if base.vector_BD is None else base.vector_BD[:NEAR]
        self._width = 1.0 if self.near_BD is None else bandwidth_of(self.near_BD)
        self._base_within = 0.0 if self.near_BD is None else float(self._kernel(self.near_BD).mean())
        vectors = [] if self.near_BD is None else ["embedding"]
        rates = [] if self._levels is None else ["accuracy"]
        self.names = (*base.numbers, *base.counts, *vectors, *rates)

    def effects(self, window: Columns) -> dict[str, float]:
        """The effect of a window, signal by signal.

        Raises:
            DataError: A number is not finite.
        """
        base = self.base
        found: dict[str, float] = {}
        for name, column in base.numbers.items():
            found[name] = self._observed(ks_distance(np.concatenate([column, window.numbers[name]])), window)
        for name, column in base.counts.items():
            found[name] = self._observed(psi_distance(np.concatenate([column, window.counts[name]])), window)
        if self.near_BD is not None:
            assert window.vector_BD is not None
            between, within = self._nearness(window.vector_BD), self._kernel(window.vector_BD)
            found["embedding"] = self._base_within + float(within.mean()) - 2 * float(between.mean())
        if self._levels is not None:
            found["accuracy"] = self._levels.estimate(window.numbers["confidence"], 0.95).drop.effect
        # The same effect may be summed in another order: what is equal must be a tie, and not ranked by rounding.
        return {name: round(effect, DIGITS) for name, effect in found.items()}

    def unlike(self, window: Columns) -> Floats | None:
        """How unlike the base each record of a window is, (B,); more is more unlike.

        By embeddings: 1 less the mean of the Gaussian kernel with the base's. Without them, by characters: the nats
        that each costs under the base's frequencies. None where there is neither.
        """
        if self.near_BD is not None:
            assert window.vector_BD is not None
            near_B: Floats = 1 - self._nearness(window.vector_BD).mean(1)
            return near_B
        if "characters" in window.counts:
            total_N = self.base.counts["characters"].sum(0) + PRIOR
            count_BN = window.counts["characters"]
            nats_B: Floats = count_BN @ -np.log(total_N / total_N.sum()) / np.maximum(1, count_BN.sum(1))
            return nats_B
        return None

    def _nearness(self, vector_BD: NDArray[np.float32]) -> Floats:
        """The kernel of each of a window's embeddings with each of the base's, (B, K)."""
        assert self.near_BD is not None
        return gaussian_kernel(vector_BD, self.near_BD, self._width)

    def _kernel(self, vector_BD: NDArray[np.float32]) -> Floats:
        return gaussian_kernel(vector_BD, vector_BD, self._width)

    def _observed(self, distance: Distance, window: Columns) -> float:
        return observed_shift(distance, self._n, len(window))


def levels_of(reference: Columns, correct_B: NDArray[np.bool_] | None) -> ConfidenceLevels | None:
    """How often each level of confidence is right among labelled records; None where there are no labels.

    Raises:
        DataError: There are fewer than ten records.
    """
    if correct_B is None or "confidence" not in reference.numbers:
        return None
    n_levels = max(1, min(LEVELS, len(correct_B) // SMALLEST_LEVEL))
    return ConfidenceLevels.measure(reference.numbers["confidence"], correct_B, n_levels)
