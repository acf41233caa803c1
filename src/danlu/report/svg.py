"""The parts that pictures are made of: scales, marks and text as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from danlu.report.words import Text

__all__ = [
    "Linear",
    "circle",
    "clip",
    "join",
    "line",
    "n_columns",
    "path",
    "picture",
    "polyline",
    "rect",
    "text",
    "ticks",
]

WIDE = "ᄀ"
"""Characters from here on (Hangul, Chinese, Japanese, full-width) take two columns."""


@dataclass(frozen=True)
class Linear:
    """A linear scale: from values to places on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value stands."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, n: int) -> list[float]:
    """About ``n`` round values between two."""
    span = (high - low) or abs(high) or 1.0
    raw = span / max(n, 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def picture(width: float, height: float, parts: Iterable[Markup], label: Text) -> Markup:
    """A whole picture, as wide as its place allows and no smaller than can be read."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" style="max-width:{}px">{}</svg>').format(
        _n(width), _n(height), label.label, _n(width * 1.35), join(parts)
    )


def join(parts: Iterable[Markup]) -> Markup:
    """Parts one after the other."""
    return Markup("").join(parts)


def text(x: float, y: float, content: Text | str, style: str = "", anchor: str = "start") -> Markup:
    """Text as text. What is no :class:`Text` is a number or came with the data."""
    if isinstance(content, Text):
        return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
            _n(x), _n(y), style, anchor, content.svg
        )
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}" translate="no">{}</text>').format(
        _n(x), _n(y), style, anchor, content
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_n(x1), _n(y1), _n(x2), _n(y2), style)


def rect(x: float, y: float, width: float, height: float, style: str, *, note: str = "", opacity: float = 1) -> Markup:
    """A rectangle, with a note for whoever points at it."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}" rx="1.5"{}>{}</rect>').format(
        _n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), style, _opacity(opacity), _note(note)
    )


def circle(x: float, y: float, radius: float, style: str, note: str = "") -> Markup:
    """A dot, with a note for whoever points at it."""
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}">{}</circle>').format(
        _n(x), _n(y), _n(radius), style, _note(note)
    )


def path(commands: str, style: str, note: str = "") -> Markup:
    """An outline."""
    return Markup('<path d="{}" class="{}">{}</path>').format(commands, style, _note(note))


def polyline(points: Sequence[tuple[float, float]], style: str) -> Markup:
    """A line through points."""
    return Markup('<polyline points="{}" class="{}"/>').format(" ".join(f"{_n(x)},{_n(y)}" for x, y in points), style)


def n_columns(words: str) -> int:
    """How many columns a name takes."""
    return sum(2 if character >= WIDE else 1 for character in words)


def clip(words: str, most: int) -> str:
    """The beginning of a name, cut so that it takes at most so many columns."""
    used, kept = 0, ""
    for character in words:
        used += n_columns(character)
        if used > most:
            return kept.rstrip() + "…"
        kept += character
    return kept


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _note(note: str) -> Markup:
    return Markup('<title translate="no">{}</title>').format(note) if note else Markup("")


def _opacity(value: float) -> Markup:
    return Markup(' fill-opacity="{:.2f}"').format(value) if value < 1 else Markup("")
