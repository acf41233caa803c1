"""Pictures of data: where records went, how long texts are, how like the nearest training text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from danlu.report.svg import Linear, line, path, picture, rect, text, ticks
from danlu.report.terms import SPLITS, STEPS
from danlu.report.words import integer, marked, percent, t

__all__ = ["funnel", "length_histograms", "similarity_histogram"]

_WIDTH = 420.0
_STREAM = 168.0
"""Width of the stream of all records that were read."""


def funnel(summary: Mapping[str, Any]) -> Markup:
    """Records as a stream that narrows step by step, what is dropped turning off, and parts into splits."""
    n_read, left, bend = summary["n_read"], 10.0, 14.0
    x_end = left + _STREAM + bend + 10

    def wide(n: float) -> float:
        return max(_STREAM * n / n_read, 1.2) if n else 0.0

    y = 30.0
    now = wide(n_read)
    parts = [
        text(left, 16, t("{n} records read", "读入 {n} 条记录", n=integer(n_read)), "name"),
        rect(left, y - 6, now, 26, "stream"),
    ]
    y += 18
    for step in summary["steps"]:
        n_dropped = step["n_in"] - step["n_out"]
        if n_dropped <= 0:
            continue
        after, off = wide(step["n_out"]), wide(n_dropped)
        edge = left + now
        height = max(46.0, bend + off + 20)
        parts.append(rect(left, y - 1, after, height + 2, "stream"))
        parts.append(path(_turn(edge, y, off, bend, x_end), "dropped"))
        middle = y + bend + off / 2
        name = STEPS.get(step["step"]) or t("{s}", "{s}", s=marked(step["step"]))
        dropped = t("−{n} {name}", "−{n} {name}", n=integer(n_dropped), name=name)
        share = t("{p} of what was read", "占读入的 {p}", p=percent(n_dropped / n_read))
        parts += [text(x_end + 8, middle - 2, dropped, "name"), text(x_end + 8, middle + 13, share, "tick")]
        y, now = y + height, after
    parts += [
        rect(left, y - 1, now, 30, "stream"),
        text(left + now + 12, y + 18, t("{n} kept", "保留 {n} 条", n=integer(summary["n_kept"])), "name"),
    ]
    parts += _parted(summary, left, y + 28, now)
    return picture(_WIDTH, y + 128, parts, t("Records from reading to splits", "从读入到划分的记录流向"))


def _turn(edge: float, y: float, off: float, bend: float, x_end: float) -> str:
    """A ribbon that leaves the stream's right edge downwards and turns right in two concentric quarter circles."""
    x = edge + bend
    return (
        f"M{edge:.1f} {y:.1f}A{bend:.1f} {bend:.1f} 0 0 0 {x:.1f} {y + bend:.1f}H{x_end:.1f}V{y + bend + off:.1f}"
        f"H{x:.1f}A{bend + off:.1f} {bend + off:.1f} 0 0 1 {edge - off:.1f} {y:.1f}Z"
    )


def _parted(summary: Mapping[str, Any], left: float, y: float, now: float) -> list[Markup]:
    """The stream parts into the splits, whose widths add up to it."""
    parts, at = [], left
    n_kept = summary["n_kept"] or 1
    targets = {"train": left, "valid": 0.44 * _WIDTH, "test": 0.74 * _WIDTH}
    for name, facts in summary["splits"].items():
        n = facts["n"]
        width, target = now * n / n_kept, targets[name]
        if n:
            low, half = y + 56, y + 28
            parts.append(
                path(
                    f"M{at:.1f} {y:.1f}C{at:.1f} {half:.1f} {target:.1f} {half:.1f} {target:.1f} {low:.1f}"
                    f"H{target + max(width, 1.2):.1f}C{target + width:.1f} {half:.1f} {at + width:.1f} {half:.1f} "
                    f"{at + max(width, 1.2):.1f} {y:.1f}Z",
                    f"split {name}",
                    f"{integer(n)} · {percent(n / n_kept)}",
                )
            )
        at += width
        parts.append(text(target, y + 74, t("{n} {split}", "{n} {split}", n=integer(n), split=SPLITS[name]), "name"))
        parts.append(text(target, y + 90, percent(n / n_kept), "tick"))
    return parts


def length_histograms(splits: Mapping[str, Any]) -> Markup:
    """Lengths in characters of each split, on one axis; the last bin holds all that are longer."""
    present = {name: facts for name, facts in splits.items() if facts["n"]}
    edges = next(iter(present.values()))["histogram"]["edges"]
    ends = _last_bin_cut(edges)
    left, right, row = 84.0, _WIDTH - 14.0, 74.0
    x = Linear(ends[0], ends[-1], left, right)
    parts: list[Markup] = []
    for index, (name, facts) in enumerate(present.items()):
        base = row * (index + 1) - 6
        counts = facts["histogram"]["counts"]
        y = Linear(0, max(counts) / facts["n"], base, base - row + 20)
        parts += [
            text(left - 10, base - 14, SPLITS[name], "name", "end"),
            text(left - 10, base - 1, integer(facts["n"]), "tick", "end"),
            line(left, base, right, base, "grid"),
        ]
        for count, low, high, shown_low, shown_high in zip(counts, edges, edges[1:], ends, ends[1:], strict=False):
            at, height = x(shown_low), base - y(count / facts["n"])
            note = f"{low}–{high}: {integer(count)} ({percent(count / facts['n'])})"
            parts.append(rect(at + 0.5, base - height, x(shown_high) - at - 1, height, f"split {name}", note=note))
    bottom = row * len(present) - 6
    parts += [text(x(value), bottom + 16, integer(value), "tick", "middle") for value in ticks(0, ends[-2] * 0.68, 4)]
    beyond = f"≥{integer(edges[-2])}" if edges[-1] > ends[-1] else integer(ends[-1])
    parts.append(text(right, bottom + 16, t("{n} characters", "{n} 字符", n=beyond), "tick", "end"))
    return picture(_WIDTH, bottom + 24, parts, t("Text lengths by split", "各划分的文本长度"))


def _last_bin_cut(edges: Sequence[float]) -> list[float]:
    """The edges with the last bin, which reaches to the longest text, drawn as wide as the one before."""
    if len(edges) < 3:
        return list(edges)
    return [*edges[:-1], min(edges[-1], 2 * edges[-2] - edges[-3])]


def similarity_histogram(leak: Mapping[str, Any]) -> Markup:
    """How like its nearest text of a lower split each held-out text is, above the floor, and where a leak begins."""
    edges, counts = leak["histogram"]["edges"][1:], leak["histogram"]["counts"][1:]
    left, right, top, bottom = 44.0, _WIDTH - 14.0, 22.0, 150.0
    x, y = Linear(edges[0], edges[-1], left, right), Linear(0, max([*counts, 1]), bottom, top)
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        style = "miss" if low >= leak["threshold"] - 1e-9 else "split valid"
        note = f"{low:.2f}–{high:.2f}: {integer(count)}"
        parts.append(rect(x(low) + 1, y(count), x(high) - x(low) - 2, bottom - y(count), style, note=note))
        parts.append(text((x(low) + x(high)) / 2, y(count) - 5, integer(count), "tick", "middle"))
    parts.append(line(left, bottom, right, bottom, "grid"))
    parts += [text(x(value), bottom + 16, f"{value:.2f}", "tick", "middle") for value in edges[::2]]
    mark = x(leak["threshold"])
    begins = t("a leak from here on", "由此起算泄漏")
    parts += [line(mark, top - 8, mark, bottom, "mark"), text(mark + 5, top - 6, begins, "tick")]
    label = t("Similarity of held-out texts to lower splits", "留出文本与其他划分的相似度")
    return picture(_WIDTH, bottom + 24, parts, label)
