"""Chinese in one script: traditional characters to simplified ones, or the other way round.

A character may stand for several of the other script (乾 is 乾 in 乾坤 and 干 in 乾燥), so whole phrases are looked up
before single characters. Tables and search are OpenCC's (Open Chinese Convert), an optional package.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import pyarrow as pa

from danlu.core.errors import UsageError

__all__ = ["Script", "convert_texts"]

Script = Literal["keep", "simplified", "traditional"]

_TABLES = {"simplified": "t2s", "traditional": "s2t"}


def convert_texts(texts: pa.Array, script: Script) -> pa.Array:
    """Texts in one script.

    Args:
        texts: Strings; nulls stay null.
        script: Which; ``keep`` leaves them as they are.

    Raises:
        UsageError: The package that knows the scripts is not installed.
    """
    if script == "keep":
        return texts
    convert = _converter(script)
    return pa.array([None if text is None else convert(text) for text in texts.to_pylist()], texts.type)


@functools.cache
def _converter(script: str) -> Callable[[str], str]:
    try:
        from opencc import OpenCC
    except ImportError as error:
        raise UsageError(
            "the package opencc is not installed", where="data.clean.script", advice="pip install 'danlu[zh]'"
        ) from error
    converter: Callable[[str], str] = OpenCC(_TABLES[script]).convert
    return converter
