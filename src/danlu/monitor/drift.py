"""The distances of a window of requests, or of answers, from the reference.

| signal | distance | what it is |
|---|---|---|
| lengths, unknown tokens, confidence, latency | Kolmogorov-Smirnov | the most that shares of "at most x" differ |
| characters, classes | PSI (population stability index) | sum of (w - r) log(w / r); 0.1 is some, 0.25 much |
| embeddings | squared MMD, Gaussian kernel (Gretton et al. 2012) | 0 where distributions are alike, below 2 |

Each is a :data:`danlu.monitor.shift.Distance`. :func:`danlu.monitor.shift.measure_shift` (for the first,
:func:`ks_shift`) gives it an interval and a p-value, :func:`danlu.monitor.shift.observed_shift` only its value, which
is what :mod:`watch` needs of every window. A record is the unit: its characters or tokens belong together, and are
dealt and redrawn together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from danlu.core.errors import DataError
from danlu.evaluate.metrics import Floats, Ints
from danlu.monitor.shift import Distance, Shift, observed_shift, permutation_p

__all__ = [
    "bandwidth_of",
    "gaussian_kernel",
    "ks_distance",
    "ks_shift",
    "mmd_distance",
    "one_hot",
    "psi_distance",
]

PRIOR = 0.5
"""Added to the count of each kind on either side (Jeffreys): a kind that is new has a finite distance."""


def ks_distance(value_B: ArrayLike) -> Distance:
    """Of numbers, one a record; ties are no trouble.

    Raises:
        DataError: A number is not finite.
    """
    value_B = np.asarray(value_B, np.float64)
    if not np.isfinite(value_B).all():
        row = int(np.argmin(np.isfinite(value_B)))
        raise DataError(f"a number is {value_B[row]}", where=f"record {row}", advice="leave out what was not measured")
    order = np.argsort(value_B, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(value_B[order])), len(order) - 1)

    def distance(reference_RB: Floats, window_RB: Floats) -> Floats:
        gap_RB = window_RB / window_RB.sum(1, keepdims=True) - reference_RB / reference_RB.sum(1, keepdims=True)
        furthest_R: Floats = np.abs(np.cumsum(gap_RB[:, order], axis=1)[:, ends]).max(1)
        return furthest_R

    return distance


def ks_shift(
    reference_B: ArrayLike, window_B: ArrayLike, confidence: float, n_draws: int, rng: np.random.Generator
) -> Shift:
    """The Kolmogorov-Smirnov distance as it is, with an interval that holds for any n and any distribution.

    The distance has its bias near 0 and hardly one elsewhere, so neither a constant nor the bootstrap takes it off:
    at distances of 0.08 and 0.2 the basic interval covered in 0.82 to 0.90 of cases (nominal 95%). The inequality of
    Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990), half of the doubt for either side, is wider and
    covers at least as often as stated.

    Args:
        reference_B: Numbers, one a record.
        window_B: Those of the window.
        confidence: Of the interval, at least.
        n_draws: Permutations for the p-value.
        rng: Their source.

    Raises:
        DataError: A number is not finite, or a side has fewer than two.
    """
    reference_B, window_B = np.asarray(reference_B, np.float64), np.asarray(window_B, np.float64)
    n_reference, n_window = len(reference_B), len(window_B)
    distance = ks_distance(np.concatenate([reference_B, window_B]))
    p, _ = permutation_p(distance, n_reference, n_window, n_draws, rng)
    effect = observed_shift(distance, n_reference, n_window)
    radius = sum(np.sqrt(np.log(4 / (1 - confidence)) / (2 * n)) for n in (n_reference, n_window))
    low, high = float(max(0.0, effect - radius)), float(min(1.0, effect + radius))
    return Shift(effect, low, high, p, n_reference, n_window, "permutation test, Dvoretzky-Kiefer-Wolfowitz interval")


def one_hot(class_B: Ints, n_classes: int) -> Floats:
    """Counts (B, N) of records that each are of one kind."""
    return np.eye(n_classes)[class_B]


def psi_distance(count_BN: ArrayLike) -> Distance:
    """Of counts of N kinds in each record: characters of a text, or one class (:func:`one_hot`).

    Raises:
        DataError: A count is below 0 or not finite.
    """
    count_BN = np.asarray(count_BN, np.float64)
    if not (np.isfinite(count_BN) & (count_BN >= 0)).all():
        raise DataError("counts of kinds must be 0 or more", advice="pass a table with a row for each record")

    def shares(weight_RB: Floats) -> Floats:
        total_RN = weight_RB @ count_BN + PRIOR
        share_RN: Floats = total_RN / total_RN.sum(1, keepdims=True)
        return share_RN

    def distance(reference_RB: Floats, window_RB: Floats) -> Floats:
        reference_RN, window_RN = shares(reference_RB), shares(window_RB)
        psi_R: Floats = ((window_RN - reference_RN) * np.log(window_RN / reference_RN)).sum(1)
        return psi_R

    return distance


def bandwidth_of(vector_BD: NDArray[np.floating]) -> float:
    """The median distance between records (the usual choice), from all of them on equal terms.

    Raises:
        DataError: More than half of all records are the same.
    """
    squared_BB = _squared_distances(vector_BD)
    median = float(np.sqrt(np.median(squared_BB[np.triu_indices(len(squared_BB), 1)])))
    if not median > 0:
        raise DataError("most embeddings are the same, or not finite", advice="look at the records, and at the model")
    return median


def mmd_distance(vector_BD: NDArray[np.floating], bandwidth: float) -> Distance:
    """The squared maximum mean discrepancy of embeddings, (B, D); memory and time grow with B squared.

    Each record is also compared with itself, which adds about 1/n + 1/m; what chance alone gives is taken off later.
    For a permutation test, the bandwidth comes from both sides together, or from neither.
    """
    kernel_BB = np.exp(-_squared_distances(vector_BD) / (2 * bandwidth**2))

    def distance(reference_RB: Floats, window_RB: Floats) -> Floats:
        gap_RB = window_RB / window_RB.sum(1, keepdims=True) - reference_RB / reference_RB.sum(1, keepdims=True)
        squared_R: Floats = np.einsum("rb,rb->r", gap_RB @ kernel_BB, gap_RB)
        return np.maximum(squared_R, 0.0)

    return distance


def gaussian_kernel(one_BD: NDArray[np.floating], other_KD: NDArray[np.floating], bandwidth: float) -> Floats:
    """The Gaussian kernel of each record of one side with each of another, (B, K).

    Of its means within and between two sides the squared MMD is made: within one + within the other - 2 between.
    """
    kernel_BK: Floats = np.exp(-cdist(one_BD, other_KD, "sqeuclidean") / (2 * bandwidth**2))
    return kernel_BK


def _squared_distances(vector_BD: NDArray[np.floating]) -> Floats:
    vector_BD = vector_BD.astype(np.float64)
    vector_BD -= vector_BD.mean(0)  # distances stay; cancellation is less
    norm_B = (vector_BD**2).sum(1)
    squared_BB: Floats = np.maximum(norm_B[:, None] + norm_B[None] - 2 * vector_BD @ vector_BD.T, 0.0)
    np.fill_diagonal(squared_BB, 0.0)
    return squared_BB
