"""Pictures of several trainings over each other: one line each, named where it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from danlu.report.svg import Linear, circle, clip, line, n_columns, picture, polyline, text, ticks
from danlu.report.words import Text, t

__all__ = ["MOST", "Axis", "Line", "overlaid", "smoothed", "style_of", "time_axis"]

_WIDTH, _HEIGHT = 480.0, 260.0
_COLOURS = 5
MOST = 2 * _COLOURS
"""Lines that can be told apart: in colours, solid and dashed."""
_STEEP = 12.0
"""Where the highest loss is so many times the lowest, the axis is logarithmic."""
_APART = 12.5
"""Between two names."""
_SPAN = 0.05
"""The share of a curve's points that its smoothed line looks back on."""
_FEW = 40
"""Points that are marked one by one; a curve of more may begin outside the picture."""
_PLUNGE = 0.05
"""The share of a curve's points at its beginning that the picture need not be tall enough for."""
_WORTH = 1.2
"""Where it would otherwise be so many times as tall."""

Points = Sequence[tuple[float, float]]
Write = Callable[[float], str]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """One training in a picture.

    Attributes:
        name: What it is called.
        style: How it is drawn.
        points: Its curve.
        faint: The same without smoothing, behind it.
        best: The point that stands out.
    """

    name: str
    style: str
    points: Points
    faint: Points = ()
    best: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """What a picture is drawn against.

    Attributes:
        name: Its name, with the unit.
        write: How a value is written.
        unit: Values that make one of what is written.
        whole: Whether only whole numbers are written.
    """

    name: Text
    write: Write
    unit: float = 1.0
    whole: bool = True


def style_of(index: int) -> str:
    """The colour and the dashes of the n-th line."""
    return f"c{index % _COLOURS + 1}" + (" dashed" if index >= _COLOURS else "")


def time_axis(seconds: float) -> Axis:
    """Time in the unit in which the longest has the fewest digits."""
    units = ((t("hours", "小时"), 3600), (t("minutes", "分钟"), 60), (t("seconds", "秒"), 1))
    name, unit = next((each for each in units if seconds >= 2 * each[1]), units[-1])
    return Axis(name, lambda value: f"{value:g}", unit, whole=False)


def smoothed(points: Points) -> list[tuple[float, float]]:
    """The running mean of a curve, each point weighing less the further back it is."""
    keep = 1 - 1 / max(1.0, _SPAN * len(points))
    found, mean, weight = [], 0.0, 0.0
    for x, y in points:
        mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        found.append((x, mean / weight))
    return found


def overlaid(lines: Sequence[Line], axis: Axis, write: Write, label: Text, *, falls: bool = False) -> Markup:
    """Curves over each other.

    Args:
        lines: One a training, those without points left out.
        axis: What they are drawn against.
        write: How a height is written.
        label: What the picture shows, for a screen reader.
        falls: Whether heights are losses, whose axis is logarithmic where they fall far.
    """
    left, top, bottom = 46.0, 12.0, _HEIGHT - 26.0
    room = 30 + 7.0 * max(min(16, n_columns(each.name)) for each in lines)
    right = _WIDTH - room
    low, high = _range([each.faint or each.points for each in lines])
    steep = falls and low > 0 and high > _STEEP * low
    scale, marks = _scale(low, high, bottom, top, steep=steep)
    last = max(x for each in lines for x, _ in each.points) / axis.unit
    across = Linear(0, (last or 1.0) * axis.unit, left, right)
    parts = [line(left, scale(y), right, scale(y), "grid") for y in marks]
    parts += [text(left - 7, scale(y) + 4, write(y), "tick", "end") for y in marks]
    along = [x for x in ticks(0, last * 0.97, 4) if not axis.whole or x == round(x)]
    parts += [text(across(x * axis.unit), bottom + 17, axis.write(x), "tick", "middle") for x in along]
    parts.append(text(_WIDTH, bottom + 17, axis.name, "tick", "end"))
    for points, each in [*((each.faint, each) for each in lines), *((each.points, each) for each in lines)]:
        if shown := [(across(x), scale(y)) for x, y in points if low <= y <= high]:
            parts.append(polyline(shown, f"curve {'faint ' if points is each.faint else ''}{each.style}"))
    for each in lines:
        if not each.faint and len(each.points) <= _FEW:
            notes = [f"{each.name}, {axis.write(x / axis.unit)}: {write(y)}" for x, y in each.points]
            at = zip(each.points, notes, strict=True)
            parts += [circle(across(x), scale(y), 2.4, f"dot {each.style}", note) for (x, y), note in at]
        if each.best:
            x, y = each.best
            parts.append(circle(across(x), scale(y), 4.6, f"dot {each.style}", f"{each.name}: {write(y)}"))
    ends = _spread([scale(each.points[-1][1]) for each in lines], top, bottom)
    for each, y in zip(lines, ends, strict=True):
        parts.append(line(right + 12, y, right + 22, y, f"curve {each.style}"))
        parts.append(text(right + 26, y + 3.5, clip(each.name, 16), "tick name"))
    return picture(_WIDTH, _HEIGHT, parts, label)


def _range(curves: Sequence[Points]) -> tuple[float, float]:
    """The lowest and the highest place that the picture has; a plunge at the beginning is left out if it saves much."""
    heights = [y for points in curves for _, y in points]
    settled = [y for points in curves for _, y in points[round(_PLUNGE * len(points)) if len(points) > _FEW else 0 :]]
    spans = [(min(each), max(each)) for each in (heights, settled)]
    (low, high), (low_settled, high_settled) = spans
    return spans[0] if high - low < _WORTH * (high_settled - low_settled) else spans[1]


def _scale(low: float, high: float, bottom: float, top: float, *, steep: bool) -> tuple[Scale, list[float]]:
    """Where a height stands, and the heights to mark."""
    if not steep:
        margin = 0.06 * ((high - low) or 0.01)
        linear = Linear(low - margin, high + margin, bottom, top)
        return linear, ticks(linear.low, linear.high, 5)
    logs = Linear(math.log(low / 1.15), math.log(high * 1.15), bottom, top)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) < 4 else (1,)
    marks = [factor * 10.0**power for power in decades for factor in factors]
    return lambda y: logs(math.log(y)), [y for y in marks if low / 1.1 <= y <= high * 1.1]


def _spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Places as near as can be to those wanted, far enough apart for names."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    found = [0.0] * len(wanted)
    above = top - _APART
    for index in order:
        found[index] = above = max(wanted[index], above + _APART)
    below = bottom + _APART
    for index in reversed(order):
        found[index] = below = min(found[index], below - _APART)
    return found
