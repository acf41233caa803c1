"""The pictures of the benchmark's page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from danlu.report.svg import Linear, circle, line, picture, polyline, rect, text, ticks
from danlu.report.words import Text, decimal, integer, percent, t

__all__ = ["curves", "heat", "quantiles"]

_SIDE = 190.0
_APART = 14.0
"""Between the lowest lines of two names."""


def quantiles(p_values: Mapping[str, np.ndarray], names: Mapping[str, Text]) -> Markup:
    """Sorted p-values against those of a uniform distribution, in powers of ten; the band holds 95% of each point.

    Args:
        p_values: Test -> p of independent pairs.
        names: What the tests are called.
    """
    parts, n_across = [], 3
    smallest = min(min(float(p.min()), 0.25 / (len(p) + 1)) for p in p_values.values())
    far = -math.log10(max(smallest, 1e-12)) + 0.1
    for number, (test, p) in enumerate(p_values.items()):
        left, top = 44 + (number % n_across) * (_SIDE + 40), 26 + (number // n_across) * (_SIDE + 64)
        parts += _one_quantiles(np.sort(p), names[test], far, (left, top))
    n_down = -(-len(p_values) // n_across)
    label = t("p-values of independent pairs", "独立模型对的 p 值")
    return picture(44 + n_across * (_SIDE + 40), 26 + n_down * (_SIDE + 64), parts, label)


def _one_quantiles(p: np.ndarray, name: Text, far: float, at: tuple[float, float]) -> list[Markup]:
    from scipy import stats

    n, (left, top) = len(p), at
    x, y = Linear(0, far, left, left + _SIDE), Linear(0, far, top + _SIDE, top)
    rank = np.arange(1, n + 1)
    expected = -np.log10(rank / (n + 1))
    low, high = (-np.log10(stats.beta.ppf(q, rank, n + 1 - rank)) for q in (0.975, 0.025))
    parts = [rect(left, top, _SIDE, _SIDE, "cell")]
    for bound in (low, high):
        inside = [(x(a), y(min(far, b))) for a, b in zip(expected.tolist(), bound.tolist(), strict=True)]
        parts.append(polyline(inside, "curve other pale"))
    parts.append(line(x(0), y(0), x(far), y(far), "mark"))
    for a, b in zip(expected.tolist(), (-np.log10(p)).tolist(), strict=True):
        parts.append(circle(x(a), y(min(far, max(0.0, b))), 2.2, "dot other"))
    for mark in range(int(far) + 1):
        parts += [
            text(x(mark), top + _SIDE + 14, decimal(mark, 0), "tick", "middle"),
            text(left - 6, y(mark) + 3, decimal(mark, 0), "tick", "end"),
        ]
    parts.append(text(left, top - 8, name, "name"))
    unit = t("−log₁₀ p, uniform", "−log₁₀ p（均匀分布）")
    parts.append(text(left + _SIDE, top + _SIDE + 29, unit, "axis", "end"))
    return parts


def heat(rows: Sequence[tuple[Text | str, Mapping[str, float], int]], columns: Sequence[str]) -> Markup:
    """A rate in every cell, the fuller the higher; nothing where there is none.

    Args:
        rows: Name, column -> rate, number of models.
        columns: What is compared.
    """
    left, top, wide, high = 236.0, 110.0, 58.0, 21.0
    parts = []
    for place, column in enumerate(columns):
        x = left + (place + 0.5) * wide
        turned = '<text x="{}" y="{}" transform="rotate(-38 {} {})" class="tick" translate="no">{}</text>'
        at = (f"{x:.1f}", f"{top - 8:.1f}")
        parts.append(Markup(turned).format(*at, *at, column))
    for number, (name, rates, n) in enumerate(rows):
        y = top + number * high
        parts += [
            text(left - 40, y + 14, name, "tick name", "end"),
            text(left - 10, y + 14, integer(n), "tick", "end"),
        ]
        for place, column in enumerate(columns):
            rate, x = rates.get(column, math.nan), left + place * wide
            parts.append(rect(x, y, wide - 2, high - 2, "cell"))
            if not math.isnan(rate):
                style = "split test" if place == 0 else "split train"
                parts.append(rect(x, y, (wide - 2) * rate, high - 2, style, note=f"{column}: {rate:.3f}"))
                tone = "tick onfill" if place == 0 and rate > 0.6 else "tick"
                parts.append(text(x + wide / 2 - 1, y + 14, percent(rate, 0), tone, "middle"))
    label = t("Share found, by derivation and method", "各种派生方式下各方法的检出率")
    return picture(left + len(columns) * wide + 90, top + len(rows) * high + 12, parts, label)


def curves(rows: Sequence[Mapping[str, Any]], column: str, label: Text) -> Markup:
    """A statistic against the length of training, a dot a model and a line through the means.

    Args:
        rows: As :func:`tables.lengths` gives them.
        column: The statistic.
        label: What it is.
    """
    left, right, top, bottom = 52.0, 560.0, 16.0, 226.0
    known = [row for row in rows if not math.isnan(row[column])]
    if not known:
        return Markup("")
    lengths = [math.log2(row["length"]) for row in known]
    x = Linear(min(lengths) - 0.2, max(lengths) + 0.2, left, right)
    y = Linear(min(0.0, *(row[column] for row in known)), max(4.0, *(row[column] for row in known)), bottom, top)
    parts: list[Markup] = []
    named: list[float] = []
    for mark in ticks(y.low, y.high, 5):
        parts += [
            line(left, y(mark), right, y(mark), "grid"),
            text(left - 8, y(mark) + 4, decimal(mark, 0), "tick", "end"),
        ]
    for mark in sorted({row["length"] for row in known}):
        parts.append(text(x(math.log2(mark)), bottom + 16, f"{mark:g}", "tick", "middle"))
    for number, what in enumerate(sorted({row["what"] for row in known})):
        some = [row for row in known if row["what"] == what]
        spots = {length: [r[column] for r in some if r["length"] == length] for length in {r["length"] for r in some}}
        means = [(x(math.log2(length)), y(float(np.mean(values)))) for length, values in sorted(spots.items())]
        parts.append(polyline(means, f"curve c{number + 1}"))
        for row in some:
            parts.append(circle(x(math.log2(row["length"])), y(row[column]), 3, f"dot c{number + 1}", what))
        beside = means[-1][1] + 4
        while any(abs(beside - other) < _APART for other in named):
            beside -= 1
        named.append(beside)
        parts.append(text(right + 10, beside, _WHAT[what], "tick"))
    parts += [
        text(left, top - 4, label, "axis"),
        text(
            right,
            bottom + 34,
            t("length of training, in trainings of a base", "训练长度（以基座训练为 1）"),
            "axis",
            "end",
        ),
    ]
    return picture(right + 150, bottom + 44, parts, label)


_WHAT = {
    "base": t("from scratch", "从头训练"),
    "same": t("further, same data", "同数据续训"),
    "new": t("further, new data", "新数据续训"),
}
