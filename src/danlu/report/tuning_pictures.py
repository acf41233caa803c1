"""Pictures of a search: score by trial, by value and by step, and how much each value matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from danlu.report.metrics import Write
from danlu.report.svg import Linear, circle, clip, line, n_columns, picture, polyline, rect, text, ticks
from danlu.report.words import Text, integer, percent, t

__all__ = ["Dot", "against_value", "importance_bars", "score_by_trial", "trial_curves"]

_WIDTH = 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, _WIDTH - 14.0, 12.0, 212.0


@dataclass(frozen=True)
class Dot:
    """A trial in a picture.

    Attributes:
        number: Which.
        state: ``best``, ``complete``, ``pruned`` or ``failed``.
        value: What it came to, in the unit of the task; None where it failed.
    """

    number: int
    state: str
    value: float | None


def score_by_trial(dots: Sequence[Dot], sign: int, write: Write, name: Text) -> Markup:
    """What every trial came to, and the best so far as a line; failed ones are marked at the foot.

    Args:
        dots: In order.
        sign: -1 where less is better.
        write: How a value is written.
        name: What the values are.
    """
    y = _scale(dots)
    x = Linear(1, max(2, len(dots)), _LEFT + 8, _RIGHT - 8)
    parts = _levels(y, write)
    parts += [text(x(n), _BOTTOM + 17, integer(n), "tick", "middle") for n in ticks(1, len(dots), 5) if n == int(n)]
    parts.append(text(_RIGHT, _BOTTOM + 35, t("trial", "试验"), "axis", "end"))
    parts.append(_best_so_far(dots, sign, x, y))
    parts += [_mark(dot, x(dot.number), y, write) for dot in _best_last(dots)]
    return picture(_WIDTH, _BOTTOM + 44, parts, t("{what} by trial", "各次试验的{what}", what=name))


def against_value(
    key: str,
    dimension: Any,
    tried: Sequence[tuple[Any, Dot]],
    write: Write,
    shown: Callable[[Any], str],
) -> Markup:
    """What trials came to against one of their values.

    Args:
        key: Whose values.
        dimension: ``low high log`` of a range, which has an axis; or a list of choices, which stand side by side.
        tried: A value and the trial that had it.
        write: How what it came to is written.
        shown: How a value of the recipe is written.
    """
    y = _scale([dot for _, dot in tried])
    parts = _levels(y, write)
    if isinstance(dimension, list):
        width = (_RIGHT - _LEFT) / len(dimension)
        places = {shown(choice): _LEFT + width * (n + 0.5) for n, choice in enumerate(dimension)}
        room = max(3, int(width / 6.4))
        parts += [text(at, _BOTTOM + 17, clip(name, room), "tick", "middle") for name, at in places.items()]
        at_value = {dot.number: places[shown(value)] + _beside(dot, width) for value, dot in tried}
    else:
        low, high, log = (dimension[name] for name in ("low", "high", "log"))
        warp: Callable[[float], float] = math.log10 if log else float
        whole = isinstance(low, int) and isinstance(high, int)
        step = dimension["step"] or int(whole)
        inset = 30.0 if step and not log else 10.0
        x = Linear(warp(low), warp(high), _LEFT + inset, _RIGHT - inset)
        marks = _log_ticks(low, high) if log else ticks(low, high, 4)
        marks = [value for value in marks if not whole or value == int(value)]
        parts += [text(x(warp(value)), _BOTTOM + 17, shown(value), "tick", "middle") for value in marks]
        width = 0.0 if log else x(low + step) - x(low)
        at_value = {dot.number: x(warp(value)) + _beside(dot, width) for value, dot in tried}
    parts.append(text(_RIGHT, _BOTTOM + 35, key, "axis", "end"))
    parts += [
        _mark(dot, at_value[dot.number], y, write, f" · {key} {shown(value)}")
        for value, dot in sorted(tried, key=lambda pair: pair[1].state == "best")
    ]
    return picture(_WIDTH, _BOTTOM + 44, parts, t("Against {key}", "随 {key} 的变化", key=key))


def trial_curves(lines: Sequence[tuple[str, Sequence[tuple[int, float]]]], write: Write, name: Text) -> Markup:
    """What was watched on the validation split over the steps of every trial; one that was stopped ends with a dot.

    Args:
        lines: The state of a trial and its steps with their values.
        write: How a value is written.
        name: What the values are.
    """
    drawn = [(state, points) for state, points in lines if points]
    values = [value for _, points in drawn for _, value in points]
    y = _between(values)
    last = max(step for _, points in drawn for step, _ in points)
    x = Linear(0, last, _LEFT, _RIGHT - 4)
    parts = _levels(y, write)
    parts += [text(x(step), _BOTTOM + 17, integer(step), "tick", "middle") for step in ticks(0, last * 0.96, 4)]
    parts.append(text(_RIGHT, _BOTTOM + 35, t("steps", "步"), "axis", "end"))
    styles = {"best": "model", "complete": "other pale", "pruned": "third pale", "failed": "fifth pale"}
    for state, points in sorted(drawn, key=lambda each: each[0] == "best"):
        style, places = styles[state], [(x(step), y(value)) for step, value in points]
        parts.append(polyline(places, f"curve {style}"))
        step, value = points[-1]
        if state == "pruned" or len(points) == 1:
            parts.append(circle(*places[-1], 2.6, f"dot {style}", f"{integer(step)}: {write(value)}"))
    return picture(_WIDTH, _BOTTOM + 44, parts, t("{what} over steps", "{what}随步数的变化", what=name))


def importance_bars(shares: Mapping[str, float]) -> Markup:
    """How much each value matters, the most first."""
    names = [clip(key, 24) for key in shares]
    left, step, top = 14 + 6.4 * max(n_columns(name) for name in names), 30.0, 6.0
    x = Linear(0, max(shares.values()), left, _WIDTH - 54)
    parts = []
    for place, (name, share) in enumerate(zip(names, shares.values(), strict=True)):
        y = top + step * place
        parts += [
            text(left - 10, y + 15, name, "name", "end"),
            rect(left, y + 4, x(share) - left, 14, "split valid"),
            text(x(share) + 8, y + 15, percent(share, 0), "value"),
        ]
    return picture(_WIDTH, top + step * len(names), parts, t("How much each value matters", "各取值的重要性"))


def _best_so_far(dots: Sequence[Dot], sign: int, x: Linear, y: Linear) -> Markup:
    best: float | None = None
    places: list[tuple[float, float]] = []
    for dot in dots:
        if dot.value is None or dot.state == "pruned":
            continue
        if best is None or sign * dot.value > sign * best:
            places += [] if best is None else [(x(dot.number), y(best))]
            best = dot.value
            places.append((x(dot.number), y(best)))
    if best is not None:
        places.append((x(dots[-1].number), y(best)))
    return polyline(places, "curve model")


def _mark(dot: Dot, at: float, y: Linear, write: Write, more: str = "") -> Markup:
    """A trial at its place; without a value, at the foot."""
    if dot.value is None:
        return circle(at, _BOTTOM - 4, 2.6, "dot fifth", f"{dot.number}: –{more}")
    radius, style = {"best": (5.4, "model"), "complete": (4.0, "other"), "pruned": (3.2, "hollow")}[dot.state]
    return circle(at, y(dot.value), radius, f"dot {style}", f"{dot.number}: {write(dot.value)}{more}")


def _best_last(dots: Sequence[Dot]) -> list[Dot]:
    """The best on top of the others."""
    return sorted(dots, key=lambda dot: dot.state == "best")


def _beside(dot: Dot, width: float) -> float:
    """A little to the side, by the trial's number, so that trials with one value do not cover each other."""
    return ((dot.number * 7) % 11 - 5) / 5 * min(22.0, width / 4)


def _scale(dots: Sequence[Dot]) -> Linear:
    return _between([dot.value for dot in dots if dot.value is not None])


def _between(values: Sequence[float]) -> Linear:
    """The vertical scale of some values."""
    low, high = min(values), max(values)
    margin = 0.08 * ((high - low) or 0.01)
    return Linear(low - margin, high + margin, _BOTTOM - 8, _TOP)


def _levels(y: Linear, write: Write) -> list[Markup]:
    """The grid with what stands beside it."""
    parts = []
    for value in ticks(y.low, y.high, 5):
        at = y(value)
        parts += [line(_LEFT, at, _RIGHT, at, "grid"), text(_LEFT - 7, at + 4, write(value), "tick", "end")]
    return parts


def _log_ticks(low: float, high: float) -> list[float]:
    """Values of one digit between two, four of them or so."""
    digits = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{lead}e{digit}") for digit in digits for lead in leads]
        found = [value for value in found if low <= value <= high]
        if len(found) <= 6:
            break
    return found[:: 1 + len(found) // 7] or [low, high]
