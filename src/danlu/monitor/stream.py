"""From the events of requests, as they come, to windows; and from windows to how every signal stands.

A window that is complete becomes an event of its own, ``window``: its effects, how the signals stand, and where it
ended. Whoever comes later takes the effects from there and goes on after it, so that nothing is computed twice, and the
same events always give the same evidence.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from danlu.core.errors import CorruptError
from danlu.core.events import EventLog
from danlu.evaluate.metrics import Ints
from danlu.monitor.accuracy import ConfidenceLevels
from danlu.monitor.columns import Columns
from danlu.monitor.records import Record, has_failed, is_question, n_without_input, records_of, seconds_of
from danlu.monitor.series import Series
from danlu.monitor.watch import SignalState
from danlu.monitor.yardstick import Yardstick

__all__ = ["ContentStream", "Place", "ServiceStream", "Stream", "seed_of"]

Place = tuple[float, str, int]
"""Where a record is among all: its time, its request, and which input of it."""

_SLOW = 0.95
_ANSWERED = 400
_EXAMPLES = 3
"""The most unlike records of a window that are remembered, by their request's id."""
_CONFIDENCE = 0.95


def seed_of(digest: str, start: float, what: str) -> int:
    """The seed of a watch's randomness: the same model and beginning give the same."""
    return int.from_bytes(hashlib.sha256(f"{digest} {start!r} {what}".encode()).digest()[:8], "big")


class Stream(ABC):
    """The windows of one series.

    Args:
        kind: ``content`` or ``service``.
        series: What is known after each window.
        size: Records in a window.
        log: Where complete windows are written.
        facts: What is written with each: ``name digest watch``.
        heard: Told of every window, with its event and how the signals stand.

    Attributes:
        kind, series, size: See above.
        windows: The event of every window so far.
        n_new: How many of them became complete here.
    """

    def __init__(
        self,
        kind: str,
        series: Series,
        size: int,
        log: EventLog,
        facts: Mapping[str, Any],
        heard: Callable[[dict[str, Any], list[SignalState]], None],
    ) -> None:
        self.kind, self.series, self.size = kind, series, size
        self.windows: list[dict[str, Any]] = []
        self.n_new = 0
        self._log, self._facts, self._heard = log, facts, heard
        self._at: Place | None = None
        self._is_past = True

    def resume(self, windows: Sequence[dict[str, Any]]) -> None:
        """Take in windows that were complete before, in their order.

        Raises:
            CorruptError: One is missing.
        """
        for window in windows:
            if window["number"] <= len(self.windows):  # two watched at once: the first to write stands
                continue
            if window["number"] != len(self.windows) + 1:
                what = f"window {len(self.windows) + 1} of the watch is missing among the events"
                raise CorruptError(what, where=self.kind, advice="restore the file of events, or begin a new watch")
            self._known(window)
            self._at = (window["last"], window["last_request"], window["last_index"])

    def begin_look(self) -> float | None:
        """Go back to where reading ended; the time from which on events are due, None: from the beginning."""
        self._is_past = self._at is None
        return None if self._at is None else self._at[0]

    @abstractmethod
    def take(self, event: Mapping[str, Any]) -> None:
        """Take in a request."""

    def _is_new(self, place: Place) -> bool:
        """Whether a record comes after all that were taken in; they come in the same order every time."""
        if not self._is_past:
            assert self._at is not None
            if place[0] < self._at[0] or (place[0] == self._at[0] and place != self._at):
                return False
            self._is_past = True
            if place == self._at:
                return False
        self._at = place
        return True

    def _complete(self, effects: Mapping[str, float], first: float, more: Mapping[str, Any]) -> None:
        assert self._at is not None
        states = self.series.add(effects)
        window = {
            "id": f"{self._facts['watch']}:{self.kind}",  # the same for all: the latest of them is found by it
            "series": self.kind,
            "number": len(self.windows) + 1,
            "n": self.size,
            "first": first,
            "last": self._at[0],
            "last_request": self._at[1],
            "last_index": self._at[2],
            "effects": dict(effects),
            "signals": [_told(state) for state in states],
            **more,
        }
        self._log.write("window", **self._facts, **window)
        self.windows.append(window)
        self.n_new += 1
        self._heard(window, states)

    def _known(self, window: dict[str, Any]) -> None:
        states = self.series.add(window["effects"])
        self.windows.append({**window, "signals": [_told(state) for state in states]})
        self._heard(window, states)


class ServiceStream(Stream):
    """Latency and failures: of all requests for an answer, whatever was asked."""

    def __init__(self, *given: Any) -> None:
        super().__init__("service", *given)
        self._held: list[tuple[float, float, bool, bool]] = []

    @property
    def n_waiting(self) -> int:
        """Requests of the window that is not complete."""
        return len(self._held)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in a request."""
        if not is_question(event) or not self._is_new((float(event["time"]), str(event["id"]), 0)):
            return
        is_answered = int(event["status"]) < _ANSWERED
        self._held.append((float(event["time"]), seconds_of(event), has_failed(event), is_answered))
        if len(self._held) == self.size:
            taken = [seconds for _, seconds, _, is_answered in self._held if is_answered]
            # Where nothing was answered, how long it took to say so is all that there is.
            seconds_B = np.array(taken or [seconds for _, seconds, _, _ in self._held])
            n_failed = sum(failed for _, _, failed, _ in self._held)
            effects = {"latency": float(np.quantile(seconds_B, _SLOW)), "failures": n_failed / self.size}
            first, self._held = self._held[0][0], []
            self._complete(effects, first, {"n_failed": n_failed})


class ContentStream(Stream):
    """What was asked and answered: of requests that were answered, and whose inputs were kept.

    Args:
        yardstick: Measures a window.
        read: The columns of records.
        levels: How often each level of confidence is right, from all labelled reference records.
        classes: Names of the classes, where there are some.
        given: As of :class:`Stream`, from ``series`` on.

    Attributes:
        yardstick, read: See above.
    """

    def __init__(
        self,
        yardstick: Yardstick,
        read: Callable[[Sequence[Record]], Columns],
        levels: ConfidenceLevels | None,
        *given: Any,
        start: Place | None = None,
    ) -> None:
        super().__init__("content", *given)
        self.yardstick, self.read, self._levels = yardstick, read, levels
        self._held: list[Record] = []
        self._n_without_before = self._n_without_now = 0
        self._at = start

    @property
    def n_waiting(self) -> int:
        """Records of the window that is not complete."""
        return len(self._held)

    @property
    def n_without(self) -> int:
        """Inputs that were answered and not kept."""
        return self._n_without_before + self._n_without_now

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in a request."""
        if not is_question(event):
            return
        for record in records_of(event):
            if self._is_new((record.time, record.request, record.index)):
                self._held.append(record)
                if len(self._held) == self.size:
                    self._measure()
        # One without a kept input has no place of its own: it counts where it stands.
        if n := n_without_input(event):
            self._n_without_now += n if self._is_new((float(event["time"]), str(event["id"]), -1)) else 0

    def _measure(self) -> None:
        columns = self.read(self._held)
        labels = Counter(record.label for record in self._held if record.label is not None)
        confidence_B = columns.numbers.get("confidence")
        more: dict[str, Any] = {"n_without": self._n_without_now, "labels": dict(sorted(labels.items()))}
        if confidence_B is not None:
            more["confidence"] = np.histogram(confidence_B, 10, (0.0, 1.0))[0].tolist()
        if self._levels is not None and confidence_B is not None:
            found = self._levels.estimate(confidence_B, _CONFIDENCE)
            more["accuracy"] = [found.accuracy, found.interval.low, found.interval.high]
        more["unlike"] = self._most_unlike(columns)
        first, self._held = self._held[0].time, []
        self._n_without_before, self._n_without_now = self.n_without, 0
        self._complete(self.yardstick.effects(columns), first, more)

    def _most_unlike(self, columns: Columns) -> list[list[Any]]:
        unlike_B = self.yardstick.unlike(columns)
        if unlike_B is None:
            return []
        rows: Ints = np.argsort(-unlike_B, kind="stable")[:_EXAMPLES].astype(np.int64)
        return [[self._held[row].request, self._held[row].index, float(unlike_B[row])] for row in rows.tolist()]

    def _known(self, window: dict[str, Any]) -> None:
        self._n_without_before += int(window["n_without"])
        super()._known(window)


def _told(state: SignalState) -> dict[str, Any]:
    told = asdict(state)
    return {"signal": told.pop("name"), **told}
