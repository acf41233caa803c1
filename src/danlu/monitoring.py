"""``danlu monitor``: watches a served model (:mod:`danlu.watching`), and writes down how it stands as a page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.config import read_overrides, resolve
from danlu.core.files import lock
from danlu.core.index import Index
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.images import png_address
from danlu.monitor.classifier_test import classifier_shift
from danlu.monitor.records import Record, is_question, records_of
from danlu.monitor.series import Series
from danlu.monitor.stream import ContentStream, Stream
from danlu.monitor.watch import MIN_REFERENCE_WINDOWS
from danlu.report.monitoring import write_monitoring
from danlu.watching import BASE_WINDOWS, Monitor, MonitorConfig

__all__ = ["Monitored", "monitor"]

_EVERY = 5.0
"""Seconds between two looks."""
_EXAMPLES = 12
"""The most unlike records that the page shows."""
_LOOKED_UP = 200
"""The most that are looked up for them: the same record may come many times."""
_LONGEST = 2000
"""Characters that are kept of one."""
_BAND = (0.05, 0.95)
"""Between these quantiles of reference windows an effect is called usual."""


@dataclass(frozen=True)
class Monitored:
    """What came of it.

    Attributes:
        artifact: Of kind ``monitoring``, with ``monitoring.json`` and ``monitoring.html``.
        facts: The content of ``monitoring.json``.
        n_new: Windows that were complete for the first time.
        unsent: Alerts that the webhook did not take; None where there is no webhook.
    """

    artifact: Artifact
    facts: dict[str, Any]
    n_new: int
    unsent: int | None


def monitor(
    workspace: Workspace,
    target: str,
    words: Sequence[str],
    progress: Progress,
    pause: Callable[[float], None] = time.sleep,
) -> Monitored:
    """Take in what was asked since the last time, raise alerts, write the page; with ``follow``, until Ctrl-C.

    Args:
        workspace: Where everything is.
        target: A name, ``name@alias``, or a model's folder.
        words: ``key=value`` of :class:`danlu.watching.MonitorConfig`.
        progress: Told of what takes long, and of every alert.
        pause: Waits between two looks; KeyboardInterrupt ends it well.

    Raises:
        UsageError: No such model, or a setting that is none or not that of the watch.
        DataError: The test split is too small.
        BusyError: Another process watches this model.
        CorruptError: An artifact, or the record of events, is damaged.
    """
    config = resolve(MonitorConfig, [read_overrides(words)]).config
    command = " ".join(["danlu monitor", target, *(word for word in words if not word.startswith("webhook="))])
    while True:
        model = workspace.target(target, "model")
        name = model.name if _is_folder(target) else target.partition("@")[0]
        path = workspace.root / "monitor" / f"{model.digest[:12]}.lock"
        with lock(path, holder=f"the watch of {name}"), Index.open(workspace) as index:
            watch = Monitor(workspace, index, model, name, config, progress)
            watch.look()
            has_moved = config.follow and _follow(workspace, target, watch, progress, pause)
            facts = {**_facts(watch, index), "command": command}
            artifact = write_monitoring(workspace, facts, parents=_parents(watch), progress=progress)
            unsent = None if config.webhook is None else watch.unsent
        if not has_moved:
            return Monitored(artifact, facts, watch.n_new, unsent)
        config = config.model_copy(update={"reset": False})


def _follow(
    workspace: Workspace, target: str, watch: Monitor, progress: Progress, pause: Callable[[float], None]
) -> bool:
    """Look every few seconds; whether that ended because the target means another model now, and not by Ctrl-C."""
    progress.note(f"watching {watch.name}; Ctrl-C ends it")
    name, _, alias = target.partition("@")
    try:
        while _is_folder(target) or workspace.ledger.means(name, alias or "champion", watch.model.digest):
            pause(_EVERY)
            watch.look()
    except KeyboardInterrupt:
        return False
    progress.note(f"{target} means another model now")
    return True


def _is_folder(target: str) -> bool:
    return (Path(target) / "manifest.json").is_file()


def _parents(watch: Monitor) -> dict[str, str]:
    found = {"model": watch.model.digest}
    if watch.reference is not None:
        found["reference"] = watch.reference.artifact.digest
    return found


def _facts(watch: Monitor, index: Index) -> dict[str, Any]:
    """How the watch stands, as plain JSON."""
    content, service = watch.content, watch.service
    window = watch.watch["window"]
    n_base = BASE_WINDOWS if watch.is_live else 0
    series = {"service": _series(service, service.series, 0)}
    if content is not None:
        series["content"] = {**_series(content, content.series, n_base), "n_without": content.n_without}
        series["content"]["n_waiting"] = content.n_waiting
    else:
        waits = {"n_windows": watch.n_base // window, "n_missing": MIN_REFERENCE_WINDOWS + n_base}
        waits["n_missing"] -= waits["n_windows"]
        series["content"] = {**waits, "n_reference": 0, "is_live": True, "signals": [], "n_without": 0}
        series["content"] |= {"n_waiting": watch.n_base % window, "part": 1 - service.series.part}
    series["service"]["n_waiting"] = service.n_waiting
    told = ("id", "number", "window", "level", "minimum", "start", "why", "n_reference")
    return {
        "name": watch.name,
        "model": watch.model.path.name,
        "digest": watch.model.digest,
        "task": watch.reader.task,
        "watch": {key: watch.watch[key] for key in told},
        "series": series,
        "n_requests": len(service.windows) * window + service.n_waiting,
        "n_failed": sum(each["n_failed"] for each in service.windows),
        "accuracy": _accuracy(watch),
        "classes": _classes(watch),
        "auc": None if content is None else _auc(watch, content, index),
        "span": _span([*service.windows, *([] if content is None else content.windows)]),
        "unlike": [] if content is None else _most_unlike(watch, content, index),
        "alerts": [{key: each[key] for key in each if key not in ("time", "event")} for each in watch.alerts],
    }


def _series(stream: Stream, series: Series, n_base: int) -> dict[str, Any]:
    """One series: how many windows, and every signal over them."""
    signals = []
    for name in series.names:
        states = [next((s for s in window["signals"] if s["signal"] == name), None) for window in stream.windows]
        usual = series.reference[name]
        last = states[-1] if states else None
        signals.append(
            {
                "signal": name,
                "usual": series.usual(name) if usual else None,
                "band": [float(q) for q in np.quantile(usual, _BAND)] if usual else None,
                "smallest": series.smallest(name) if usual else None,
                "effects": [window["effects"][name] for window in stream.windows],
                "evidence": [None if s is None else -float(np.log10(max(s["p_anytime"], 1e-300))) for s in states],
                "alarm_at": next((n for n, s in enumerate(states, 1) if s is not None and s["alarm"]), None),
                "excess": None if last is None else last["excess"],
                "p_adjusted": None if last is None else last["p_adjusted"],
                "alarm": bool(last and last["alarm"]),
            }
        )
    return {
        "n_windows": len(stream.windows) + n_base,
        "n_missing": series.n_missing,
        "n_reference": len(series.reference[series.names[0]]),
        "is_live": series.is_live,
        "part": series.part,
        "signals": signals,
    }


def _accuracy(watch: Monitor) -> dict[str, Any] | None:
    """The estimated accuracy of every window, beside that on the reference."""
    if watch.reference is None or watch.reference.correct_B is None or watch.content is None:
        return None
    series = [window["accuracy"] for window in watch.content.windows]
    return {"reference": float(watch.reference.correct_B.mean()), "n": len(watch.reference.correct_B), "series": series}


def _classes(watch: Monitor) -> list[dict[str, Any]]:
    """Shares of the classes answered: to the reference, over the whole watch, and in the last window."""
    if watch.reference is None or watch.content is None or "classes" not in watch.reference.columns.counts:
        return []
    columns = watch.content.yardstick.base if watch.is_live else watch.reference.columns
    usual_N = columns.counts["classes"].mean(0)
    windows, names = watch.content.windows, watch.reader.classes
    n = max(1, len(windows) * watch.watch["window"])
    return [
        {
            "name": name,
            "reference": float(usual),
            "watch": sum(window["labels"].get(name, 0) for window in windows) / n,
            "last": windows[-1]["labels"].get(name, 0) / watch.watch["window"] if windows else 0.0,
        }
        for name, usual in zip(names, usual_N, strict=True)
    ]


def _auc(watch: Monitor, content: ContentStream, index: Index) -> list[float] | None:
    """How well the last window's embeddings can be told from the reference's, and the interval."""
    if content.yardstick.near_BD is None or not content.windows:
        return None
    last = content.windows[-1]
    end = (last["last"], last["last_request"], last["last_index"])
    held: deque[Record] = deque(maxlen=content.size)
    asked = index.events("request", name=watch.name, digest=watch.model.digest, after=last["first"])
    for record in chain.from_iterable(records_of(event) for event in asked if is_question(event)):
        held.append(record)
        if (record.time, record.request, record.index) == end:
            break
    window_BD = content.read(held).vector_BD
    assert window_BD is not None
    shift = classifier_shift(content.yardstick.near_BD, window_BD, 0.95, np.random.default_rng(last["number"]))
    return [shift.effect, shift.low, shift.high]


def _span(windows: Sequence[Mapping[str, Any]]) -> list[float] | None:
    """The time of the first and of the last request in any window."""
    if not windows:
        return None
    return [min(window["first"] for window in windows), max(window["last"] for window in windows)]


def _most_unlike(watch: Monitor, content: ContentStream, index: Index) -> list[dict[str, Any]]:
    """The records that are most unlike the reference, as they were asked and answered."""
    found = [(each[2], window["number"], *each[:2]) for window in content.windows for each in window["unlike"]]
    shown: list[dict[str, Any]] = []
    for unlike, number, request, place in sorted(found, reverse=True)[:_LOOKED_UP]:
        event = index.request(request)
        record = None if event is None else next((r for r in records_of(event) if r.index == place), None)
        if record is None or any(record.input == each["input"] for each in shown):
            continue
        told = {"label": record.label, "confidence": record.confidence, "input": record.input}
        shown.append({"unlike": unlike, "window": number, "request": request, **told})
        if len(shown) == _EXAMPLES:
            break
    for each in shown:
        if watch.reader.task == "image-classification":
            pixels = watch.reader.pictures([Record(0.0, "", 0, each["input"])])[0]
            channels, height, width = pixels.shape
            each["image"] = png_address(pixels.tobytes(), (channels, height, width))
        else:
            each |= {"text": each["input"][:_LONGEST], "n_chars": len(each["input"])}
        del each["input"]
    return shown
