"""Is the challenger better than the champion, on live traffic, looked at after every request?

**Between users** (``live``): each user is answered by one arm, by a coin of known chance q
(:func:`danlu.core.experiments.arm_of`). With an outcome Y between 0 and 1 and a guess m of it made from earlier users
only, the number

    X = (Y - m) / q  for the challenger,   X = -(Y - m) / (1 - q)  for the champion

has, given everything before, the difference of the arms' means for this user as its mean, whatever m is: the coin
alone makes it so. The confidence sequence of X (:mod:`sequence`) is therefore one for the mean difference over the
users who came, exact for bounded outcomes, and stays so when traffic changes on the way. m, the running mean, takes
out what both arms share, so that little is lost against the difference of two means (Karampatziakis, Mineiro and Ramdas
2021; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro 2022). A user counts once, by the first outcome: later ones
share its coin.

**In the shadow** (``shadow``): both models answer the same request, the user sees the champion's; X is the difference
of the two outcomes.

Decisions, by a confidence sequence of confidence 1 - level, a margin and a budget that are written down before:

| decision | when |
|---|---|
| superior | the whole interval is above 0 |
| inferior | the whole interval is below 0 |
| equivalent | the whole interval is within the margin on both sides of 0 |
| inconclusive | the budget is spent and none of these holds; or the arms got other shares of users than planned |
| continue | none of these yet |

The first decision stands, and what is told of it is what was so when it fell; only arms that turn out not to have the
planned shares take it back, as long as it has not been written down. The chance that any decision ever made is wrong is
at most the level, all looks together; that of a promotion which is not deserved (the challenger no better) at most half
of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from danlu.core.config import Config
from danlu.core.errors import DataError, UsageError
from danlu.evaluate.intervals import Interval
from danlu.evaluate.metrics import Floats, Ints
from danlu.improve.evidence import log_evidence_of_ratio, log_evidence_of_wins
from danlu.improve.sequence import Mixture, difference_interval

__all__ = [
    "DECISIONS",
    "Comparison",
    "ComparisonPlan",
    "Decision",
    "compare_live",
    "compare_shadow",
    "first_decisions",
    "first_rows",
    "live_numbers",
]

Decision = Literal["continue", "superior", "inferior", "equivalent", "inconclusive"]
DECISIONS: tuple[Decision, ...] = ("continue", "superior", "inferior", "equivalent", "inconclusive")

RATIO_LEVEL = 0.001
"""The chance that an experiment whose assignment works is ever called broken."""
USUAL_VARIANCE = 0.15
"""Of an outcome that is right four times in five; only says where the interval is tightest, never whether it holds."""
USUAL_DISCORDANCE = 0.1


class ComparisonPlan(Config):
    """What is settled before the first user of an experiment, and recorded then."""

    margin: float = Field(gt=0, lt=1)
    """Differences of the mean outcome smaller than this do not matter."""
    budget: int = Field(ge=1)
    """Users (shadow: requests) after which an undecided experiment ends."""
    level: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance of any wrong decision, however often it is looked at."""
    mode: Literal["live", "shadow"] = "live"
    """Each user is answered by one model (live), or both answer and the champion's answer is shown (shadow)."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """The challenger's share of users in a live comparison."""

    def mixture(self) -> Mixture:
        """The supermartingale that decides, tightest at about half of the budget."""
        if self.mode == "shadow":
            return Mixture.tuned(1.0, USUAL_DISCORDANCE * self.budget / 2, self.level / 2)
        variance = USUAL_VARIANCE / (self.share * (1 - self.share))
        return Mixture.tuned(1 / min(self.share, 1 - self.share), variance * self.budget / 2, self.level / 2)


@dataclass(frozen=True)
class Comparison:
    """What is known now.

    Attributes:
        decision: See the module.
        reason: Why it is inconclusive: ``budget`` or ``shares``; otherwise empty.
        decided_at: After how many users it fell; None while it continues. All that follows is as it was then.
        n: Users counted until then, or until now; at most the budget.
        n_since: Users who came after the decision and change nothing about it.
        n_challenger: Those of them that the challenger answered (shadow: all).
        difference: The estimated mean difference, challenger - champion, with the confidence sequence beside it.
        interval: Low and high, which hold at all times together.
        ratio_p: The always-valid p-value of the planned shares (live), 1 in the shadow.
        wins_p: In the shadow, with outcomes of 0 and 1: the always-valid p-value of "the challenger wins at most half
            of the pairs that differ"; otherwise None. It is shown beside the decision; the interval decides.
    """

    decision: Decision
    reason: str
    decided_at: int | None
    n: int
    n_since: int
    n_challenger: int
    difference: float
    interval: Interval
    ratio_p: float
    wins_p: float | None


def first_rows(users: Sequence[str]) -> Ints:
    """The rows, in order, in which a user comes for the first time."""
    return np.sort(np.unique(np.asarray(users), return_index=True)[1]).astype(np.int64)


def live_numbers(challenger_T: NDArray[np.bool_], outcome_T: ArrayLike, share: float) -> Floats:
    """The numbers X of a live comparison, for one experiment or, with an axis before the last, for several.

    Args:
        challenger_T: Whether the challenger answered the user, (..., T).
        outcome_T: Between 0 and 1, (..., T), in the order in which outcomes came.
        share: q.
    """
    outcome_T = np.asarray(outcome_T, np.float64)
    before_T = np.cumsum(outcome_T, axis=-1) - outcome_T
    guess_T = (before_T + 0.5) / (np.arange(outcome_T.shape[-1]) + 1.0)
    numbers_T: Floats = (outcome_T - guess_T) * np.where(challenger_T, 1 / share, -1 / (1 - share))
    return numbers_T


def first_decisions(numbers_T: Floats, plan: ComparisonPlan) -> tuple[Ints, Ints]:
    """The first decision of each experiment that was looked at after every number.

    Args:
        numbers_T: X, (..., T) with T at most the budget.
        plan: Margin, level and budget.

    Returns:
        Which of ``DECISIONS`` (0 to 3), and after how many numbers (T where there is none); each (...).
    """
    mixture, threshold = plan.mixture(), np.log(2 / plan.level)
    sum_T, variation_T = np.cumsum(numbers_T, axis=-1), np.cumsum(numbers_T**2, axis=-1)
    slack_T = plan.margin * np.arange(1, numbers_T.shape[-1] + 1)

    def shown(excess_T: Floats) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = mixture.log_evidence(excess_T, variation_T) >= threshold
        return found

    above_T, below_T = shown(sum_T), shown(-sum_T)
    alike_T = shown(sum_T + slack_T) & shown(slack_T - sum_T)
    code_T = np.select([above_T, below_T, alike_T], [1, 2, 3], 0)
    at = (code_T > 0).argmax(axis=-1)
    code = np.take_along_axis(code_T, at[..., None], axis=-1)[..., 0]
    return code, np.where(code > 0, at + 1, numbers_T.shape[-1])


def compare_live(plan: ComparisonPlan, challenger_T: NDArray[np.bool_], outcome_T: ArrayLike) -> Comparison:
    """Where a live comparison stands.

    Args:
        plan: As registered.
        challenger_T: Whether the challenger answered, one entry a user (:func:`first_rows`), in the order of outcomes.
        outcome_T: What came of it, between 0 and 1.

    Raises:
        DataError: Outcomes out of bounds, or not as many as arms, or none.
        UsageError: The plan is one for the shadow.
    """
    _check_mode(plan, "live")
    challenger_T = np.asarray(challenger_T, bool)
    outcome_T = _outcomes(outcome_T, len(challenger_T))[: plan.budget]
    challenger_T = challenger_T[: plan.budget]
    numbers_T = live_numbers(challenger_T, outcome_T, plan.share)
    n_T = np.arange(1, len(numbers_T) + 1)
    in_challenger_T = np.cumsum(challenger_T, dtype=np.int64)
    counts_TN = np.stack([in_challenger_T, n_T - in_challenger_T], axis=-1)
    log_e_T = log_evidence_of_ratio(counts_TN, [plan.share, 1 - plan.share])
    return _standing(plan, numbers_T, in_challenger_T, log_e_of_ratio_T=log_e_T)


def compare_shadow(plan: ComparisonPlan, champion_T: ArrayLike, challenger_T: ArrayLike) -> Comparison:
    """Where a comparison in the shadow stands.

    Args:
        plan: As registered.
        champion_T: The outcome, between 0 and 1, of the champion's answer to each request.
        challenger_T: That of the challenger's answer to the same requests.

    Raises:
        DataError: Outcomes out of bounds, or not as many of both, or none.
        UsageError: The plan is a live one.
    """
    _check_mode(plan, "shadow")
    n = len(np.asarray(champion_T))
    numbers_T = (_outcomes(challenger_T, n) - _outcomes(champion_T, n))[: plan.budget]
    log_e_T = None
    if np.isin(numbers_T, (-1.0, 0.0, 1.0)).all():
        log_e_T = log_evidence_of_wins(np.cumsum(numbers_T > 0), np.cumsum(numbers_T < 0))
    return _standing(plan, numbers_T, np.arange(1, len(numbers_T) + 1), log_e_of_wins_T=log_e_T)


def _standing(
    plan: ComparisonPlan,
    numbers_T: Floats,
    n_challenger_T: Ints,
    *,
    log_e_of_ratio_T: Floats | None = None,
    log_e_of_wins_T: Floats | None = None,
) -> Comparison:
    code, at = (int(x) for x in first_decisions(numbers_T, plan))
    n_all, decision, reason = len(numbers_T), DECISIONS[code], ""
    is_off_T = np.zeros(n_all, bool) if log_e_of_ratio_T is None else log_e_of_ratio_T >= -np.log(RATIO_LEVEL)
    if is_off_T.any():
        decision, reason, at = "inconclusive", "shares", int(is_off_T.argmax()) + 1
    elif decision == "continue" and n_all >= plan.budget:
        decision, reason = "inconclusive", "budget"
    n = n_all if decision == "continue" else at
    total, variation = float(numbers_T[:n].sum()), float((numbers_T[:n] ** 2).sum())
    return Comparison(
        decision=decision,
        reason=reason,
        decided_at=None if decision == "continue" else n,
        n=n,
        n_since=n_all - n,
        n_challenger=int(n_challenger_T[n - 1]),
        difference=total / n,
        interval=difference_interval(plan.mixture(), total, variation, n, plan.level),
        ratio_p=1.0 if log_e_of_ratio_T is None else _p_value(log_e_of_ratio_T[:n]),
        wins_p=None if log_e_of_wins_T is None else _p_value(log_e_of_wins_T[:n]),
    )


def _p_value(log_e_T: Floats) -> float:
    return float(min(1.0, np.exp(-log_e_T.max())))


def _check_mode(plan: ComparisonPlan, mode: str) -> None:
    if plan.mode != mode:
        raise UsageError(
            f"the comparison was planned as {plan.mode} and is now made as {mode}",
            advice="a plan holds from before the first user to the end; register another experiment for another mode",
        )


def _outcomes(outcome_T: ArrayLike, n: int) -> Floats:
    outcome_T = np.asarray(outcome_T, np.float64)
    if n == 0 or len(outcome_T) != n:
        raise DataError(
            f"a comparison needs as many outcomes as users, and one at least; it has {len(outcome_T)} for {n}",
            advice="pass one outcome for each user, in the same order",
        )
    if not ((outcome_T >= 0) & (outcome_T <= 1)).all():
        row = int(np.argmin((outcome_T >= 0) & (outcome_T <= 1)))
        raise DataError(
            f"an outcome is {outcome_T[row]}, not between 0 and 1",
            where=f"row {row}",
            advice="scale outcomes to between 0 and 1 before the comparison starts; the guarantee rests on it",
        )
    return outcome_T
