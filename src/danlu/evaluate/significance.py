"""Is one model better than another on the same records? Paired tests, and Holm's correction for several models.

- McNemar asks whether two models are right equally often (accuracy).
- The permutation test asks for any metric whether it matters which model gave which output; there is one for the
  class metrics, which works on cells of like records, and one for metrics that follow from sums over records.
- The paired bootstrap gives the size of a difference and its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import CHUNK, observed, percentile, resample
from danlu.evaluate.metrics import MACRO_METRICS, Floats, Ints, Statistic, SumStatistic, class_statistic

__all__ = [
    "PairedCells",
    "bootstrap_difference",
    "bootstrap_differences",
    "holm",
    "mcnemar",
    "permutation_test",
    "swap_test",
]

FEW_DISCORDANT = 25
ROUNDING = 1e-12
"""Differences nearer than this are equal: the same ratio may be summed in another order."""


@dataclass(frozen=True)
class PairedCells:
    """Two models' predictions on the same records, like records counted together.

    Attributes:
        label_M: The label of each kind of record.
        a_M: What model A predicts.
        b_M: What model B predicts.
        count_M: How many records are so.
        n_classes: N.
    """

    label_M: Ints
    a_M: Ints
    b_M: Ints
    count_M: Ints
    n_classes: int

    @classmethod
    def count(cls, label_B: Ints, a_B: Ints, b_B: Ints, n_classes: int) -> PairedCells:
        """Gather records into cells."""
        joint_B = (label_B * n_classes + a_B) * n_classes + b_B
        joint_M, count_M = np.unique(joint_B, return_counts=True)
        label_a_M, b_M = np.divmod(joint_M, n_classes)
        label_M, a_M = np.divmod(label_a_M, n_classes)
        return cls(label_M, a_M, b_M, count_M, n_classes)

    def statistic(self) -> Statistic:
        """The class metrics of both models: ``a.macro_f1``, ``b.macro_f1`` and so on."""
        of_a = class_statistic(self.label_M, self.a_M, self.n_classes)
        of_b = class_statistic(self.label_M, self.b_M, self.n_classes)
        return lambda weights_RM: {
            **{f"a.{name}": value for name, value in of_a(weights_RM).items()},
            **{f"b.{name}": value for name, value in of_b(weights_RM).items()},
        }


def mcnemar(n_only_a_right: int, n_only_b_right: int) -> tuple[float, str]:
    """McNemar's test that two models are right equally often.

    Only records that exactly one model gets right say anything; under the null each is a fair coin. With at most 25
    of them the exact binomial p-value is given, whose level is guaranteed. With more, the mid-p value: the exact one
    and chi-squared with continuity correction both reject too seldom, and mid-p was found to keep to the level
    (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91).

    Returns:
        The two-sided p-value, and the ``method``: ``exact`` or ``mid-p``.
    """
    n = n_only_a_right + n_only_b_right
    fewer = min(n_only_a_right, n_only_b_right)
    tail, at = float(binom.cdf(fewer, n, 0.5)), float(binom.pmf(fewer, n, 0.5))
    if n <= FEW_DISCORDANT:
        return min(1.0, 2 * tail), "exact"
    return (1 - at / 2 if 2 * fewer == n else 2 * tail - at), "mid-p"


def bootstrap_difference(
    value_a: float, value_b: float, draws_a_R: Floats, draws_b_R: Floats, confidence: float
) -> dict[str, float | None]:
    """The difference A - B of a metric, with its percentile interval and p-value, from paired resamples.

    The p-value is that of the interval turned round: the smallest level at which it would leave out 0, counting the
    observed data as one more resample, so that it is never 0.

    Returns:
        ``a``, ``b``, ``difference``, ``low``, ``high``, ``p_bootstrap``; null where undefined.
    """
    draws_R = draws_a_R - draws_b_R
    low, high = percentile(draws_R, confidence)
    below, above = int((draws_R <= ROUNDING).sum()), int((draws_R >= -ROUNDING).sum())
    n_defined = int((~np.isnan(draws_R)).sum())
    numbers = {
        "a": float(value_a),
        "b": float(value_b),
        "difference": float(value_a - value_b),
        "low": low,
        "high": high,
        "p_bootstrap": min(1.0, 2 * (min(below, above) + 1) / (n_defined + 1)) if n_defined else math.nan,
    }
    return {key: None if math.isnan(x) else x for key, x in numbers.items()}


def bootstrap_differences(
    metric_names: Sequence[str], count_M: Ints, statistic: Statistic, config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, dict[str, float | None]]:
    """:func:`bootstrap_difference` of several metrics, from the same resamples.

    Args:
        metric_names: Which.
        count_M: How often each cell was observed; ones for single records.
        statistic: Gives ``a.NAME`` and ``b.NAME`` for each of them.
        config: Resamples and confidence.
        rng: The source of all randomness.
    """
    value, draws = observed(count_M, statistic), resample(count_M, statistic, config.bootstrap, rng)
    return {
        name: bootstrap_difference(
            float(value[f"a.{name}"]),
            float(value[f"b.{name}"]),
            draws[f"a.{name}"],
            draws[f"b.{name}"],
            config.confidence,
        )
        for name in metric_names
    }


def permutation_test(cells: PairedCells, n_permutations: int, rng: np.random.Generator) -> dict[str, float]:
    """Two-sided p-values of the differences in the class metrics, by swapping the models' outputs at random.

    If the models were interchangeable, swapping their outputs on any records would change nothing. Each record is
    swapped with probability one half; of a cell of like records a binomial number is. The observed arrangement counts
    as one of those tried (Phipson and Smyth 2010), so the test is exact at any number of permutations.

    Returns:
        Metric name -> p-value, for ``accuracy`` and the macro metrics.
    """
    arranged = PairedCells(
        label_M=np.tile(cells.label_M, 2),
        a_M=np.concatenate([cells.a_M, cells.b_M]),
        b_M=np.concatenate([cells.b_M, cells.a_M]),
        count_M=np.concatenate([cells.count_M, np.zeros_like(cells.count_M)]),
        n_classes=cells.n_classes,
    )
    statistic = arranged.statistic()
    true = _distance(statistic(arranged.count_M[None]))
    n_as_far = dict.fromkeys(MACRO_METRICS, 1)
    at_once = max(1, CHUNK // len(arranged.count_M))
    for start in range(0, n_permutations, at_once):
        rows = min(at_once, n_permutations - start)
        swapped_RM = rng.binomial(cells.count_M, 0.5, size=(rows, len(cells.count_M)))
        shuffled = _distance(statistic(np.concatenate([cells.count_M - swapped_RM, swapped_RM], axis=1)))
        for name in MACRO_METRICS:
            n_as_far[name] += int((shuffled[name] >= true[name] - ROUNDING).sum())
    return {name: n / (n_permutations + 1) for name, n in n_as_far.items()}


def swap_test(
    a_BJ: Floats, b_BJ: Floats, metrics: SumStatistic, n_permutations: int, rng: np.random.Generator
) -> dict[str, float | None]:
    """Two-sided p-values of the differences in metrics that follow from sums, by swapping outputs at random.

    The null hypothesis is that of :func:`permutation_test`: on each record the two outputs could as well have come
    from the other model. Each record is swapped with probability one half, which moves its numbers from one model's
    sums to the other's (in machine translation: approximate randomisation; Noreen 1989, Riezler and Maxwell 2005). The
    observed arrangement counts as one of those tried, so the test is exact under that null at any number of
    permutations.

    Args:
        a_BJ: J numbers of each record from model A.
        b_BJ: The same from model B.
        metrics: What follows from their sums.
        n_permutations: How many random arrangements to try.
        rng: The source of all randomness.

    Returns:
        Metric name -> p-value; null where the metric is undefined.
    """

    def distance(sums_a_RJ: Floats, sums_b_RJ: Floats) -> dict[str, Floats]:
        of_a, of_b = metrics(sums_a_RJ), metrics(sums_b_RJ)
        return {name: np.abs(of_a[name] - of_b[name]) for name in of_a}

    total_a_J, total_b_J, moved_BJ = a_BJ.sum(0), b_BJ.sum(0), b_BJ - a_BJ
    true = {name: float(value[0]) for name, value in distance(total_a_J[None], total_b_J[None]).items()}
    n_as_far = dict.fromkeys(true, 1)
    at_once = max(1, CHUNK // len(a_BJ))
    for start in range(0, n_permutations, at_once):
        rows = min(at_once, n_permutations - start)
        swapped_RB = rng.integers(2, size=(rows, len(a_BJ)), dtype=np.bool_)
        moved_RJ = swapped_RB.astype(np.float64) @ moved_BJ
        shuffled = distance(total_a_J + moved_RJ, total_b_J - moved_RJ)
        for name in true:
            n_as_far[name] += int((shuffled[name] >= true[name] - ROUNDING).sum())
    return {name: None if math.isnan(true[name]) else n / (n_permutations + 1) for name, n in n_as_far.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): reject where the corrected p-value is under the level.

    The chance of any false rejection among all is then at most the level, however the tests depend on one another.
    """
    order = np.argsort(p_values, kind="stable")
    p_sorted = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p_sorted))
    return [float(p) for p in corrected]


def _distance(values: dict[str, Floats]) -> dict[str, Floats]:
    return {name: np.abs(values[f"a.{name}"] - values[f"b.{name}"]) for name in MACRO_METRICS}
