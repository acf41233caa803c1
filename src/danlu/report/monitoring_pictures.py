"""Pictures of a watch: a signal over its windows with its usual band, the evidence below it, and estimated accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from danlu.report.svg import Linear, circle, line, picture, polyline, rect, text, ticks
from danlu.report.words import Text, decimal, integer, percent, t

__all__ = ["MOST", "accuracy_picture", "signal_picture"]

MOST = 200
"""Windows that are drawn one by one; of more, each point is the largest of several that follow each other."""
_WIDTH = 420.0
_LEFT, _RIGHT = 54.0, _WIDTH - 12.0
_TOP, _BOTTOM = 10.0, 132.0
_UNDER, _FOOT = 152.0, 206.0
"""The strip of evidence."""

Write = Callable[[float], str]


def signal_picture(signal: Mapping[str, Any], threshold: float, write: Write, name: Text) -> Markup:
    """A signal's effect over its windows, and under it the evidence with the threshold of an alarm.

    Args:
        signal: ``usual band smallest effects evidence alarm_at``.
        threshold: Of the evidence, in powers of ten.
        write: How an effect is written.
        name: The signal.
    """
    effects, n = signal["effects"], len(signal["effects"])
    x = Linear(1, max(2, n), _LEFT, _RIGHT - 6)
    low, high = signal["band"] or (min(effects), max(effects))
    worth = None if signal["usual"] is None else signal["usual"] + signal["smallest"]
    values = [*effects, low, high, *([] if worth is None else [worth])]
    margin = 0.06 * ((max(values) - min(values)) or 1.0)
    y = Linear(min(values) - margin, max(values) + margin, _BOTTOM, _TOP)
    parts = [] if signal["band"] is None else [rect(_LEFT, y(high), _RIGHT - _LEFT, y(low) - y(high), "band")]
    for value in ticks(y.low, y.high, 4):
        parts += [line(_LEFT, y(value), _RIGHT, y(value), "grid")]
        parts.append(text(_LEFT - 7, y(value) + 4, write(value), "tick", "end"))
    if worth is not None:
        parts.append(line(_LEFT, y(worth), _RIGHT, y(worth), "mark"))
    drawn = _thinned(effects)
    parts.append(polyline([(x(at), y(value)) for at, value in drawn], "curve other"))
    if len(drawn) <= 60:
        parts += [circle(x(at), y(value), 2.4, "dot other", f"{at}: {write(value)}") for at, value in drawn]
    parts += _evidence(signal, threshold, x)
    if alarm := signal["alarm_at"]:
        parts.append(line(x(alarm), _TOP, x(alarm), _FOOT, "mark"))
        parts.append(circle(x(alarm), y(effects[alarm - 1]), 5.2, "dot model", f"{alarm}: {write(effects[alarm - 1])}"))
    whole = [value for value in ticks(1, max(2, n), 5) if value == int(value) and value >= 1]
    parts += [text(x(value), _FOOT + 16, integer(value), "tick", "middle") for value in whole]
    parts.append(text(_RIGHT, _FOOT + 32, t("window", "窗口"), "axis", "end"))
    return picture(_WIDTH, _FOOT + 38, parts, t("{name} by window", "各窗口的{name}", name=name))


def _evidence(signal: Mapping[str, Any], threshold: float, x: Linear) -> list[Markup]:
    """The strip under a picture."""
    found = [(n, value) for n, value in enumerate(signal["evidence"], 1) if value is not None]
    top = max([threshold * 1.25, *(min(value, 4 * threshold) for _, value in found)])
    y = Linear(0.0, top, _FOOT, _UNDER)
    parts = [line(_LEFT, _FOOT, _RIGHT, _FOOT, "grid"), line(_LEFT, y(threshold), _RIGHT, y(threshold), "best")]
    parts.append(text(_LEFT - 7, y(threshold) + 4, t("alarm", "报警"), "tick", "end"))
    parts.append(text(_LEFT - 7, _FOOT + 3, "0", "tick", "end"))
    style = "model" if signal["alarm_at"] else "third"
    drawn = [(at, min(found[at - 1][1], top)) for at, _ in _thinned([value for _, value in found])]
    if drawn:
        parts.append(polyline([(x(found[at - 1][0]), y(value)) for at, value in drawn], f"curve {style}"))
    return parts


def accuracy_picture(accuracy: Mapping[str, Any]) -> Markup:
    """The estimated accuracy of every window with its interval; the dashed line is the accuracy on the reference.

    Args:
        accuracy: ``reference``, and ``series`` of value, low and high.
    """
    series = accuracy["series"]
    x = Linear(1, max(2, len(series)), _LEFT, 820.0 - 18.0)
    values = [value for row in series for value in row] + [accuracy["reference"]]
    margin = 0.04 * ((max(values) - min(values)) or 0.1)
    y = Linear(max(0.0, min(values) - margin), min(1.0, max(values) + margin), 190.0, 12.0)
    right = x.end + 6
    parts = []
    for value in ticks(y.low, y.high, 5):
        parts += [line(_LEFT, y(value), right, y(value), "grid")]
        parts.append(text(_LEFT - 7, y(value) + 4, percent(value, 0), "tick", "end"))
    kept = [at for at, _ in _thinned([row[0] for row in series], smallest=True)]
    for at in kept:
        value, low, high = series[at - 1]
        parts.append(line(x(at), y(low), x(at), y(high), "whisker other thin"))
    parts.append(polyline([(x(at), y(series[at - 1][0])) for at in kept], "curve model"))
    for at in kept if len(kept) <= 60 else []:
        value, low, high = series[at - 1]
        note = f"{at}: {percent(value)} [{decimal(100 * low, 1)}, {decimal(100 * high, 1)}]"
        parts.append(circle(x(at), y(value), 2.8, "dot model", note))
    parts.append(line(_LEFT, y(accuracy["reference"]), right, y(accuracy["reference"]), "mark"))
    whole = [value for value in ticks(1, max(2, len(series)), 10) if value == int(value) and value >= 1]
    parts += [text(x(value), 207, integer(value), "tick", "middle") for value in whole]
    parts.append(text(right, 224, t("window", "窗口"), "axis", "end"))
    return picture(820.0, 230.0, parts, t("Estimated accuracy by window", "各窗口的估计准确率"))


def _thinned(values: Sequence[float], *, smallest: bool = False) -> list[tuple[int, float]]:
    """At most so many points that a picture can hold, by their place from 1: of several in a row the outermost."""
    width = -(-len(values) // MOST) or 1
    choose = min if smallest else max
    groups = [range(start, min(start + width, len(values))) for start in range(0, len(values), width)]
    places = [choose(group, key=lambda place: values[place]) for group in groups]
    return [(place + 1, values[place]) for place in places]
