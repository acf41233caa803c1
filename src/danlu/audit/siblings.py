"""The exact test against siblings: is the reference nearer to the suspect than its siblings are?

Siblings are trained by the reference's recipe on its data, each from another seed. To a model that has nothing to do
with the reference itself, the reference is one of them, so that each is as likely to be the nearest, by any measure:

    p = (1 + #{s : phi(A_s, B) >= phi(A, B)}) / (S + 1)

This sees what no weights show: a model distilled from the reference's answers agrees with its mistakes, not with those
of its siblings. With S siblings p is at least 1 / (S + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SiblingTest", "own_answers", "own_mistakes", "rank_test"]


@dataclass(frozen=True, kw_only=True)
class SiblingTest:
    """What came of a test.

    Attributes:
        p: Share of the family, the reference among them, that is as near to the suspect: exact.
        value: How near the reference is,
        siblings: and how near every sibling is.
        measure: By what.
    """

    p: float
    value: float
    siblings: tuple[float, ...]
    measure: str


def rank_test(value: float, siblings: Sequence[float], measure: str) -> SiblingTest:
    """Rank the reference among its siblings."""
    p = (1 + sum(each >= value for each in siblings)) / (len(siblings) + 1)
    return SiblingTest(p=p, value=value, siblings=tuple(siblings), measure=measure)


def own_mistakes(suspect: npt.NDArray[np.int64], family: npt.NDArray[np.int64]) -> np.ndarray:
    """How often a suspect says what one of a family says and most of the family do not.

    Args:
        suspect: int64 [n]; what the suspect answers to n questions: the numbers of tokens or classes.
        family: int64 ``[S + 1, n]``; what the reference and its siblings answer.

    Returns:
        float64 [S + 1]: of the questions to which one answers otherwise than most, the share to which the suspect
        answers as that one does; 0 where there is no such question. No member of the family is treated otherwise than
        the others.
    """
    odd = own_answers(family)
    alike = odd & (family == suspect)
    shares: np.ndarray = alike.sum(1) / np.maximum(odd.sum(1), 1)
    return shares


def own_answers(family: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Bool ``[S + 1, n]``: where one of a family answers otherwise than most of it."""
    return np.asarray(family != _most_frequent(family))


def _most_frequent(family: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of several that are as frequent, the one with the smallest number."""
    most = np.empty(family.shape[1], np.int64)
    for column, answers in enumerate(family.T):
        values, counts = np.unique(answers, return_counts=True)
        most[column] = values[counts.argmax()]
    return most
