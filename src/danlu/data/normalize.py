"""One form for every text, and one key for every identity.

``normalize_texts`` gives what a model is trained on: composed characters, nothing invisible, folded white space.
``normal_keys`` goes further and decides which texts are *the same*: it folds case and removes all white space.
Punctuation stays in the key, because "1.5" and "15", or "C++" and "C", are not the same text; texts that differ by
punctuation alone are near-duplicates of Jaccard similarity 1 instead (see ``danlu.data.shingles``).

Everything runs on Arrow arrays, a batch at a time; nulls stay null.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from danlu.data.suspects import FEW

__all__ = ["Form", "Whitespace", "key_digests", "normal_key", "normal_keys", "normalize_text", "normalize_texts"]

Form = Literal["nfkc", "nfc", "none"]
Whitespace = Literal["fold", "keep"]

_INVISIBLE = r"[\x00-\x08\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}\p{Cf}]+"
_BREAK = r"\n\r\x0b\x0c\x{85}\p{Zl}\p{Zp}"
_LINE_BREAK = rf"[\t\p{{Zs}}{_BREAK}]*[{_BREAK}][\t\p{{Zs}}{_BREAK}]*"
_SPACE = r"[\t\p{Zs}]+"
_NOT_IN_KEY = r"[\s\x0b\x{85}\p{Z}]+"


def _replace(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)


def normalize_texts(texts: pa.Array, form: Form = "nfkc", whitespace: Whitespace = "fold") -> pa.Array:
    r"""Texts in one form.

    Control and format characters (zero-width, direction marks, soft hyphens, byte-order marks) go.

    Args:
        texts: Strings.
        form: ``nfkc`` also turns full-width letters, digits and punctuation into the usual ones; ``nfc`` only composes
            accents; ``none`` leaves the characters as they are.
        whitespace: ``fold`` makes a run of white space that holds a line break one ``\n`` and any other run one space,
            and trims the ends; ``keep`` leaves it as it is (but ``nfkc`` turns every wide or hard space into a space).

    Returns:
        Strings, as many, nulls where they were.
    """
    if not _are_plain(texts):
        texts = _replace(texts, _INVISIBLE, "")
    if form != "none":
        texts = pc.utf8_normalize(texts, form=form.upper())
    if whitespace == "keep" or (_are_plain(texts) and _are_folded(texts)):
        return texts
    texts = _replace(_replace(texts, _LINE_BREAK, "\n"), _SPACE, " ")
    return pc.utf8_trim_whitespace(texts)


def _are_plain(texts: pa.Array) -> bool:
    """Whether texts are few, and hold neither what is invisible nor white space but spaces: no pattern has to look."""
    return len(texts) <= FEW and all(text is None or text.isprintable() for text in texts.to_pylist())


def _are_folded(texts: pa.Array) -> bool:
    return all(text is None or ("  " not in text and text == text.strip(" ")) for text in texts.to_pylist())


def normal_keys(texts: pa.Array) -> pa.Array:
    """The form of each text that decides identity: NFKC, lower case, no white space, nothing invisible.

    Args:
        texts: Strings, normalised or not.

    Returns:
        Strings, as many, nulls where they were.
    """
    texts = pc.utf8_normalize(_replace(texts, _INVISIBLE, ""), form="NFKC")
    return _replace(pc.utf8_lower(texts), _NOT_IN_KEY, "")


def key_digests(keys: pa.Array) -> pa.Array:
    """SHA-256 of each key's UTF-8 bytes, as 32 bytes; nulls stay null."""
    digests = [None if key is None else hashlib.sha256(key.encode()).digest() for key in keys.to_pylist()]
    return pa.array(digests, type=pa.binary(32))


def normalize_text(text: str, form: Form = "nfkc") -> str:
    """``normalize_texts`` of one text."""
    return str(normalize_texts(pa.array([text], pa.string()), form)[0].as_py())


def normal_key(text: str) -> str:
    """``normal_keys`` of one text."""
    return str(normal_keys(pa.array([text], pa.string()))[0].as_py())
