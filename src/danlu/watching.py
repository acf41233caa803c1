"""A watch over one model's traffic: windows of requests against the reference, and alarms at a stated rate.

A *watch* is what the rate is stated for. It begins when a model is first served, or at a time that is told; its
settings are written down when it begins, and another setting is another watch. Whoever has dealt with an alarm ends it
by beginning the next (``reset=true why=...``).

What is asked is compared with the test split. A model that writes has no such split of prompts, and one that learnt
from feedback serves traffic that its test split is not like: these are compared with their own first windows, and said
to be watched only from there on (``docs/decisions/0019``). All of it is in the events:

    watch     id name digest task reference n_reference window level minimum start why number
    window    id name digest watch series number n first last effects signals ...     (danlu.monitor.stream)
    alert     id name digest watch signal effect excess p_adjusted level n window message
    alert sent, alert not sent    id name digest to (why)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.errors import DataError, UsageError
from danlu.core.events import EventLog
from danlu.core.files import digest_of
from danlu.core.index import Index
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.model.predictor import load_predictor
from danlu.monitor.columns import Columns
from danlu.monitor.records import Record, is_question, records_of
from danlu.monitor.series import Series
from danlu.monitor.signals import SERVICE, minimums
from danlu.monitor.stream import ContentStream, Place, ServiceStream, seed_of
from danlu.monitor.watch import MIN_REFERENCE_WINDOWS, SignalState, reference_windows
from danlu.monitor.webhook import Webhook
from danlu.monitor.yardstick import Yardstick, levels_of
from danlu.reference import Reader, reference_of

__all__ = ["BASE_WINDOWS", "Monitor", "MonitorConfig"]

WINDOW = 200
"""Records in a window, unless the reference is too small for it."""
USUAL_WINDOWS = 50
"""Reference windows that are aimed at: with them a large drift is found in half as many windows as with 20, and a small
one in as many records (``bench/watching.py``)."""
SMALLEST_WINDOW = 20
"""In smaller ones distances are little but noise, PSI above all."""
BASE_WINDOWS = 10
"""The first live windows, which later ones are compared with where the test split is not what is asked."""
_COUNTED = {"content": "records", "service": "requests"}


class MonitorConfig(Config):
    """How a model's traffic is watched. The first four are settled when a watch begins."""

    window: int | None = Field(None, ge=SMALLEST_WINDOW)
    """Records, or requests, in a window; null: 200, or fewer, down to 20, so that the test split makes 50 windows."""
    level: float = Field(0.05, gt=0, lt=1)
    """The chance that a watch, in its whole life, raises any false alarm."""
    minimum: dict[str, float] = {}
    """Signal -> by how much an effect must exceed the usual to be worth an alarm; for latency, a share of the usual."""
    after: datetime | None = None
    """Where the watch begins, UTC unless it says otherwise; null: with the model's first request."""
    reset: bool = False
    """Whether the watch ends and a new one begins: from now on, or from ``after``."""
    why: str | None = None
    """Why it is begun anew; for the record."""
    webhook: str | None = None
    """Where alerts are posted as JSON: an http or https address, of which only the host is ever shown."""
    follow: bool = False
    """Whether to go on, every few seconds, until Ctrl-C."""


class Monitor:
    """A watch over one model.

    Args:
        workspace: Where its events are.
        index: Over these events.
        model: What is watched.
        name: The name under which it is served.
        config: How it is watched.
        progress: Told of what takes long, and of every alert.

    Attributes:
        model, name, reader, reference: What is watched, and what it is compared with.
        watch: The event that began it.
        content, service: Its two series; content is None until there are enough windows, where it is compared with live
            ones.
        alerts: Every alert of the watch so far.
        n_base: Records in a base of live windows so far.
        unsent: Alerts that the webhook has not taken yet.

    Raises:
        UsageError: A setting that is none, or another than the watch began with.
        DataError: The reference is too small.
    """

    def __init__(
        self,
        workspace: Workspace,
        index: Index,
        model: Artifact,
        name: str,
        config: MonitorConfig,
        progress: Progress,
    ) -> None:
        self.model, self.name = model, name
        self._index, self._config, self._progress = index, config, progress
        self._hook = None if config.webhook is None else Webhook(config.webhook)
        self._log = EventLog(workspace.events, "monitor")
        predictor = load_predictor(self.model)
        self.reader = Reader(predictor)
        self.reference = None if self.reader.is_writer else reference_of(workspace, self.model, predictor, progress)
        index.refresh()
        self.watch = self._begun()
        self.alerts = self._events("alert")
        self.n_base, self.unsent = 0, 0
        self._sent, self._failed = self._posted("alert sent"), self._posted("alert not sent")
        self.content: ContentStream | None = None
        self.service = ServiceStream(self._series(SERVICE, None, "service"), *self._stream_facts)
        self.service.resume(self._windows("service"))
        if self.reference is not None and not self.is_live:
            self._begin_content(self.reference.columns, self.reference.correct_B, self.reference.characters)

    @property
    def is_live(self) -> bool:
        """Whether what is asked is compared with the first live windows, and not with the test split."""
        return self.reference is None or self.reference.has_learnt

    @property
    def n_new(self) -> int:
        """Windows that became complete here."""
        return self.service.n_new + (0 if self.content is None else self.content.n_new)

    def look(self) -> None:
        """Take in what has been asked since."""
        self._index.refresh()
        if self.content is None:
            self._look_for_base()
        streams = [each for each in (self.content, self.service) if each is not None]
        places = [each.begin_look() for each in streams]
        for n, event in enumerate(self._requests(min(self.watch["start"] if at is None else at for at in places)), 1):
            for stream in streams:
                stream.take(event)
            if n % 1000 == 0:
                self._progress.update(n, None, "requests")
        if self._hook is not None:
            self._post(self._hook)

    def _begun(self) -> dict[str, Any]:
        """The event that began the watch; written now where there is none, or another is to begin."""
        told, config = self._index.events("watch", name=self.name, digest=self.model.digest), self._config
        watches = list(told)
        if watches and not config.reset:
            self._check_settings(watches[-1])
            return watches[-1]
        if config.reset and not config.why:
            what = "why is a new watch begun?"
            raise UsageError(what, advice="say what was done about the alarm: why='the scanner was replaced'")
        window = self._window()
        start = 0.0 if not watches else time.time()
        if config.after is not None:
            start = _seconds(config.after)
        watch: dict[str, Any] = {
            "name": self.name,
            "digest": self.model.digest,
            "task": self.reader.task,
            "reference": None if self.reference is None else self.reference.artifact.digest,
            "n_reference": 0 if self.reference is None or self.is_live else len(self.reference.columns),
            "window": window,
            "level": config.level,
            "minimum": minimums((*self._signals(), *SERVICE), config.minimum),
            "start": start,
            "why": config.why or "",
            "number": len(watches) + 1,
        }
        watch["id"] = digest_of(watch)[:16]
        self._log.write("watch", **watch)
        return watch

    def _signals(self) -> tuple[str, ...]:
        """What can be known of the content of requests."""
        if self.reference is None:
            return self.reader.written_signals
        columns = self.reference.columns
        vectors = () if columns.vector_BD is None else ("embedding",)
        rates = () if self.is_live or self.reference.correct_B is None else ("accuracy",)
        return (*columns.numbers, *columns.counts, *vectors, *rates)

    def _window(self) -> int:
        """Records in a window."""
        if self.reference is None:
            return self._config.window or WINDOW
        n = len(self.reference.columns)
        most = (n - n // 3) // MIN_REFERENCE_WINDOWS
        aimed = (n - n // 3) // USUAL_WINDOWS
        window = self._config.window or min(WINDOW, max(SMALLEST_WINDOW, aimed))
        if self.is_live:
            return window
        if window > most or most < SMALLEST_WINDOW:
            what = f"{n:,} test records make {MIN_REFERENCE_WINDOWS} reference windows of {most} records at most"
            least = SMALLEST_WINDOW * MIN_REFERENCE_WINDOWS * 3 // 2
            small = f"test on {least} records or more: data.split.test, or more data"
            advice = small if most < SMALLEST_WINDOW else f"take window={most} or less"
            raise DataError(what, where=str(self.reference.artifact.path), advice=advice)
        return window

    def _check_settings(self, watch: Mapping[str, Any]) -> None:
        """Refuse settings, or a reference, that are not those of the watch."""
        if watch["reference"] != (None if self.reference is None else self.reference.artifact.digest):
            what = "this watch began with another reference than the model has now, and its windows do not compare"
            raise UsageError(what, where=self.name, advice="begin a new watch: reset=true why=...")
        given = self._config.model_fields_set
        after = None if self._config.after is None else _seconds(self._config.after)
        told = {"window": self._config.window, "level": self._config.level, "after": after}
        began = {"window": watch["window"], "level": watch["level"], "after": watch["start"]}
        wrong = [f"{key}={began[key]}" for key in told if key in given and told[key] != began[key]]
        wrong += [
            f"minimum.{name}={watch['minimum'].get(name)}"
            for name, value in self._config.minimum.items()
            if watch["minimum"].get(name) != value
        ]
        if wrong:
            what = f"this watch began with {', '.join(wrong)}: its false-alarm rate is that of these settings"
            raise UsageError(what, advice="leave them out, or begin a new watch: reset=true why=...")

    def _series(self, names: tuple[str, ...], reference: Mapping[str, Sequence[float]] | None, kind: str) -> Series:
        n_service, n_all = len(SERVICE), len(self.watch["minimum"])
        part = (n_service if kind == "service" else n_all - n_service) / n_all
        seed = seed_of(self.model.digest, self.watch["start"], kind)
        return Series(names, reference, self.watch["minimum"], self.watch["level"], part, seed)

    @property
    def _stream_facts(self) -> tuple[Any, ...]:
        told = {"name": self.name, "digest": self.model.digest, "watch": self.watch["id"]}
        return self.watch["window"], self._log, told, self._heard

    def _begin_content(
        self,
        columns: Columns,
        correct_B: NDArray[np.bool_] | None,
        characters: str,
        start: Place | None = None,
    ) -> None:
        """Begin to watch content, from base and reference windows, or, where these are live, from the base alone."""
        usual = None
        if self.is_live:
            yardstick = Yardstick(columns)
        else:
            base_B, windows = reference_windows(len(columns), self.watch["window"], None)
            yardstick = Yardstick(columns.take(base_B), None if correct_B is None else correct_B[base_B])
            self._progress.stage(f"{len(windows)} reference windows of {self.watch['window']} records")
            effects = [yardstick.effects(columns.take(row_B)) for row_B in windows]
            usual = {name: [each[name] for each in effects] for name in yardstick.names}

        def read(records: Sequence[Record]) -> Columns:
            return self.reader.columns(records, characters)

        series = self._series(yardstick.names, usual, "content")
        levels = None if self.reference is None else levels_of(self.reference.columns, self.reference.correct_B)
        self.content = ContentStream(yardstick, read, levels, series, *self._stream_facts, start=start)
        self.content.resume(self._windows("content"))

    def _look_for_base(self) -> None:
        """The first live windows, which later ones are compared with."""
        due = BASE_WINDOWS * self.watch["window"]
        found: list[Record] = []
        for event in self._requests(self.watch["start"]):
            found += records_of(event) if is_question(event) else []
            if len(found) >= due:
                break
        self.n_base = min(len(found), due)
        if self.n_base == due:
            base, last = found[:due], found[due - 1]
            characters = self.reader.counted(base)
            self._begin_content(
                self.reader.columns(base, characters), None, characters, (last.time, last.request, last.index)
            )

    def _requests(self, after: float) -> Iterator[dict[str, Any]]:
        return self._index.events("request", name=self.name, digest=self.model.digest, after=after)

    def _events(self, event: str) -> list[dict[str, Any]]:
        """Events of this watch."""
        told = self._index.events(event, name=self.name, digest=self.model.digest)
        return [each for each in told if each["watch"] == self.watch["id"]]

    def _windows(self, series: str) -> list[dict[str, Any]]:
        return sorted(
            (each for each in self._events("window") if each["series"] == series), key=lambda each: each["number"]
        )

    def _heard(self, window: dict[str, Any], states: list[SignalState]) -> None:
        """Write down every alarm, once."""
        for state in states:
            if not state.alarm or any(alert["signal"] == state.name for alert in self.alerts):
                continue
            n, number = window["n"] * window["number"], window["number"]
            message = (
                f"{self.name}: {state.name} has changed by window {number} ({n:,} {_COUNTED[window['series']]}): "
                f"{state.effect:.3g}, {state.excess:.3g} above the usual (p = {state.p_adjusted:.2g} at any time, all "
                f"signals together; level {self.watch['level']})"
            )
            alert: dict[str, Any] = {
                "id": digest_of([self.watch["id"], state.name])[:16],
                "name": self.name,
                "digest": self.model.digest,
                "watch": self.watch["id"],
                "signal": state.name,
                "effect": state.effect,
                "excess": state.excess,
                "p_adjusted": state.p_adjusted,
                "level": self.watch["level"],
                "n": n,
                "window": number,
                "message": message,
            }
            self._log.write("alert", **alert)
            self.alerts.append(alert)
            self._progress.note(f"ALERT {message}")

    def _post(self, hook: Webhook) -> None:
        """Post what the hook has not taken yet, alerts of earlier watches that failed among it."""
        ours = {alert["id"] for alert in self.alerts}
        late = self._failed - self._sent - ours
        earlier = [each for each in self._index.events("alert", name=self.name) if each["id"] in late] if late else []
        waiting = [alert for alert in (*earlier, *self.alerts) if alert["id"] not in self._sent]
        self.unsent = len(waiting)
        for alert in waiting:
            facts = {"id": alert["id"], "name": self.name, "digest": alert["digest"], "to": hook.key}
            if why := hook.post({"text": alert["message"], **alert}):
                self._log.write("alert not sent", **facts, why=why)
                self._failed.add(alert["id"])
                self._progress.note(f"the webhook at {hook.shown} did not take an alert: {why}; it is tried again")
                return
            self._log.write("alert sent", **facts)
            self._sent.add(alert["id"])
            self.unsent -= 1

    def _posted(self, event: str) -> set[str]:
        """Alerts that the hook took, or did not take."""
        if self._hook is None:
            return set()
        return {each["id"] for each in self._index.events(event, name=self.name) if each["to"] == self._hook.key}


def _seconds(when: datetime) -> float:
    """Seconds since 1970."""
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
