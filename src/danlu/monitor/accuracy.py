"""How often is the model right on traffic that nobody labelled? An estimate from its confidence.

On labelled reference records it is measured how often each level of confidence is right; the estimate of a window is
the mean of that over the window's confidences (confidence-based performance estimation). It follows a drift towards
easier or harder requests. It cannot see a model that is wrong as sure as ever: where labels change their meaning, or
where requests are of a kind the reference had none of, only labels tell. So a drop is a reason to look, and none is no
proof.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from danlu.core.errors import DataError
from danlu.evaluate.calibration import bin_edges
from danlu.evaluate.intervals import Interval
from danlu.evaluate.metrics import Floats, Ints
from danlu.monitor.shift import Shift, check_sizes

__all__ = ["ConfidenceLevels", "EstimatedAccuracy"]


@dataclass(frozen=True)
class EstimatedAccuracy:
    """The estimate for one window.

    Attributes:
        accuracy: The share of answers thought to be right, of traffic like the window's.
        interval: Of it: for what is not known of the levels, and of traffic from this window.
        drop: Reference accuracy - accuracy, with its interval and two-sided p-value.
    """

    accuracy: float
    interval: Interval
    drop: Shift


@dataclass(frozen=True)
class ConfidenceLevels:
    """How often each level of confidence is right.

    Attributes:
        edge_M: Upper edges of M levels, equally many reference records in each.
        n_M: Reference records in each.
        right_M: The share of them that is right, (hits + 1/2) / (n + 1).
    """

    edge_M: Floats
    n_M: Ints
    right_M: Floats

    @classmethod
    def measure(
        cls, confidence_B: NDArray[np.floating], correct_B: NDArray[np.bool_], n_levels: int = 10
    ) -> ConfidenceLevels:
        """From labelled reference records that the model was not trained on.

        Raises:
            DataError: Fewer than ten records a level, or a confidence that is none.
        """
        check_sizes(len(confidence_B), len(correct_B), 10 * n_levels)
        _check(confidence_B)
        edge_M = bin_edges(confidence_B, n_levels).astype(np.float64)
        level_B = np.searchsorted(edge_M, confidence_B)
        n_M = np.bincount(level_B, minlength=len(edge_M))
        hits_M = np.bincount(level_B, weights=correct_B, minlength=len(edge_M))
        return cls(edge_M, n_M.astype(np.int64), (hits_M + 0.5) / (n_M + 1))

    def estimate(self, confidence_B: NDArray[np.floating], confidence: float) -> EstimatedAccuracy:
        """The accuracy on a window.

        Args:
            confidence_B: The model's confidence in each answer of the window.
            confidence: Of the intervals.

        Raises:
            DataError: Fewer than two records, or a confidence that is none.
        """
        n_reference, n = int(self.n_M.sum()), len(confidence_B)
        check_sizes(n_reference, n)
        _check(confidence_B)
        level_B = np.minimum(np.searchsorted(self.edge_M, confidence_B), len(self.edge_M) - 1)
        share_M = np.bincount(level_B, minlength=len(self.edge_M)) / n
        usual_M = self.n_M / n_reference
        level_variance_M = self.right_M * (1 - self.right_M) / self.n_M
        of_window = _variance(share_M, self.right_M) / n
        accuracy, usual = float(share_M @ self.right_M), float(usual_M @ self.right_M)
        error = math.sqrt(of_window + float(share_M**2 @ level_variance_M))
        # The levels are the same on both sides: of their error only what the shares differ by counts.
        moved = float((share_M - usual_M) ** 2 @ level_variance_M)
        error_of_drop = math.sqrt(of_window + _variance(usual_M, self.right_M) / n_reference + moved)
        z = float(norm.ppf((1 + confidence) / 2))
        drop = usual - accuracy
        p = 2 * float(norm.sf(abs(drop) / error_of_drop)) if error_of_drop > 0 else 1.0
        return EstimatedAccuracy(
            accuracy,
            Interval(max(0.0, accuracy - z * error), min(1.0, accuracy + z * error)),
            Shift(
                drop,
                drop - z * error_of_drop,
                drop + z * error_of_drop,
                p,
                n_reference,
                n,
                "accuracy by confidence levels, normal interval",
            ),
        )


def _variance(share_M: Floats, value_M: Floats) -> float:
    return float(share_M @ value_M**2 - (share_M @ value_M) ** 2)


def _check(confidence_B: NDArray[np.floating]) -> None:
    inside_B = (confidence_B >= 0) & (confidence_B <= 1)
    if not inside_B.all():
        row = int(np.argmin(inside_B))
        raise DataError(f"a confidence is {confidence_B[row]}, not between 0 and 1", where=f"record {row}")
