"""Evidence from counts that may be looked at after every one of them: sample ratio, and paired wins.

Each is an e-process: under the null its mean is at most 1 whenever one stops, so it ever reaches 1/a with a chance of
at most a (Ville's inequality). Both are exact, for any n.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaln, gammaln, xlogy

from danlu.evaluate.metrics import Floats

__all__ = ["log_evidence_of_ratio", "log_evidence_of_wins"]

CONCENTRATION = 100.0
"""How near the true shares are thought to be to the planned ones if they differ: within some 5 points."""


def log_evidence_of_ratio(counts: ArrayLike, shares: ArrayLike) -> Floats:
    """The logarithm of the e-value against "users fall into the arms by these shares" (sample-ratio mismatch).

    The likelihood of the order in which arms came, with shares drawn from a Dirichlet distribution around the planned
    ones, over that with the planned ones (Lindon and Malek 2022, NeurIPS, equation 9).

    Args:
        counts: Users in each arm so far, (..., N).
        shares: The planned shares, (N,), all above 0.

    Returns:
        (...).
    """
    counts, shares = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    prior = CONCENTRATION * shares
    mixed = gammaln(CONCENTRATION) - gammaln(CONCENTRATION + counts.sum(-1))
    log_e: Floats = mixed + (gammaln(prior + counts) - gammaln(prior) - xlogy(counts, shares)).sum(-1)
    return log_e


def log_evidence_of_wins(n_wins: ArrayLike, n_losses: ArrayLike) -> Floats:
    """The logarithm of the e-value against "the challenger wins at most half of the pairs that differ".

    McNemar's test, one-sided, made sequential. Of the pairs of answers to one request only those of which exactly one
    is right say anything. With a chance h of a win, (2h)^wins (2 - 2h)^losses is a supermartingale under the null for
    every h of a half or more; this is its mean over h uniform between a half and 1 (Robbins' method of mixtures).

    Args:
        n_wins: Pairs in which only the challenger is right, of any shape.
        n_losses: Pairs in which only the champion is right, of the same shape.
    """
    wins, losses = np.asarray(n_wins, np.float64), np.asarray(n_losses, np.float64)
    # I_{1/2}(losses + 1, wins + 1) is the part of the beta integral above a half.
    above = betainc(losses + 1, wins + 1, 0.5)
    with np.errstate(divide="ignore"):
        log_e: Floats = (wins + losses + 1) * np.log(2) + betaln(wins + 1, losses + 1) + np.log(above)
    return log_e
