"""The weights of a merge that leaves numbers out where its parents disagree (TIES; Yadav et al., 2023).

Such a merge takes, number by number, the weighted mean of those parents only whose change was large enough and of the
elected sign. No weighted sum is all of it, but wherever all parents were taken one holds exactly,

    B = sum over k of w_k W_k,    the w_k adding up to 1,

and only there do all weights show. They are found as a line is among points most of which lie elsewhere: solve a few
numbers drawn at random, count how many others agree, and keep what most agree with (Fischler & Bolles, 1981).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Agreed", "agreed_weights"]

Agreed = tuple[tuple[float, ...], npt.NDArray[np.bool_]]
"""A weight for each parent, and which numbers show it."""

_N_DRAWS = 60_000
_N_COUNTED = 20_000
"""Numbers that are counted for each candidate,"""
_N_CANDIDATES = 300
"""of which so many are."""
_LEAST = 0.03
"""A weight from which on a parent is one of those merged."""
_SHARE = 0.01
"""Numbers that must agree: so many that chance does not make them."""
_EXACT = 2e-4
"""What a number may be off by, as a share of how far the parents are apart there."""
_MOST = 4


def agreed_weights(suspect: npt.NDArray[np.float64], parents: Sequence[npt.NDArray[np.float64]]) -> Agreed | None:
    """Find weights that a share of all numbers agrees with exactly.

    Args:
        suspect: float64 [n]; some numbers of the suspect,
        parents: and those of each possible parent, of which one may be what all were trained from.

    Returns:
        Weights that add up to 1, 0 for a parent that takes no part, and the numbers that show them; None: no weights
        are shown by as many numbers as it takes.
    """
    n = len(parents)
    best: Agreed | None = None
    for subset in [list(range(n)), *([k for k in range(n) if k != out] for out in range(n))]:
        # Where some were left out the others show weights as well: the most parents that show any are the answer.
        if not 2 <= len(subset) <= _MOST or (best is not None and 0.0 not in best[0]):
            continue
        weights = _weights(suspect, np.stack([parents[k] for k in subset]))
        if weights is None:
            continue
        found = np.zeros(n)
        found[subset] = weights
        shows = _exact(suspect, np.stack(parents), found[None])[0]
        if shows.mean() >= _SHARE and (best is None or shows.sum() > best[1].sum()):
            best = tuple(found.tolist()), shows
    return best


def _weights(suspect: npt.NDArray[np.float64], parents: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """The weights, all of them above zero, that most numbers agree with."""
    draw = np.random.default_rng(0)
    last, n = parents[-1], len(parents) - 1
    places = draw.integers(suspect.size, size=(_N_DRAWS, n))
    left, right = (parents[:-1] - last)[:, places].transpose(1, 2, 0), (suspect - last)[places]
    solvable = np.abs(np.linalg.det(left)) > 0
    solved = np.linalg.solve(left[solvable], right[solvable][..., None])[..., 0]
    weights = np.column_stack([solved, 1 - solved.sum(1)])
    weights = weights[(weights > _LEAST).all(1)]
    if len(weights) == 0:
        return None
    # What is drawn more than once is what is right: places that agree give the same weights each time.
    _, back, counts = np.unique(np.round(weights, 3), axis=0, return_inverse=True, return_counts=True)
    often = np.argsort(counts)[::-1][:_N_CANDIDATES]
    candidates = np.stack([np.median(weights[back.ravel() == cell], axis=0) for cell in often])
    some = draw.integers(suspect.size, size=min(_N_COUNTED, suspect.size))
    agree = _exact(suspect[some], parents[:, some], candidates).sum(1)
    return np.asarray(candidates[int(agree.argmax())])


def _exact(
    suspect: npt.NDArray[np.float64], parents: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether each number is what each row of weights makes of the parents: ``[rows, n]``.

    A number that the parents have in common shows nothing.
    """
    apart = np.ptp(parents, axis=0)
    off = np.abs(weights @ parents - suspect)
    return np.asarray((off <= _EXACT * apart) & (apart > 0))
