"""Pictures of models: intervals, training curves, confusion, reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from danlu.report.svg import Linear, circle, clip, line, picture, polyline, rect, text, ticks
from danlu.report.words import Text, decimal, integer, percent, t

__all__ = ["Row", "confusion", "forest", "loss_curves", "reliability", "score_curve"]

_WIDTH = 420.0
_MANY_CLASSES = 12


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
    """

    name: str | Text
    value: float | None
    low: float | None
    high: float | None
    ours: bool
    n: int
    under: str | Text = ""


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
    ends = [end for row in rows for end in (row.low, row.high, row.value) if end is not None]
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
        name = row.name if isinstance(row.name, Text) else clip(row.name, 13)
        parts.append(text(left - 12, y + (0 if row.under else 4), name, "name ours" if row.ours else "name", "end"))
        if row.under:
            parts.append(text(left - 12, y + 14, row.under, "tick", "end"))
        parts.append(text(_WIDTH, y + 4, write(row.value), "value ours" if row.ours else "value", "end"))
        parts += _whisker(row, x, y, write)
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
    """Training and validation loss over steps, with the step whose weights were kept."""
    train = [(point["step"], point["loss"]) for point in curve if "loss" in point]
    valid = [(point["step"], point["valid"]["loss"]) for point in curve if "valid" in point]
    series = [("other", t("training", "训练"), train), ("model", t("validation", "验证"), valid)]
    return _curves(series, best_step, lambda value: decimal(value, 2), t("Loss over steps", "损失随步数的变化"))


def score_curve(curve: Sequence[dict[str, Any]], best_step: int, baseline: float | None) -> Markup:
    """Macro F1 on the validation split over steps, beside the baseline's."""
    valid = [(point["step"], point["valid"]["score"]) for point in curve if "valid" in point]
    label = t("Validation macro F1 over steps", "验证集宏平均 F1 随步数的变化")
    return _curves([("model", t("this model", "本模型"), valid)], best_step, percent, label, baseline)


def _curves(
    series: Sequence[tuple[str, Text, Sequence[tuple[float, float]]]],
    best_step: int,
    write: Callable[[float | None], str],
    label: Text,
    baseline: float | None = None,
) -> Markup:
    left, right, top, bottom = 44.0, _WIDTH - 12.0, 24.0, 210.0
    values = [value for _, _, points in series for _, value in points] + ([] if baseline is None else [baseline])
    last = max(step for _, _, points in series for step, _ in points)
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
        at = left + 2
        for style, name, _ in series:
            parts += [
                line(at, bottom + 34, at + 18, bottom + 34, f"curve {style}"),
                text(at + 24, bottom + 38, name, "tick"),
            ]
            at += 110
    return picture(_WIDTH, bottom + (44 if len(series) > 1 else 24), parts, label)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Counts, rows being true labels; the ground of a cell is its share of the row."""
    n = len(names)
    cell, top = min((_WIDTH - 106.0) / n, 116.0), 46.0
    left = 104.0 + (_WIDTH - 106.0 - cell * n) / 2.5
    middle = left + cell * n / 2
    parts = [
        rect(left, top, cell * n, cell * n, "cell"),
        text(middle, 13, t("predicted", "预测为"), "axis", "middle"),
        text(left - 10, top - 12, t("true", "实际为"), "axis", "end"),
    ]
    for row, counts in enumerate(matrix):
        total = sum(counts)
        y = top + cell * row
        if cell >= 12:
            parts.append(text(left - 10, y + cell / 2 + 4, clip(names[row], 11), "name", "end"))
        if cell >= 26:
            above = clip(names[row], int(cell / 6.4))
            parts.append(text(left + cell * (row + 0.5), top - 12, above, "name", "middle"))
        for column, count in enumerate(counts):
            if count == 0 and n > _MANY_CLASSES:
                continue  # a large matrix is mostly empty, and its page would grow with the square
            note = f"{names[row]} → {names[column]}: {integer(count)} / {integer(total)}"
            style = "hit" if row == column else "miss"
            parts += _cell(left + cell * column, y, cell, count, count / total if total else 0.0, style, note)
    return picture(_WIDTH, top + cell * n + 4, parts, t("Confusion matrix", "混淆矩阵"))


def _cell(x: float, y: float, size: float, count: int, share: float, style: str, note: str) -> list[Markup]:
    gap = min(1.0, size / 12)
    side = size - 2 * gap
    parts = [rect(x + gap, y + gap, side, side, style, note=f"{note} = {percent(share)}", opacity=0.06 + 0.84 * share)]
    middle, ink = (x + size / 2, y + size / 2), " onfill" if share > 0.55 else ""
    if size >= 42:
        parts.append(text(middle[0], middle[1], integer(count), f"value{ink}", "middle"))
        parts.append(text(middle[0], middle[1] + 15, percent(share), f"tick{ink}", "middle"))
    elif size >= 26:
        parts.append(text(middle[0], middle[1] + 4, integer(count), f"value{ink}", "middle"))
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
