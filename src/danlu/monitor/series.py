"""Windows that follow each other, and what is known after each of them.

A model has two series. *Content* is what is asked and answered; its reference windows are dealt from a test split, or
are the first live ones: for models that write, whose test texts are no prompts, and for models that learnt from
feedback, whose test split is older than what they learnt. *Service* is latency and failures;
its reference windows are always the first live ones. Each series has a part of the level, by its number of signals: all
of them together raise a false alarm with a chance of at most the level (a union bound over Holm's corrections).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from danlu.monitor.signals import RELATIVE
from danlu.monitor.watch import MIN_REFERENCE_WINDOWS, SignalState, Watch

__all__ = ["Series"]


class Series:
    """The windows of one series.

    Args:
        names: Its signals.
        reference: Signal -> effects of reference windows; None: the first live windows are the reference.
        minimum: Signal -> the smallest excess worth an alarm; see :mod:`danlu.monitor.signals`.
        level: The chance that any series of the model ever raises a false alarm.
        part: This one's part of it.
        seed: Breaks ties; the same effects and seed give the same evidence.

    Attributes:
        names, part: See above.
        reference: Signal -> effects of reference windows so far.
        is_live: Whether these are live windows.
        n: Live windows so far, those of the reference among them.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        reference: Mapping[str, Sequence[float]] | None,
        minimum: Mapping[str, float],
        level: float,
        part: float,
        seed: int,
    ) -> None:
        self.names, self.part = names, part
        self.is_live = reference is None
        self.reference: dict[str, list[float]] = {name: list((reference or {}).get(name, ())) for name in names}
        self.n = 0
        self._minimum, self._level = {name: minimum[name] for name in names}, level * part
        self._rng = np.random.default_rng(seed)
        self._watch: Watch | None = None
        if reference is not None:
            self._begin()

    @property
    def n_missing(self) -> int:
        """Live windows that are still to come before the first is watched."""
        return 0 if self._watch else MIN_REFERENCE_WINDOWS - len(self.reference[self.names[0]])

    def usual(self, name: str) -> float:
        """The median effect of a signal among reference windows so far."""
        return float(np.median(self.reference[name]))

    def smallest(self, name: str) -> float:
        """The smallest excess of a signal that is worth an alarm, in the unit of its effect."""
        return self._minimum[name] * (self.usual(name) if name in RELATIVE else 1.0)

    def add(self, effects: Mapping[str, float]) -> list[SignalState]:
        """Take in the next live window.

        Returns:
            How each signal stands, corrected for all signals of all series; nothing while the reference is not whole.

        Raises:
            DataError: An effect is no number.
        """
        self.n += 1
        if self._watch is None:
            for name in self.names:
                self.reference[name].append(float(effects[name]))
            if self.n_missing == 0:
                self._begin()
            return []
        return [
            replace(state, p_adjusted=min(1.0, state.p_adjusted / self.part)) for state in self._watch.observe(effects)
        ]

    def _begin(self) -> None:
        smallest = {name: self.smallest(name) for name in self.names}
        self._watch = Watch(self.reference, smallest, self._level, self._rng)
