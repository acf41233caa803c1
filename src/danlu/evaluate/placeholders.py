"""What a translation must carry over unchanged: `%(name)s`, `{0}`, `<b>`, `&nbsp;`, `${var}`, addresses and the like.

    kind         is one                                       is none                kept in en-zh-ui
    printf       %s  %d  %.3f  %(name)s  %1$s  %1  %%         100% sure, 50%off      99.8% of 2,199
    brace        {}  {0}  {name}  {a.b[0]}  {name!r:>10}      {"a": 1}, {a: B}       99.6% of 549
    tag          <b>  </b>  <br/>  <a href="%(url)s">         a < b, x<y and y>z     95.8% of 360
    accelerator  &File  R&emove                               Q&A, R & D             95.0% of 40
    url          http://127.0.0.1/a                           http://                14 of 16
    dollar       ${name}  ${a || b}                           $5                     16 of 16
    entity       &amp;  &nbsp;  &#8212;                       AT&T;                  9 of 11
    role         :ref:  :py:func:  :widths:                   10:30:00               8 of 10
    template     {{ name }}  {{ name|filter }}                {{"a": 1}}             9 of 9

The last column is the share of human translations that keep them, of the 25,258 different pairs of that sample: the
ceiling of any model. In all, 99.0% of the 2,997 pairs that have any keep them all. Other marks were tried and left out
because translators do not keep them or the sample has none: text in backticks (57% of 72), line breaks (73% of 221),
`_File` (none).

One placeholder never lies in another: the address of `<a href="...">` is part of the tag. In a text for Python's
`str.format` doubled braces are literal braces; `{{ name }}` still counts, because it either is a variable of a template
(Django, Jinja, Mustache) or shows one to the reader, and must survive in both cases.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

__all__ = ["KINDS", "Placeholder", "find_placeholders", "keeps_placeholders", "kinds_kept", "placeholders"]

_ADDRESS = r"[\w/?#\[\]@!$&'()*+,;:=%{}.~-]"
_ATTRIBUTE = r"""\s+[\w:@.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>=]+)"""
# Without printf's flag " ": "100% sure" would hold a "% s".
_CONVERSION = r"[#0+-]*(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh?|ll?|[jztLq])?[diouxXeEfFgGcrsa]"
_NO_NUMBER = r"(?:(?<![0-9])|(?<=%[0-9])|(?<=%[0-9]{2}))"
_PATTERNS = {
    "url": rf"(?:https?|ftp)://{_ADDRESS}*[\w/#=%}}~-]",
    "tag": rf"</?[A-Za-z][\w:.-]*(?:{_ATTRIBUTE})*\s*/?>",
    "entity": r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|\#\d{1,7}|\#[xX][0-9A-Fa-f]{1,6});",
    "template": r"\{\{\s*[A-Za-z_][\w.]*\s*(?:\|[^{}]*)?\}\}",
    "dollar": r"\$\{[^{}]+\}",
    "brace": r"\{(?:\w+(?:\.\w+|\[\w+\])*)?(?:![rsa])?(?::(?:[^{}]?[<>=^])?[^{}\s]*)?\}",
    "printf": rf"%%|%\([\w.\- ]+\){_CONVERSION}|{_NO_NUMBER}%(?:\d+\$)?(?:{_CONVERSION}|[1-9]\d?)",
    "role": r"(?<![\w:]):[A-Za-z][\w+.-]*(?::[A-Za-z][\w+.-]*)*:(?![\w:])",
    "accelerator": r"(?<![A-Za-z0-9&])&[A-Za-z0-9]|(?<=[A-Za-z])&[a-z]",
}
# ASCII: a Chinese character ends a word of a program, as a space does.
_ANY = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()), re.ASCII)

KINDS = tuple(_PATTERNS)
"""Every kind of placeholder, in the order in which they are tried."""


class Placeholder(NamedTuple):
    """One placeholder of a text."""

    kind: str
    text: str


def find_placeholders(text: str) -> list[Placeholder]:
    """The placeholders of a text with their kinds, in the order of the text.

    An accelerator's letter is given as a capital, because translations write `(&F)` for `&file`.
    """
    found = [Placeholder(str(match.lastgroup), match[0]) for match in _ANY.finditer(text)]
    return [item._replace(text=item.text.upper()) if item.kind == "accelerator" else item for item in found]


def placeholders(text: str) -> list[str]:
    """The placeholders of a text, in its order; the same one as often as it occurs."""
    return [item.text for item in find_placeholders(text)]


def keeps_placeholders(source: str, translation: str) -> bool:
    """Whether a translation has the source's placeholders, each as often, in any order, and no other."""
    return Counter(placeholders(source)) == Counter(placeholders(translation))


def kinds_kept(source: str, translation: str) -> dict[str, bool]:
    """For each kind that the source has: whether the translation has just the same of that kind."""
    wanted, found = Counter(find_placeholders(source)), Counter(find_placeholders(translation))

    def of(kind: str, counted: Counter[Placeholder]) -> dict[str, int]:
        return {item.text: n for item, n in counted.items() if item.kind == kind}

    return {kind: of(kind, wanted) == of(kind, found) for kind in KINDS if of(kind, wanted)}
