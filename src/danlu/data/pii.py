"""Personal data in Chinese and English text: found, checked where it carries a check, and masked.

Rules end where digits and ASCII letters end, not at a word boundary: in "电话13800138000" there is none, since a
Chinese character counts as a letter. Digits inside a longer run of digits are never touched. Full-width digits are
found once the text is in NFKC, so normalise first.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from danlu.data.suspects import suspects

__all__ = ["KINDS", "count_kinds", "mask", "mask_texts"]

_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PLACES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼" + "滬雲遼魯蘇贛陝閩貴粵寧瓊"


def _digits(found: str) -> str:
    return re.sub(r"[ -]", "", found)


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        datetime.date(int(year), int(month), int(day))
    except ValueError:
        return False
    return True


def _is_resident_18(found: str) -> bool:
    """GB 11643-1999: a province, a date of birth, and a check digit modulo 11."""
    number = _digits(found).upper()
    check = "10X98765432"[sum(w * int(d) for w, d in zip(_WEIGHTS, number[:17], strict=True)) % 11]
    return (
        _PROVINCES.match(number) is not None
        and _is_date(number[6:10], number[10:12], number[12:14])
        and number[17] == check
    )


def _is_resident_15(found: str) -> bool:
    """The form before 1999: a two-digit year of the twentieth century and no check digit."""
    return _PROVINCES.match(found) is not None and _is_date("19" + found[6:8], found[8:10], found[10:12])


def _is_card(found: str) -> bool:
    """ISO/IEC 7812: 16 to 19 digits, the last by Luhn's rule."""
    number = [int(digit) for digit in reversed(_digits(found))]
    doubled = [sum(divmod(2 * digit, 10)) for digit in number[1::2]]
    return 16 <= len(number) <= 19 and (sum(number[0::2]) + sum(doubled)) % 10 == 0 and len(set(number)) > 1


def _has_three_digits(found: str) -> bool:
    return sum(char.isdigit() for char in found) >= 3


def _always(_: str) -> bool:
    return True


@dataclass(frozen=True)
class _Rule:
    kind: str
    token: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = _always


_ALONE = r"(?<![0-9])(?<!0\.)"  # nor the decimals of 0.13800138000
_NO_GROUP_BEFORE = r"(?<![0-9]-)"
_WORD = r"(?<![0-9A-Za-z])"
# Longest first: what one rule masks, the next no longer sees.
_RULES = (
    _Rule("email", "<email>", re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")),
    _Rule(
        "resident_id",
        "<id>",
        re.compile(
            _ALONE + r"[1-9][0-9]{5}[ -]?(?:18|19|20)[0-9]{6}[ -]?[0-9]{3}(?:[0-9](?![0-9])|[Xx](?![0-9A-Za-z]))"
        ),
        _is_resident_18,
    ),
    *(
        _Rule("bank_card", "<card>", re.compile(_ALONE + _NO_GROUP_BEFORE + digits + r"(?![0-9]|-[0-9])"), _is_card)
        for digits in (
            r"[2-69][0-9]{15,18}",
            r"[2-69][0-9]{3}(?:[ -][0-9]{4}){3}[ -]?[0-9]{1,3}",
            r"[2-69][0-9]{3}(?:[ -][0-9]{4}){3}",
        )
    ),
    _Rule("resident_id", "<id>", re.compile(_ALONE + r"[1-9][0-9]{14}(?![0-9])"), _is_resident_15),
    _Rule(
        "mobile",
        "<phone>",
        re.compile(_ALONE + r"(?:(?:\+|00)?86[ -]?)?1[3-9][0-9][ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9])"),
    ),
    _Rule(
        "landline",
        "<phone>",
        re.compile(
            _ALONE
            + _NO_GROUP_BEFORE
            + r"(?:(?:\+|00)86[ -]?\(?0?|\(?0)(?:10|2[0-9]|[3-9][0-9]{2})\)?[ -]?[2-8][0-9]{2,3}[ -]?[0-9]{4}"
            r"(?:[-转][0-9]{1,6})?(?![0-9])"
        ),
    ),
    _Rule(
        "landline",
        "<phone>",
        re.compile(
            _ALONE
            + _NO_GROUP_BEFORE
            + r"(?:\+?1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?![0-9]|-[0-9])"
        ),
    ),
    _Rule(
        "passport",
        "<passport>",
        re.compile(_WORD + r"(?:[EeGg][0-9]{8}|[Ee][A-HJ-NP-Za-hj-np-z][0-9]{7}|[DSPH][0-9]{8})(?![0-9A-Za-z])"),
    ),
    _Rule(
        "plate",
        "<plate>",
        re.compile(
            rf"[{_PLACES}][A-HJ-Z][·・•. -]?"
            r"(?:[DF][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[DF]|[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳])(?![0-9A-Za-z])"
        ),
        _has_three_digits,
    ),
)
KINDS = tuple(dict.fromkeys(rule.kind for rule in _RULES))
"""The kinds of personal data known here."""

# What every rule needs: texts without it are not looked at again.
_SUSPECT = rf"@|[0-9](?:[ .()·・•-]*[0-9]){{5}}|[{_PLACES}][A-HJ-Z]"


def mask(text: str) -> tuple[str, list[str]]:
    """Text with personal data replaced by tokens such as ``<phone>``.

    Args:
        text: A text, best in NFKC.

    Returns:
        The masked text, and the kind of each thing masked.
    """
    kinds: list[str] = []
    for rule in _RULES:

        def replace(match: re.Match[str], rule: _Rule = rule) -> str:
            if not rule.holds(match[0]):
                return match[0]
            kinds.append(rule.kind)
            return rule.token

        text = rule.pattern.sub(replace, text)
    return text, kinds


def mask_texts(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """``mask`` of a batch.

    Args:
        texts: Strings; nulls stay null.

    Returns:
        The masked texts, and for each the list of the kinds of what was masked.
    """
    masked = texts.to_pylist()
    kinds: list[list[str]] = [[] for _ in masked]
    for i in np.flatnonzero(suspects(texts, _SUSPECT)).tolist():
        masked[i], kinds[i] = mask(masked[i])
    return pa.array(masked, pa.string()), pa.array(kinds, pa.list_(pa.string()))


def count_kinds(kinds: pa.ChunkedArray) -> dict[str, int]:
    """How often each kind occurs, every kind listed."""
    counts = Counter(pc.list_flatten(kinds).to_pylist())
    return {kind: counts[kind] for kind in KINDS}
