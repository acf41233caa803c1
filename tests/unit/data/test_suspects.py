"""A few texts are cleaned by shorter ways than many; the result is the same, whatever the characters."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.encoding import repair_texts
from danlu.data.normalize import Form, normalize_texts
from danlu.data.pii import mask_texts
from danlu.data.suspects import FEW, suspects

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
TEXTS = st.lists(
    st.text(
        alphabet=st.sampled_from("很好,。！Ａé \t\n\u3000\u200b\u00a0\u00b4\ufdfa京A0123456789@.-涓ä½å¥½"), max_size=9
    ),
    min_size=1,
    max_size=4,
)


def _as_many(texts: list[str]) -> pa.Array:
    return pa.array([*texts, *[""] * FEW], pa.string())


@pytest.mark.parametrize("form", ["nfkc", "nfc", "none"])
def test_every_character_between_letters_becomes_the_same_among_few_as_among_many(form: Form) -> None:
    texts = pa.array([f"a{character}b {character}" for character in CHARACTERS], pa.string())
    many = normalize_texts(texts, form)
    suspicious = [
        # What Python calls printable and Arrow changes all the same would be missed: only printable texts can be.
        (text, found)
        for text, found in zip(texts.to_pylist(), many.to_pylist(), strict=True)
        if text.isprintable() and found != text
    ]
    for start in range(0, len(suspicious), FEW):
        part = suspicious[start : start + FEW]
        few = normalize_texts(pa.array([text for text, _ in part], pa.string()), form).to_pylist()
        assert few == [found for _, found in part]


@given(TEXTS)
def test_few_texts_become_what_they_become_among_many(texts: list[str]) -> None:
    few, many = pa.array(texts, pa.string()), _as_many(texts)
    n = len(texts)
    assert normalize_texts(few).to_pylist() == normalize_texts(many).to_pylist()[:n]
    for function in (repair_texts, mask_texts):
        for of_few, of_many in zip(function(few), function(many), strict=True):
            assert of_few.to_pylist() == of_many.to_pylist()[:n]


def test_what_is_found_in_nothing_and_in_the_last_place() -> None:
    for filling in (0, FEW):
        texts = pa.array([None, "a1", *[""] * filling, "b2"], pa.string())
        assert suspects(texts, "[0-9]").nonzero()[0].tolist() == [1, filling + 2]
