"""The signals that are watched, and how far each must move to be worth an alarm.

| signal | effect of a window | smallest excess worth an alarm, and why |
|---|---|---|
| length | KS distance of characters a text | 0.1: of ten texts one has another length |
| characters | PSI of the most frequent characters | 0.1: where practice begins to speak of some change |
| unknown | KS distance of the share of unknown tokens | 0.05: of twenty texts one has more that the model cannot read |
| brightness, contrast | KS distance of a picture's mean and spread | 0.1: as for lengths |
| embedding | squared MMD of what the head sees | 0.02: about a fifth of the records is of another kind |
| classes | PSI of the classes answered | 0.1: as for characters |
| confidence | KS distance | 0.1: as for lengths |
| accuracy | drop of the estimated accuracy | 0.03: three more answers in a hundred are wrong |
| written | KS distance of tokens written | 0.1: as for lengths |
| logprob | KS distance of the mean log-probability of a token | 0.1: as for lengths |
| latency | 95th percentile of the seconds to an answer | half of the usual: half as slow again is noticed |
| failures | share of requests that failed | 0.02: of fifty requests one more fails |

An excess is what an effect has above the median of reference windows. Minimums only ever take alarms away.
"""

from __future__ import annotations

from collections.abc import Mapping

from danlu.core.errors import UsageError, nearest

__all__ = ["MINIMUM", "RELATIVE", "SERVICE", "minimums"]

MINIMUM: dict[str, float] = {
    "length": 0.1,
    "characters": 0.1,
    "unknown": 0.05,
    "brightness": 0.1,
    "contrast": 0.1,
    "embedding": 0.02,
    "classes": 0.1,
    "confidence": 0.1,
    "accuracy": 0.03,
    "written": 0.1,
    "logprob": 0.1,
    "latency": 0.5,
    "failures": 0.02,
}
RELATIVE = frozenset({"latency"})
"""Signals whose minimum is a share of what is usual, which differs from model to model."""
SERVICE = ("latency", "failures")
"""What is known of requests, whatever was asked in them."""


def minimums(names: tuple[str, ...], given: Mapping[str, float]) -> dict[str, float]:
    """The smallest excess worth an alarm, for each of these signals.

    Args:
        names: The signals that are watched.
        given: Values over the usual ones.

    Raises:
        UsageError: A signal is not watched, or a minimum is below 0.
    """
    for name, value in given.items():
        if name not in names:
            raise UsageError(f"there is no signal {name!r} of this model", advice=nearest(name, names))
        if value < 0:
            raise UsageError(f"minimum.{name} is {value}, below 0", advice="0 leaves the alarm to significance alone")
    return {name: float(given.get(name, MINIMUM[name])) for name in names}
