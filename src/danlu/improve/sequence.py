"""A confidence sequence for the mean of bounded numbers: an interval that may be looked at after every one of them.

Let X_1, X_2, ... be numbers of which, given the past, X_i has the mean D_i and is at least -c. For every L in [0, 1/c)

    exp(L S_t - f(L) V_t),   S_t = sum (X_i - D_i),   V_t = sum X_i^2,   f(L) = (-log(1 - c L) - c L) / c^2

is a supermartingale that starts at 1 (Fan, Grama and Liu 2015; Howard, Ramdas, McAuliffe and Sekhon 2021, Annals of
Statistics 49:1055, theorem 4 with the prediction 0). So is its mean over L, where 1 - c L is drawn from a gamma
distribution cut off at 1; that mean has a closed form (their proposition 9). By Ville's inequality it ever reaches 1/a
with a chance of at most a: whenever one looks, and with any reason to stop. That holds exactly, for any n and any
distribution within the bounds; means that move are covered too, where D is the running mean of D_1, ..., D_t.

Betting confidence sequences (Waudby-Smith and Ramdas 2023) are a little narrower at small n. They need a grid of means
and all past outcomes, and cover a mean that must not move; this one needs three sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammainc, gammaln

from danlu.core.errors import UsageError
from danlu.evaluate.intervals import Interval
from danlu.evaluate.metrics import Floats

__all__ = ["Mixture", "difference_interval"]

HALVINGS = 60


@dataclass(frozen=True)
class Mixture:
    """The supermartingale above, mixed over L.

    Attributes:
        bound: c: no number is further than this below its mean's prediction, 0.
        rho: The parameter of the gamma distribution. Any is valid; it says at which V the boundary is tightest.
    """

    bound: float
    rho: float

    @classmethod
    def tuned(cls, bound: float, variation: float, level: float) -> Mixture:
        """One whose one-sided boundary at ``level`` is about tightest where V is ``variation``.

        The rho is that of the normal mixture (Howard et al. 2021, section 3.5), which is near enough.

        Raises:
            UsageError: Numbers that cannot be.
        """
        if not (bound > 0 and variation > 0 and 0 < level < 0.5):
            raise UsageError(
                f"a confidence sequence cannot have bound {bound}, variation {variation} and level {level}",
                advice="the bound and the variation are above 0, the level is between 0 and 0.5",
            )
        nats = -2 * np.log(2 * level)
        return cls(bound, float(variation / (nats + np.log1p(nats))))

    def log_evidence(self, sum_: ArrayLike, variation: ArrayLike) -> Floats:
        """The logarithm of the e-value against "the mean is at most 0", for numbers of this sum and sum of squares.

        Args:
            sum_: Sums S less what the null allows (t times the mean to be tested), of any shape.
            variation: Sums of squares V, of the same shape.
        """
        squared = self.bound**2
        shape = (np.asarray(variation, np.float64) + self.rho) / squared
        upper = shape + np.asarray(sum_, np.float64) / self.bound
        start = self.rho / squared
        constant = start * np.log(start) - gammaln(start) - np.log(gammainc(start, start))
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = np.log(gammainc(shape, np.maximum(upper, 0.0))) - shape * np.log(np.maximum(upper, 0.0))
        # A sum this far below 0 is no evidence against a mean of 0: an e-value of 0 is on the safe side.
        log_e: Floats = constant + gammaln(shape) + np.where(upper > 0, inside, -np.inf) + upper - start
        return log_e

    def boundary(self, variation: ArrayLike, level: float) -> Floats:
        """The sums that are ever reached with a chance of at most ``level``, by halving."""
        variation = np.asarray(variation, np.float64)
        threshold = -np.log(level)
        low, high = np.zeros_like(variation), np.sqrt(variation + self.rho) + self.bound
        while (short := self.log_evidence(high, variation) < threshold).any():
            low, high = np.where(short, high, low), np.where(short, 2 * high, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            short = self.log_evidence(middle, variation) < threshold
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return high


def difference_interval(mixture: Mixture, total: float, variation: float, n: int, level: float) -> Interval:
    """The confidence sequence of the running mean after n numbers; all of them hold together with chance 1 - level."""
    half = float(mixture.boundary(variation, level / 2)) / n
    return Interval(total / n - half, total / n + half)
