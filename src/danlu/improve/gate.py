"""May a new model be proposed? Only if it is shown that it is not worse, by more than a margin, where it matters.

**Right or wrong** (classification): let b records be right under the old model alone and c under the new alone, of n.
The test of "the new model's accuracy is at least the margin below the old one's" is Tango's score test for paired
proportions (Tango 1998, Statistics in Medicine 17:891): the variance is that under the null, so that it holds where b
and c are few or 0, where the bootstrap and Wald's interval are far too sure of themselves. The interval beside it is
the one that this test turns round.

**Other scores** (chrF of translations): the lower end of the paired bootstrap interval of the difference must be above
minus the margin, and there must be enough records for a bootstrap to be believed.

Not being shown to be worse is not enough: with few records nothing is ever shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy.stats import norm

__all__ = ["ENOUGH", "MARGINS", "NonInferiority", "judge", "needed", "paired_score", "score_interval"]

ENOUGH = 50
"""Records below which a bootstrap interval is not relied on."""
MARGINS = {"accuracy": 0.05, "chrf": 2.0}
"""What a new model may lose at most, unless something else is asked for."""

_HALVINGS = 60


@dataclass(frozen=True)
class NonInferiority:
    """Whether a new model is shown to be at most a margin worse.

    Attributes:
        passed: Whether it is.
        metric: What was compared.
        difference: New less old.
        low: The lower end of the interval, which holds with ``confidence`` on each side.
        high: The upper end.
        margin: What it may lose.
        p: Of the test that it loses as much or more; None where only the interval decides.
        n: Records.
        method: ``score test`` or ``bootstrap``.
        confidence: One-sided.
    """

    passed: bool
    metric: str
    difference: float
    low: float
    high: float
    margin: float
    p: float | None
    n: int
    method: str
    confidence: float


def paired_score(n_lost: int, n_won: int, n: int, difference: float) -> float:
    """Tango's score statistic of "new - old = difference"; above 0 where the data say more.

    Args:
        n_lost: Records that only the old model has right.
        n_won: Records that only the new one has right.
        n: All records.
        difference: Between -1 and 1.
    """
    lost, won, d = float(n_lost), float(n_won), -difference
    # The chance that only the new model is right, at its most likely under this difference: the root of a quadratic.
    b = -lost - won + (2 * n - lost + won) * d
    q = (math.sqrt(max(b * b - 8 * n * (-won * d * (1 - d)), 0.0)) - b) / (4 * n)
    variance = n * (2 * q + d * (1 - d))
    distance = won - lost + n * d
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def score_interval(n_lost: int, n_won: int, n: int, confidence: float) -> tuple[float, float]:
    """The differences new - old that the score test does not reject, at a one-sided confidence on each side."""
    z = float(norm.ppf(confidence))
    observed = (n_won - n_lost) / n

    def edge(end: float, inside: Callable[[float], bool]) -> float:
        low, high = observed, end  # low is inside, high outside or the end of all that can be
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if inside(middle) else (low, middle)
        return low

    return (
        edge(-1.0, lambda d: paired_score(n_lost, n_won, n, d) <= z),
        edge(1.0, lambda d: paired_score(n_lost, n_won, n, d) >= -z),
    )


def needed(margin: float, level: float) -> int:
    """Records with which the score test lets a new model pass that answers every one of them as the old one does."""
    z = float(norm.ppf(1 - level))
    return math.ceil(z * z * (1 - margin) / margin)


def judge(compared: Mapping[str, Any], metric: str, margin: float, level: float = 0.05) -> NonInferiority:
    """Judge a comparison.

    Args:
        compared: The comparison of the new model (A) with the old one (B), as :mod:`danlu.evaluate` makes it: its
            ``mcnemar``, where there is one, decides by the score test; otherwise the interval of the metric.
        metric: The primary metric where there is no ``mcnemar``.
        margin: What may be lost, above 0.
        level: One-sided.
    """
    if "mcnemar" in compared:
        lost, won = (int(compared["mcnemar"][f"n_only_{side}_right"]) for side in ("b", "a"))
        n = int(compared["n"])
        low, high = score_interval(lost, won, n, 1 - level)
        p = float(norm.sf(paired_score(lost, won, n, -margin)))
        difference = (won - lost) / n
        return NonInferiority(
            p < level, "accuracy", difference, low, high, margin, p, n, "score test", 1 - level
        )  # fmt: skip
    found = compared["metrics"][metric]
    n, low, high = int(compared["n"]), float(found["low"]), float(found["high"])
    confidence = 1 - (1 - float(compared["confidence"])) / 2
    passed = n >= ENOUGH and low > -margin
    return NonInferiority(
        passed, metric, float(found["difference"]), low, high, margin, None, n, "bootstrap", confidence
    )  # fmt: skip
