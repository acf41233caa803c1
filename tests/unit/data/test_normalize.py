from __future__ import annotations

import hashlib
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.normalize import key_digests, normal_key, normal_keys, normalize_text, normalize_texts

ORDINARY = st.text(alphabet=st.sampled_from("很好书,。！ａＢ１１ \t\n\u3000\u200bzÉé①.x"), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  ＡＢＣ１２３，！ ", "ABC123,!"),
        ("a\u3000 \tb", "a b"),
        ("a \r\n \n b\u2028c", "a\nb\nc"),
        ("\ufeff很\u200b好\u00ad\x00\x07", "很好"),
        ("e\u0301", "é"),
        ("", ""),
    ],
)
def test_one_form(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


def test_the_form_is_a_choice() -> None:
    assert normalize_text("Ａe\u0301", "nfc") == "Ａé"
    assert normalize_text("Ａe\u0301", "none") == "Ａe\u0301"


@given(st.text(max_size=40))
def test_no_control_character_survives_and_ends_are_trimmed(text: str) -> None:
    result = normalize_text(text)
    assert not [c for c in result if unicodedata.category(c) == "Cc" and c != "\n"]
    assert result == result.strip()
    assert "  " not in result
    assert "\n\n" not in result


@given(ORDINARY)
def test_normalising_again_changes_nothing_and_keeps_the_key(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert normal_key(once) == normal_key(text)


@given(ORDINARY)
def test_key_is_what_python_makes_of_it(text: str) -> None:
    bare = text.replace("\u200b", "")
    assert normal_key(text) == "".join(unicodedata.normalize("NFKC", bare).lower().split())


def test_key_keeps_punctuation_and_loses_case_width_and_space() -> None:
    assert normal_key("Ｔhink Pad\n好！") == normal_key("thinkpad好!")
    assert normal_key("1.5") != normal_key("15")


def test_batches_keep_nulls_and_digests_are_sha256() -> None:
    texts = pa.array(["a B", None])
    assert normalize_texts(texts).to_pylist() == ["a B", None]
    keys = normal_keys(texts)
    assert keys.to_pylist() == ["ab", None]
    assert key_digests(keys).to_pylist() == [hashlib.sha256(b"ab").digest(), None]


@given(ORDINARY)
def test_white_space_may_be_kept(text: str) -> None:
    kept = normalize_texts(pa.array([text]), "nfc", "keep")[0].as_py()
    assert kept == unicodedata.normalize("NFC", text.replace("\u200b", ""))
    assert normal_key(kept) == normal_key(text)
