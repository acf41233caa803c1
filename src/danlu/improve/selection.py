"""Which of many answered inputs are worth a label: where the model is torn, what lies far from all it has seen, or any.

| by | takes first |
|---|---|
| margin | those whose two likeliest classes are nearest to each other (Scheffer, Decomain and Wrobel 2001) |
| entropy | those whose probabilities are spread widest (Shannon's entropy, in nats) |
| core-set | that which is furthest from everything labelled or chosen so far, again and again: greedy k-centre, which |
|          | comes within a factor of 2 of the least possible covering radius (Gonzalez 1985; Sener and Savarese 2018) |
| random | any, each with the same chance: what the others are measured against. It follows from a seed and the place |
|        | of the input among the requests; the same again is the same, and asking for more goes on where it ended |

What is drawn at random stands for all inputs that were not asked about, labelled or trained on before; one that came
several times counts once. Ask for it before the others where it is to say how good a model is: they take the hard ones.

All are exact, and the same inputs give the same choice; of equals the first is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from danlu.core.errors import UsageError
from danlu.evaluate.metrics import Floats, Ints

__all__ = ["By", "choose", "core_set", "drawn", "entropies", "margins"]

By = Literal["margin", "entropy", "core-set", "random"]

_AT_ONCE = 1 << 22
"""Distances held at once."""


def margins(probabilities_BN: NDArray[np.floating]) -> Floats:
    """The likeliest class's probability less the second's, (B,).

    Raises:
        UsageError: There are fewer than two classes.
    """
    if probabilities_BN.shape[1] < 2:
        raise UsageError("a margin is between two classes, and the model has one", advice="choose by core-set")
    two_B2 = np.partition(probabilities_BN.astype(np.float64), -2, axis=1)[:, -2:]
    margin_B: Floats = two_B2[:, 1] - two_B2[:, 0]
    return margin_B


def entropies(probabilities_BN: NDArray[np.floating]) -> Floats:
    """Shannon's entropy of each row in nats, (B,)."""
    p_BN = probabilities_BN.astype(np.float64)
    entropy_B: Floats = -(p_BN * np.log(np.where(p_BN > 0, p_BN, 1.0))).sum(1)
    return entropy_B


def core_set(vectors_BD: NDArray[np.floating], n: int, labelled_MD: NDArray[np.floating]) -> tuple[Ints, Floats]:
    """Choose inputs by greedy k-centre.

    Args:
        vectors_BD: The inputs that may be chosen.
        n: How many.
        labelled_MD: Those whose label is known; M may be 0, the first centre is then what is nearest to the mean.

    Returns:
        The rows chosen, in order, and how far each was from everything labelled or chosen before it (Euclidean).
    """
    x_BD = vectors_BD.astype(np.float64)
    n = min(n, len(x_BD))
    chosen, far = np.zeros(n, np.int64), np.zeros(n)
    if n == 0:
        return chosen, far
    nearest_B = _nearest(x_BD, labelled_MD.astype(np.float64))
    if not len(labelled_MD):
        nearest_B = -np.linalg.norm(x_BD - x_BD.mean(0), axis=1)
    for place in range(n):
        row = int(nearest_B.argmax())
        chosen[place], far[place] = row, max(nearest_B[row], 0.0)
        distance_B = np.linalg.norm(x_BD - x_BD[row], axis=1)
        nearest_B = distance_B if not len(labelled_MD) and place == 0 else np.minimum(nearest_B, distance_B)
        nearest_B[chosen[: place + 1]] = -np.inf
    return chosen, far


def drawn(places: Sequence[str], seed: int) -> Floats:
    """A number in [0, 1) for each input, (B,), that follows from its place among the requests and a seed."""
    hashes = (hashlib.sha256(f"{seed} {place}".encode()).digest()[:8] for place in places)
    return np.array([int.from_bytes(each, "big") / 2**64 for each in hashes])


def choose(
    by: By,
    n: int,
    probabilities_BN: NDArray[np.floating] | None,
    vectors_BD: NDArray[np.floating] | None,
    labelled_MD: NDArray[np.floating] | None,
    drawn_B: Floats | None = None,
) -> tuple[Ints, Floats]:
    """The rows to be labelled, the most wanted first, and the value by which each was chosen.

    Args:
        by: See the module.
        n: How many at most.
        probabilities_BN: For margin and entropy.
        vectors_BD: For the core-set,
        labelled_MD: and those of what is labelled.
        drawn_B: For random; the smallest are taken.
    """
    if by == "random":
        assert drawn_B is not None
        order_B = np.argsort(drawn_B, kind="stable")[:n].astype(np.int64)
        return order_B, drawn_B[order_B]
    if by == "core-set":
        assert vectors_BD is not None
        assert labelled_MD is not None
        return core_set(vectors_BD, n, labelled_MD)
    assert probabilities_BN is not None
    value_B = margins(probabilities_BN) if by == "margin" else entropies(probabilities_BN)
    order_B = np.argsort(value_B if by == "margin" else -value_B, kind="stable")[:n].astype(np.int64)
    return order_B, value_B[order_B]


def _nearest(x_BD: Floats, centre_MD: Floats) -> Floats:
    """How far each row is from the nearest centre, (B,); infinitely where there is none."""
    nearest_B: Floats = np.full(len(x_BD), np.inf)
    step = max(1, _AT_ONCE // max(len(x_BD), 1))
    for start in range(0, len(centre_MD), step):
        part_MD = centre_MD[start : start + step]
        squared_BM = (x_BD**2).sum(1)[:, None] - 2 * x_BD @ part_MD.T + (part_MD**2).sum(1)
        nearest_B = np.minimum(nearest_B, np.sqrt(np.maximum(squared_BM, 0.0)).min(1))
    return nearest_B
