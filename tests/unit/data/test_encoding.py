from __future__ import annotations

import codecs

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import DataError
from danlu.data.encoding import decode, decode_line, detect_encoding, repair_mojibake, repair_texts

CHINESE = "这本书写得很好，内容丰富，我看了一天就看完了。\n质量不错，下次还会再来的！\n" * 5
TRADITIONAL = "這本書寫得很好，內容豐富，我看了一天就看完了。\n質量不錯，下次還會再來的！\n" * 5


@pytest.mark.parametrize("text", [CHINESE, TRADITIONAL, "plain ascii\n", "", "很好"])
@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("gb18030", "gb18030"), ("gbk", "gb18030")],
)
def test_what_was_encoded_is_decoded(text: str, encoding: str, name: str) -> None:
    raw = text.encode(encoding)
    decoded, found = decode(raw)
    assert decoded == text
    assert found == ("utf-8" if text.isascii() and encoding.startswith("gb") else name)


def test_utf16_big_endian_is_told_by_its_mark() -> None:
    assert decode(codecs.BOM_UTF16_BE + CHINESE.encode("utf-16-be")) == (CHINESE, "utf-16")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("cut", range(1, 8))
def test_a_sample_may_end_inside_a_character(encoding: str, cut: int) -> None:
    assert detect_encoding(CHINESE.encode(encoding)[:-cut]) == encoding
    assert detect_encoding(CHINESE.replace("\n", "").encode(encoding)[:-cut]) == encoding


def test_a_few_bad_lines_do_not_change_the_encoding() -> None:
    lines = [line.encode() for line in CHINESE.splitlines()]
    lines[3] = b"\xff\xfe\xfa broken"
    lines[5] = "质量不错".encode("gbk")
    assert detect_encoding(b"\n".join(lines)) == "utf-8"
    decoded = [decode_line(line, "utf-8") for line in lines]
    assert [i for i, text in enumerate(decoded) if text is None] == [3, 5]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("déjà vu, très bien, élève, où est la bibliothèque ? Ça va. " * 4, "latin-1"),
        ("こんにちは、これは日本語のテキストです。とても良い品質でした。" * 4, "shift_jis"),
        ("這個產品的品質非常好，我很喜歡，推薦給大家。" * 4, "big5"),
    ],
)
def test_other_encodings_are_not_taken_for_gb18030(text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    assert detect_encoding(raw) == "utf-8"
    with pytest.raises(DataError, match="not valid utf-8"):
        decode(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    encoding = detect_encoding(raw)
    for line in raw.splitlines():
        text = decode_line(line, encoding)
        assert text is None or isinstance(text, str)


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("été à la plage — “déjà vu 5 €", "cp1252"),
        ("质量很好，我很喜欢！", "latin-1"),
        ("编码错误", "gb18030"),
        ("收到的书有断页现象，很失望啊", "gb18030"),
    ],
)
def test_mojibake_is_repaired(text: str, read_as: str) -> None:
    broken = text.encode("utf-8").decode(read_as)
    assert broken != text
    assert repair_mojibake(broken) == text
    repaired, flags = repair_texts(pa.array([text, broken, None, "fine"]))
    assert repaired.to_pylist() == [text, text, None, "fine"]
    assert flags.to_pylist() == [False, True, False, False]


@pytest.mark.parametrize(
    "text", ["联通", "很好", "CAFÉ«X»", "Größe", "naïve", "质量很好，我很喜欢！", "涓涓细流", "¿Qué? £5", ""]
)
def test_honest_text_is_not_repaired(text: str) -> None:
    assert repair_mojibake(text) is None


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=8, max_size=40))
def test_chinese_is_never_taken_for_mojibake(text: str) -> None:
    assert repair_mojibake(text) is None


@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=6))
def test_a_batch_is_repaired_as_its_texts_are(texts: list[str | None]) -> None:
    repaired, _ = repair_texts(pa.array(texts, pa.string()))
    expected = [None if t is None else (repair_mojibake(t) or t) for t in texts]
    assert repaired.to_pylist() == expected
