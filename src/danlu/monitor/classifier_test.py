"""Can a classifier tell a window's embeddings from the reference's? The classifier two-sample test.

A logistic regression is trained on half of either side and ranks the other half (Lopez-Paz and Oquab 2017). Its area
under the ROC curve is the effect: 0.5 where it can tell nothing, 1 where it tells all; a drift along one direction that
the whole distance between distributions (MMD) hardly shows is found best by it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from danlu.evaluate.intervals import Interval
from danlu.evaluate.metrics import Floats
from danlu.monitor.shift import Shift, check_sizes

__all__ = ["auc_interval", "classifier_shift"]

SMALLEST = 20


def classifier_shift(
    reference_BD: NDArray[np.floating], window_BD: NDArray[np.floating], confidence: float, rng: np.random.Generator
) -> Shift:
    """The AUC with DeLong's interval, and Mann and Whitney's one-sided p-value.

    The ranked halves had no part in training, so under the null all orders of their scores are equally likely.

    Args:
        reference_BD: Embeddings of the reference.
        window_BD: Those of the window.
        confidence: Of the interval.
        rng: Parts either side.

    Raises:
        DataError: Fewer than 20 records on a side.
    """
    check_sizes(len(reference_BD), len(window_BD), SMALLEST)
    halves = [np.array_split(side[rng.permutation(len(side))], 2) for side in (reference_BD, window_BD)]
    (fit_0, rank_0), (fit_1, rank_1) = halves
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    classifier.fit(np.concatenate([fit_0, fit_1]), np.repeat([0, 1], [len(fit_0), len(fit_1)]))
    score_0, score_1 = classifier.decision_function(rank_0), classifier.decision_function(rank_1)
    p = float(mannwhitneyu(score_1, score_0, alternative="greater", method="asymptotic").pvalue)
    auc, (low, high) = auc_interval(score_0, score_1, confidence)
    return Shift(auc, low, high, p, len(reference_BD), len(window_BD), "classifier two-sample test, DeLong interval")


def auc_interval(score_0: Floats, score_1: Floats, confidence: float) -> tuple[float, Interval]:
    """The chance that a record of side 1 scores higher, ties counted half, and its interval.

    DeLong, DeLong and Clarke-Pearson (1988). Where the sides part without any overlap its width would be 0; there
    Hoeffding's bound for two-sample U-statistics (1963, section 5b) is given, which is wide and always holds.
    """
    n_0, n_1 = len(score_0), len(score_1)
    rank = rankdata(np.concatenate([score_0, score_1]))
    above_0 = 1 - (rank[:n_0] - rankdata(score_0)) / n_1
    above_1 = (rank[n_0:] - rankdata(score_1)) / n_0
    auc = float(above_1.mean())
    error = math.sqrt(float(above_0.var(ddof=1) / n_0 + above_1.var(ddof=1) / n_1))
    half = float(norm.ppf((1 + confidence) / 2)) * error
    if error == 0:
        half = math.sqrt(math.log(2 / (1 - confidence)) / (2 * min(n_0, n_1)))
    return auc, Interval(max(0.0, auc - half), min(1.0, auc + half))
