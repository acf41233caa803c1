"""The test of agreement: does a suspect answer as the reference does more often than every unrelated model?

Against each an exact test of the questions on which the two differ (McNemar, 1947), with Holm's correction over all,
and every one must be beaten. A good model agrees with another good one because both are right, and a bad one shares
mistakes because it makes many; so where the right answers are known, every control must be beaten both on all questions
and on those that the reference answers wrongly. A model taught on the same texts may still agree more than models
taught on others: this test never proves anything, and says nothing unless the suspect is beyond all controls by far,
siblings among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from danlu.audit.verdict import Calibrated, holm

__all__ = ["FEWEST", "Agreement", "agreement_test", "calibrate"]

FEWEST = 30
"""Questions, and mistakes, that a comparison must rest on."""
_FEWEST_SPREADS = 5.0
"""Standard deviations by which a suspect must be beyond all controls, however many they are."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often models answer as the reference does.

    Attributes:
        p: The largest p of all controls after Holm's correction: that every one is beaten.
        value: The suspect's share of equal answers, on the reference's mistakes where they are known,
        controls: and that of every control, siblings among them.
        overall: The suspect's share on all questions,
        control_overall: and that of every control.
        p_controls: P against each control, corrected.
        n: Questions.
        n_mistakes: Those that the reference answers wrongly; None: the right answers are not known.
    """

    p: float
    value: float
    controls: tuple[float, ...]
    overall: float
    control_overall: tuple[float, ...]
    p_controls: tuple[float, ...]
    n: int
    n_mistakes: int | None


def calibrate(value: float, controls: Sequence[float], n: int, alpha: float) -> Calibrated:
    """A suspect among controls; the fewer they are, the farther it must be beyond them.

    A spread that is estimated from few controls may come out small by chance: as many of them are asked for as one more
    control would exceed with probability alpha, were they normal, and counted from the largest, not from the mean. Nor
    is it taken to be smaller than what shares of so few questions vary by.

    Args:
        value: The suspect's share,
        controls: and those of the controls.
        n: Questions that a share is of.
        alpha: How often one more control may be taken for far beyond them.

    Returns:
        All of it; the value no larger than the largest control's where it is not far beyond them.
    """
    k = len(controls)
    spreads = float(stats.t.isf(alpha, k - 1)) * math.sqrt(1 + 1 / k) if k > 1 else math.inf
    spreads = max(_FEWEST_SPREADS, spreads)
    share = (max(controls) * n + 1) / (n + 2)
    spread = max(float(np.std(controls, ddof=1)) if k > 1 else 0.0, math.sqrt(share * (1 - share) / max(1, n)))
    is_far = value > max(controls) + spreads * spread
    kept = value if is_far else min(value, max(controls))
    return Calibrated(value=kept, controls=tuple(controls), n_spreads=min(spreads, 1e6))


def agreement_test(
    suspect: Codes, reference: Codes, controls: Codes, wrong: npt.NDArray[np.bool_] | None
) -> Agreement | str:
    """Hold a suspect against every control.

    Args:
        suspect: int64 [n]; what it answers to n questions, as numbers.
        reference: int64 [n]; what the reference answers.
        controls: int64 ``[controls, n]``; what models known to be unrelated answer.
        wrong: bool [n]; which questions the reference answers wrongly; None: that is not known.

    Returns:
        The test; or why it could not be made.
    """
    if not len(controls):
        return "no models known to be unrelated are at hand"
    if len(reference) < FEWEST:
        return f"{len(reference)} questions are too few"
    if wrong is not None and wrong.sum() < FEWEST:
        return f"the reference answers {int(wrong.sum())} questions wrongly: too few"
    same, others = suspect == reference, controls == reference
    looked_at = [np.ones(len(reference), bool), *([] if wrong is None else [wrong])]
    p = {str(row): max(_beaten(same[each], other[each]) for each in looked_at) for row, other in enumerate(others)}
    corrected = holm(p)
    last = looked_at[-1]
    return Agreement(
        p=max(corrected.values()),
        value=float(same[last].mean()),
        controls=tuple(others[:, last].mean(1).tolist()),
        overall=float(same.mean()),
        control_overall=tuple(others.mean(1).tolist()),
        p_controls=tuple(corrected[str(row)] for row in range(len(others))),
        n=len(reference),
        n_mistakes=None if wrong is None else int(wrong.sum()),
    )


def _beaten(same: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """P of the hypothesis that the suspect agrees no more often than a control: McNemar's test, exact and one-sided."""
    more, fewer = int((same & ~other).sum()), int((other & ~same).sum())
    return float(stats.binom.sf(more - 1, more + fewer, 0.5)) if more + fewer else 1.0
