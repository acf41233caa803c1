"""Words in two languages, and how numbers are written: every sentence of a page is made here or of these."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

__all__ = [
    "Noun",
    "Text",
    "code",
    "decimal",
    "duration",
    "exact_p",
    "integer",
    "interval",
    "markdown",
    "marked",
    "milliseconds",
    "p_value",
    "percent",
    "points",
    "scientific",
    "short",
    "signed",
    "significant",
    "t",
    "typed",
    "unmarked",
]

_CODE = re.compile('<code translate="no">(.*?)</code>')
_MARKED = re.compile('<span translate="no">(.*?)</span>')
_BOLD = re.compile("<b>(.*?)</b>")
_ACTIVE = re.compile(r"[\\`*_\[\]|#~<>&\"']")
_SEAM = "\0"
_TWO_SCRIPTS = re.compile("(?<=[A-Za-z0-9])\0+(?=[一-鿿])|(?<=[一-鿿])\0+(?=[A-Za-z0-9])")
"""Where a Chinese word and one in Latin letters meet, which a space keeps apart."""
_NONE = "–"
_MINUS = "−"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Text:
    """A phrase in English and in Chinese, both HTML; the page holds both and shows one.

    Attributes:
        en: English.
        zh: Chinese.
    """

    en: Markup
    zh: Markup

    def __html__(self) -> str:
        """Both, for a page."""
        return f'<span class="en" lang="en">{self.en}</span><span class="zh" lang="zh-CN">{self.zh}</span>'

    @property
    def svg(self) -> Markup:
        """Both, for the inside of a ``<text>`` of a picture."""
        return Markup('<tspan class="en">{}</tspan><tspan class="zh">{}</tspan>').format(self.en, self.zh)

    @property
    def label(self) -> str:
        """Both as plain text, for an attribute that a screen reader reads."""
        return f"{self.en.striptags()} · {self.zh.striptags()}"


def t(en: str, zh: str, **values: Any) -> Text:
    """A phrase in both languages.

    Args:
        en: English, as trusted HTML with ``{name}`` where a value goes.
        zh: Chinese, likewise.
        values: What goes there: escaped, unless it is markup; a :class:`Text` gives each language its own words.
    """

    def fill(template: str, choose: Callable[[Text], Markup]) -> Markup:
        chosen = {name: choose(value) if isinstance(value, Text) else value for name, value in values.items()}
        return Markup(template).format(**chosen)  # noqa: S704 (the templates are our own; values are escaped)

    chinese = fill(zh, lambda text: _SEAM + text.zh + _SEAM)
    return Text(fill(en, lambda text: text.en), Markup(_TWO_SCRIPTS.sub(" ", chinese).replace(_SEAM, "")))  # noqa: S704


@dataclass(frozen=True)
class Noun:
    """What records are called.

    Attributes:
        singular: In English.
        plural: In English.
        counter: The Chinese word between a number and the noun.
        chinese: In Chinese.
    """

    singular: str
    plural: str
    counter: str
    chinese: str

    @property
    def name(self) -> Text:
        """``text``."""
        return t(self.singular, self.chinese)

    @property
    def one(self) -> Text:
        """``text``; in Chinese with its counter, for "each"."""
        return t(self.singular, self.counter + self.chinese)

    @property
    def many(self) -> Text:
        """``texts``."""
        return t(self.plural, self.chinese)

    def counted(self, n: float, which: Text | str = "") -> Text:
        """``1,234 texts``, with a word before the noun or without."""
        values = {"n": integer(n), "which": which, "many": self.many, "counter": self.counter}
        return t("{n} {which}{many}", "{n} {counter}{which}{many}", **values)

    def tested(self, n: float) -> Text:
        """``1,234 test texts``."""
        return self.counted(n, t("test ", "测试"))


def typed(text: str, n_chars: int = 24) -> str:
    """The beginning of a text as one word of a shell's command line."""
    return "'" + " ".join(text.replace("'", "’").split())[:n_chars] + "'"


def code(value: object) -> Markup:
    """A name, a command or a value: the same in every language."""
    return Markup('<code translate="no">{}</code>').format(value)


def marked(value: object) -> Markup:
    """Words that came with the data: shown as they are, in no language of ours."""
    return Markup('<span translate="no">{}</span>').format(value)


def markdown(phrase: Markup) -> str:
    """A phrase of a :class:`Text` as Markdown; what its values hold stays escaped."""
    words = _CODE.sub(r"`\1`", str(phrase))
    words = _MARKED.sub(lambda found: unmarked(Markup(found[1]).unescape()), words)  # noqa: S704 (escaped by `t`)
    return _BOLD.sub(r"**\1**", words)


def unmarked(value: object) -> str:
    """A value inside Markdown: one line, with nothing that Markdown or HTML would act on."""
    return _ACTIVE.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(value).split()))


def integer(value: float | None) -> str:
    """35123 -> ``35,123``."""
    return _NONE if value is None else f"{value:,.0f}"


def short(value: float) -> str:
    """1234567 -> ``1.23M``."""
    for size, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return integer(value)


def percent(share: float | None, digits: int = 1) -> str:
    """0.8693 -> ``86.9%``; what is not quite all or nothing never reads as if it were."""
    if share is None:
        return _NONE
    if 0 < share < 0.5 * 10 ** -(digits + 2):
        return f"<{10.0**-digits:.{digits}f}%"
    return f"{100 * share:.{digits}f}%"


def points(difference: float | None) -> str:
    """0.0172 -> ``+1.7``, in percentage points."""
    if difference is None:
        return _NONE
    written = f"{100 * difference:+.1f}"
    return "0.0" if written in ("+0.0", "-0.0") else written.replace("-", _MINUS)


def decimal(value: float | None, digits: int = 3) -> str:
    """0.93812 -> ``0.938``."""
    return _NONE if value is None else f"{value:.{digits}f}".replace("-", _MINUS)


def signed(difference: float | None, digits: int = 3) -> str:
    """0.0261 -> ``+0.026``; a difference in the metric's own unit."""
    if difference is None:
        return _NONE
    written = f"{difference:+.{digits}f}"
    return written[1:] if not float(written) else written.replace("-", _MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """48.251 -> ``48.3``, 3512.3 -> ``3,512``: digits that count, for what may be of any size."""
    if value is None:
        return _NONE
    if value >= 1e18:
        return f"1e{math.floor(math.log10(value))}"
    if value >= 1e4:
        return short(value)
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(value))) if value > 0 else digits - 1}f}"


def scientific(value: float) -> str:
    """4.8e-07 -> ``4.8 × 10⁻⁷``; 0 as it is."""
    if not value:
        return "0"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(exponent)).translate(_RAISED)}"


def exact_p(p: float) -> str:
    """A p-value that may be very small: ``0.49``, ``1.0 × 10⁻¹²``."""
    return significant(p, 2) if p >= 1e-3 else scientific(p)


def interval(low: float | None, high: float | None, write: Callable[[float | None], str] = percent) -> str:
    """``[85.5, 88.2]``; units are left to the value that it stands beside."""
    if low is None or high is None:
        return ""
    return f"[{write(low)}, {write(high)}]".replace("%", "")


def p_value(p: float | None) -> str:
    """``= 0.0031``, or ``< 0.0001``."""
    if p is None:
        return f"= {_NONE}"
    if p < 1e-4:
        return "< 0.0001"
    return f"= {p:#.2g}" if p < 0.1 else f"= {p:.2f}"


def milliseconds(value: float) -> str:
    """``4.1 ms``; two digits that count."""
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def duration(seconds: float) -> str:
    """``41 s``, ``3 min 32 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
