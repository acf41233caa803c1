"""Pictures of models: intervals, training curves, few-shot curves, confusion, reliability."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from danlu.report.svg import Linear, circle, clip, line, n_columns, picture, polyline, rect, text, ticks
from danlu.report.words import Text, decimal, integer, percent, t

__all__ = ["MANY_CLASSES", "Row", "confusion", "few_shot_curves", "forest", "loss_curves", "reliability", "score_curve"]

_WIDTH = 420.0
_LINES = ("model", "third", "fourth", "fifth")
MANY_CLASSES = 6
"""From so many classes on a confusion matrix leaves empty cells out and shows mistakes beside the worst of them."""


@dataclass(frozen=True)
class Row:
    """A value and its interval.

    Attributes:
        name: What it is of; cut where it is too long.
        value: None where it is undefined.
        low: Lower end.
        high: Upper end.
        ours: Whether it is the recipe's own model.
        n: Records that it rests on.
        under: A smaller line under the name.
        beside: What to compare it with, drawn thinner below it; its name is not shown.
    """

    name: str | Text
    value: float | None
    low: float | None
    high: float | None
    ours: bool
    n: int
    under: str | Text = ""
    beside: Row | None = None


def forest(
    rows: Sequence[Row], write: Callable[[float | None], str], label: Text, *, mark: float | None = None
) -> Markup:
    """Values with their intervals, one under the other, on one axis.

    Args:
        rows: Top to bottom.
        write: How a value is written.
        label: What the picture shows, for a screen reader.
        mark: A value to draw a line at: zero difference, the whole test set.
    """
    left, right, step, top = 112.0, _WIDTH - 62.0, 38.0, 8.0
    drawn = [*rows, *(row.beside for row in rows if row.beside)]
    ends = [end for row in drawn for end in (row.low, row.high, row.value) if end is not None]
    ends += [] if mark is None else [mark]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.08 * ((high - low) or 0.01)
    x = Linear(low - margin, high + margin, left, right)
    bottom = top + step * len(rows)
    parts = []
    for value in ticks(x.low, x.high, 4):
        parts += [
            line(x(value), top, x(value), bottom, "grid"),
            text(x(value), bottom + 16, write(value), "tick", "middle"),
        ]
    if mark is not None:
        parts.append(line(x(mark), top, x(mark), bottom, "mark"))
    for index, row in enumerate(rows):
        y = top + step * (index + 0.5)
        name = row.name if isinstance(row.name, Text) else clip(row.name, 12)
        parts.append(text(left - 12, y + (0 if row.under else 4), name, "name ours" if row.ours else "name", "end"))
        if row.under:
            parts.append(text(left - 12, y + 14, row.under, "tick", "end"))
        parts.append(text(_WIDTH, y + 4, write(row.value), "value ours" if row.ours else "value", "end"))
        parts += _whisker(row, x, y if row.beside is None else y - 5, write)
        parts += [] if row.beside is None else _whisker(row.beside, x, y + 6, write)
    return picture(_WIDTH, bottom + 24, parts, label)


def _whisker(row: Row, x: Linear, y: float, write: Callable[[float | None], str]) -> list[Markup]:
    if row.value is None:
        return []
    style = "model" if row.ours else "other"
    parts = []
    note = f"{write(row.value)} · n = {integer(row.n)}"
    if row.low is not None and row.high is not None:
        note = f"{write(row.value)} [{write(row.low)}, {write(row.high)}] · n = {integer(row.n)}"
        parts.append(line(x(row.low), y, x(row.high), y, f"whisker {style}"))
        parts += [line(x(end), y - 4.5, x(end), y + 4.5, f"whisker {style}") for end in (row.low, row.high)]
    return [*parts, circle(x(row.value), y, 5, f"dot {style}", note)]


def loss_curves(curve: Sequence[dict[str, Any]], best_step: int) -> Markup:
    """Training loss over steps, validation loss where it was measured, and the step whose weights were kept."""
    train = [(point["step"], point["loss"]) for point in curve if "loss" in point]
    valid = [(point["step"], point["valid"]["loss"]) for point in curve if "loss" in point.get("valid", ())]
    series = [("other", t("training", "训练"), train), ("model", t("validation", "验证"), valid)]
    drawn = [each for each in series if each[2]]
    return _curves(drawn, best_step, lambda value: decimal(value, 2), t("Loss over steps", "损失随步数的变化"))


def score_curve(
    curve: Sequence[dict[str, Any]],
    key: str,
    write: Callable[[float | None], str],
    best_step: int,
    baseline: float | None,
    label: Text,
) -> Markup:
    """What was watched on the validation split over steps, beside the baseline's.

    Args:
        curve: The lines of ``metrics.jsonl``.
        key: Which of the validation scores.
        write: How it is written.
        best_step: The step whose weights were kept.
        baseline: The baseline's, where it is known.
        label: What the picture shows, for a screen reader.
    """
    valid = [(point["step"], point["valid"][key]) for point in curve if "valid" in point]
    return _curves([("model", t("this model", "本模型"), valid)], best_step, write, label, baseline)


def _curves(
    series: Sequence[tuple[str, Text, Sequence[tuple[float, float]]]],
    best_step: int,
    write: Callable[[float | None], str],
    label: Text,
    baseline: float | None = None,
) -> Markup:
    left, right, top, bottom = 44.0, _WIDTH - 12.0, 24.0, 210.0
    values = [value for _, _, points in series for _, value in points] + ([] if baseline is None else [baseline])
    last = max([best_step, *(step for _, _, points in series for step, _ in points)])
    low, high = min(values), max(values)
    margin = 0.08 * ((high - low) or 0.01)
    x, y = Linear(0, last, left, right), Linear(low - margin, high + margin, bottom, top)
    parts = []
    for value in ticks(y.low, y.high, 4):
        parts += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 7, y(value) + 4, write(value), "tick", "end"),
        ]
    parts += [text(x(step), bottom + 17, integer(step), "tick", "middle") for step in ticks(0, last * 0.96, 4)]
    parts.append(text(right, bottom + 17, t("steps", "步"), "tick", "end"))
    if baseline is not None:
        parts += [
            line(left, y(baseline), right, y(baseline), "mark"),
            text(right, y(baseline) - 6, t("simple baseline", "简单基线"), "tick", "end"),
        ]
    parts.append(line(x(best_step), top - 4, x(best_step), bottom, "best"))
    shift, anchor = (-5, "end") if best_step > 0.5 * last else (5, "start")
    parts.append(text(x(best_step) + shift, top - 8, t("weights kept", "保留的权重"), "tick", anchor))
    for style, _, points in series:
        parts.append(polyline([(x(step), y(value)) for step, value in points], f"curve {style}"))
        if len(points) <= 40:
            parts += [circle(x(s), y(v), 2.6, f"dot {style}", f"{integer(s)}: {decimal(v, 4)}") for s, v in points]
    if len(series) > 1:
        parts += _legend([(style, name) for style, name, _ in series], left + 2, bottom + 34)
    return picture(_WIDTH, bottom + (44 if len(series) > 1 else 24), parts, label)


def _legend(entries: Sequence[tuple[str, Text | str]], x: float, y: float) -> list[Markup]:
    """What the lines of a picture are, in rows of three."""
    parts = []
    for index, (style, name) in enumerate(entries):
        at, below = x + 110 * (index % 3), y + 18 * (index // 3)
        shown = name if isinstance(name, Text) else clip(name, 14)
        parts += [line(at, below, at + 18, below, f"curve {style}"), text(at + 24, below + 4, shown, "tick")]
    return parts


def few_shot_curves(
    lines: Mapping[str, Mapping[int, Mapping[str, Any]]], write: Callable[[float | None], str], label: Text
) -> Markup:
    """How good each model is after so many examples of each class, which stand on a logarithmic axis.

    Args:
        lines: Label -> examples of each class -> ``value low high n``; the last, a baseline, is drawn as such.
        write: How a value is written.
        label: What the picture shows, for a screen reader.
    """
    left, right, top, bottom = 50.0, _WIDTH - 16.0, 12.0, 230.0
    styles = {name: _LINES[index % len(_LINES)] for index, name in enumerate(lines)} | {list(lines)[-1]: "other"}
    shots = sorted({n for line_ in lines.values() for n in line_})
    found = [point for line_ in lines.values() for point in line_.values()]
    ends = [point[key] for point in found for key in ("value", "low", "high") if point[key] is not None]
    margin = 0.06 * ((max(ends) - min(ends)) or 0.01)
    y = Linear(min(ends) - margin, max(ends) + margin, bottom, top)
    x = Linear(math.log2(shots[0]), math.log2(shots[-1]), left + 14, right - 14)
    parts = []
    for value in ticks(y.low, y.high, 5):
        parts += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 7, y(value) + 4, write(value), "tick", "end"),
        ]
    parts += [text(x(math.log2(n)), bottom + 17, integer(n), "tick", "middle") for n in shots]
    parts.append(text(right, bottom + 35, t("examples of each class", "每类样本数"), "axis", "end"))
    for index, (name, style) in enumerate(styles.items()):
        beside = 3.0 * (index - (len(styles) - 1) / 2)  # so that intervals do not cover each other
        places = [(x(math.log2(n)) + beside, n, lines[name][n]) for n in sorted(lines[name])]
        parts.append(polyline([(at, y(point["value"])) for at, _, point in places], f"curve {style}"))
        for at, n, point in places:
            if point["low"] is not None:
                parts.append(line(at, y(point["low"]), at, y(point["high"]), f"whisker thin {style}"))
            note = f"{name}, {integer(n)}: {write(point['value'])} · n = {integer(point['n'])}"
            parts.append(circle(at, y(point["value"]), 3.6, f"dot {style}", note))
    parts += _legend([(style, name) for name, style in styles.items()], left, bottom + 56)
    return picture(_WIDTH, bottom + 48 + 18 * ((len(styles) + 2) // 3), parts, label)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Counts, rows being true labels; the ground of a cell is its share of the row.

    Where there are many classes mistakes are rare ones, and the ground of one is its share beside the worst's.
    """
    n, many = len(names), len(names) >= MANY_CLASSES
    room = max(46.0, 14 + 6.6 * min(11, max(n_columns(name) for name in names))) if many else 104.0
    cell, top = min((_WIDTH - 2 - room) / n, 116.0), 46.0
    left = room + (_WIDTH - 2 - room - cell * n) / 2.5
    middle = left + cell * n / 2
    totals = [sum(counts) for counts in matrix]
    shares = [[count / (total or 1) for count in counts] for counts, total in zip(matrix, totals, strict=True)]
    worst = max((share for row, of in enumerate(shares) for column, share in enumerate(of) if column != row), default=0)
    parts = [
        rect(left, top, cell * n, cell * n, "cell"),
        text(middle, 13, t("predicted", "预测为"), "axis", "middle"),
        text(left - 10, top - 12, t("true", "实际为"), "axis", "end"),
    ]
    for row, counts in enumerate(matrix):
        y = top + cell * row
        if cell >= 12:
            parts.append(text(left - 10, y + cell / 2 + 4, clip(names[row], 11), "name", "end"))
        if cell >= 26:
            above = clip(names[row], int(cell / 6.4))
            parts.append(text(left + cell * (row + 0.5), top - 12, above, "name", "middle"))
        for column, count in enumerate(counts):
            if many and count == 0 and row != column:
                continue  # a large matrix is mostly empty, and its page would grow with the square
            share = shares[row][column]
            note = f"{names[row]} → {names[column]}: {integer(count)} / {integer(totals[row])} = {percent(share)}"
            deep = share / worst if many and row != column else share
            style = "hit" if row == column else "miss"
            parts += _cell((left + cell * column, y), cell, (count, share), deep, style, note)
    return picture(_WIDTH, top + cell * n + 4, parts, t("Confusion matrix", "混淆矩阵"))


def _cell(
    at: tuple[float, float], size: float, shown: tuple[int, float], deep: float, style: str, note: str
) -> list[Markup]:
    """A cell at a place, with a count and its share where there is room; ``deep``, 0 to 1, is how dark it is."""
    gap = min(1.0, size / 12)
    side = size - 2 * gap
    parts = [rect(at[0] + gap, at[1] + gap, side, side, style, note=note, opacity=0.06 + 0.84 * deep)]
    x, y, ink = at[0] + size / 2, at[1] + size / 2, " onfill" if deep > 0.55 else ""
    count, share = shown
    if size >= 42:
        parts.append(text(x, y, integer(count), f"value{ink}", "middle"))
        parts.append(text(x, y + 15, percent(share), f"tick{ink}", "middle"))
    elif size >= 26:
        parts.append(text(x, y + 4, integer(count), f"value{ink}", "middle"))
    return parts


def reliability(bins: Sequence[dict[str, Any]]) -> Markup:
    """Accuracy against mean confidence, bin by bin, with Wilson's intervals; on the diagonal a model means it."""
    left, right, top, bottom = 50.0, _WIDTH - 20.0, 10.0, 300.0
    low = min([each["low"] for each in bins] + [each["confidence"] for each in bins])
    low = max(0.0, (int(low * 20) - 1) / 20)
    x, y = Linear(low, 1.0, left, right), Linear(low, 1.0, bottom, top)
    parts = []
    for value in ticks(low, 1.0, 5):
        parts += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 7, y(value) + 4, percent(value, 0), "tick", "end"),
            text(x(value), bottom + 17, percent(value, 0), "tick", "middle"),
        ]
    parts.append(line(x(low), y(low), x(1.0), y(1.0), "mark"))
    for each in bins:
        at = x(each["confidence"])
        note = (
            f"{percent(each['from'])}–{percent(each['to'])}: {percent(each['accuracy'])} "
            f"[{percent(each['low'])}, {percent(each['high'])}] · n = {integer(each['n'])}"
        )
        parts += [line(at, y(each["low"]), at, y(each["high"]), "whisker model")]
        parts.append(circle(at, y(each["accuracy"]), 4.2, "dot model", note))
    parts += [
        text(
            right,
            bottom + 36,
            t("how sure it was (mean confidence of a bin)", "模型有多确信（每组的平均置信度）"),
            "axis",
            "end",
        ),
        text(left + 8, top + 12, t("how often it was right", "实际答对的比例"), "axis"),
    ]
    return picture(_WIDTH, bottom + 44, parts, t("Reliability diagram", "可靠性图"))
