"""As much of JSON Schema (2020-12) as the recipe's schema uses; a keyword that it does not know is an error."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["mistakes"]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
_SAYS_NOTHING = {"title", "description", "default", "$schema", "$defs"}


def mistakes(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with a value, each with its place; none where it is fine."""
    return _mistakes(value, schema, schema, "recipe")


def _mistakes(value: Any, schema: Any, root: dict[str, Any], place: str) -> list[str]:
    if isinstance(schema, bool):
        return [] if schema else [f"{place} may not be there"]
    found: list[str] = []
    for keyword, wanted in schema.items():
        found += _keyword(value, keyword, wanted, (schema, root, place))
    return found


def _keyword(value: Any, keyword: str, wanted: Any, around: tuple[Any, dict[str, Any], str]) -> list[str]:
    schema, root, place = around
    if keyword in _SAYS_NOTHING:
        return []
    if keyword == "$ref":
        return _mistakes(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, place)
    if keyword in ("anyOf", "oneOf", "allOf"):
        found = [_mistakes(value, each, root, place) for each in wanted]
        n_right = sum(not each for each in found)
        fine = {"anyOf": n_right > 0, "oneOf": n_right == 1, "allOf": n_right == len(wanted)}[keyword]
        return [] if fine else [f"{place} fits {n_right} of {len(wanted)} alternatives", *min(found, key=len)]
    if keyword in ("type", "const", "enum"):
        return [] if _is(value, keyword, wanted) else [f"{place} is {value!r}: {keyword} {wanted!r}"]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if keyword == "required":
            return [f"{place}.{name} is missing" for name in wanted if name not in value]
        if keyword == "properties":
            parts = ((name, each) for name, each in value.items() if name in wanted)
            return [wrong for name, each in parts for wrong in _mistakes(each, wanted[name], root, f"{place}.{name}")]
        if keyword == "additionalProperties":
            others = ((name, each) for name, each in value.items() if name not in known)
            return [wrong for name, each in others for wrong in _mistakes(each, wanted, root, f"{place}.{name}")]
    if isinstance(value, list) and keyword in ("items", "prefixItems"):
        kinds = wanted if keyword == "prefixItems" else [wanted] * len(value)
        pairs = enumerate(zip(value, kinds, strict=False))
        return [wrong for n, (each, kind) in pairs for wrong in _mistakes(each, kind, root, f"{place}[{n}]")]
    return [] if _within(value, keyword, wanted) else [f"{place} is {value!r}: {keyword} {wanted}"]


def _is(value: Any, keyword: str, wanted: Any) -> bool:
    if keyword == "const":
        return bool(value == wanted)
    if keyword == "enum":
        return value in wanted
    return isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))


def _within(value: Any, keyword: str, wanted: Any) -> bool:
    """Limits; each is about one type, and says nothing of the others."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fine = {
        "minimum": lambda: not number or value >= wanted,
        "maximum": lambda: not number or value <= wanted,
        "exclusiveMinimum": lambda: not number or value > wanted,
        "exclusiveMaximum": lambda: not number or value < wanted,
        "minItems": lambda: not isinstance(value, list) or len(value) >= wanted,
        "maxItems": lambda: not isinstance(value, list) or len(value) <= wanted,
        "pattern": lambda: not isinstance(value, str) or re.search(wanted, value) is not None,
        "required": lambda: True,
        "properties": lambda: True,
        "additionalProperties": lambda: True,
        "items": lambda: True,
        "prefixItems": lambda: True,
    }
    return bool(fine[keyword]())
