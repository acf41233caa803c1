from __future__ import annotations

import hashlib
from functools import partial

import pyarrow as pa
import pytest
from pydantic import ValidationError

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig, clean_batch
from danlu.data.normalize import normal_key
from danlu.data.pool import alone, ordered_map

DEFAULT = CleanConfig()


def clean(
    texts: list[str | None], config: CleanConfig = DEFAULT, **columns: list[str | None]
) -> list[dict[str, object]]:
    data = {"source": [f"f:{i}" for i in range(len(texts))], "text": texts, **columns}
    schema = pa.schema([(name, pa.string()) for name in data])
    return list(clean_batch(pa.RecordBatch.from_pydict(data, schema=schema), config).to_pylist())


def test_every_reason_in_one_batch() -> None:
    texts = ["很好 ", None, "电话13800138000", "", "。。", "x" * 30, "bad", "Ã©tÃ©", "no label"]
    problems = [None, None, None, None, None, None, "undecodable", None, None]
    labels = ["a"] * 8 + [None]
    rows = clean(texts, CleanConfig(max_chars=20), problem=problems, label=labels, extra=list("abcdefghi"))
    assert [row["reason"] for row in rows] == [
        None, "missing_text", None, "empty", "no_text", "too_long", "undecodable", None, "missing_label",
    ]  # fmt: skip
    assert [row["text"] for row in rows][:3] == ["很好", None, "电话<phone>"]
    assert rows[7]["text"] == "été"
    assert [row["_repaired"] for row in rows] == [False] * 7 + [True, False]
    assert [row["extra"] for row in rows] == list("abcdefghi")
    assert rows[2]["_pii"] == ["mobile"]
    assert rows[5]["detail"] == "30"
    assert rows[0]["_digest"] == hashlib.sha256(normal_key("很好").encode()).digest()
    assert "problem" not in rows[0]


def test_personal_data_may_be_dropped_or_kept_and_never_reaches_the_dropped_file_in_clear() -> None:
    (dropped,) = clean(["电话13800138000"], CleanConfig(pii="drop"))
    assert (dropped["reason"], dropped["detail"], dropped["text"]) == ("pii", "mobile", "电话<phone>")
    (kept,) = clean(["电话13800138000"], CleanConfig(pii="keep"))
    assert (kept["reason"], kept["text"], kept["_pii"]) == (None, "电话13800138000", [])


def test_switches() -> None:
    assert clean(["Ã©"], CleanConfig(repair=False))[0]["text"] == "Ã©"
    assert clean(["。"], CleanConfig(garbage=False))[0]["reason"] is None
    assert clean(["hello"], CleanConfig(languages=("zh",)))[0]["reason"] == "language"
    with pytest.raises(ValidationError, match="no text would fit"):
        CleanConfig(min_chars=5, max_chars=4)


@pytest.mark.parametrize("name", ["id", "reason", "_digest", "_mine"])
def test_a_column_of_ours_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=rf"(?s){name}.*rename"):
        clean(["a"], **{name: ["b"]})


def test_the_pool_keeps_order_and_takes_slices() -> None:
    whole = pa.table({"source": [str(i) for i in range(4000)], "text": ["很好" * 50] * 4000}).to_batches(
        max_chunksize=40
    )
    assert whole[3].get_total_buffer_size() > 10 * alone(whole[3]).get_total_buffer_size()
    function = partial(clean_batch, config=CleanConfig())
    parts = list(ordered_map(function, whole, workers=2))
    assert parts == [function(batch) for batch in whole]
    assert list(ordered_map(function, [], workers=2)) == []


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("Hello %(name)s, you have %d new messages", "%(name)s，您有 %d 条新消息"),
        ("{0} of {total:,}", "共 {total:,} 项，第 {0} 项"),
        ("&File", "文件(&F)"),
        ("Tom &amp; Jerry &#169; &lt;b&gt;", "汤姆和杰瑞 &amp; &#169; &lt;b&gt;"),
        ('<a href="%s">more</a><br/>', '<a href="%s">更多</a><br/>'),
        ("Error: ", "错误： "),
        ("\n      So far %(n)s parts.\n    ", "\n      目前 %(n)s 个部件。\n    "),
        ("Two  spaces\tand a tab\r\n", "两个  空格\t和一个制表符\r\n"),
        ("[[HH:]MM:]ss[.uuuuuu]", "[[时:]分:]秒[.微秒]"),
        ("Ｆull width…", "全角（１）…"),
    ],
)
def test_a_message_of_a_program_keeps_every_character_that_matters(text: str, target: str) -> None:
    config = CleanConfig(normalize="nfc", whitespace="keep", max_length_ratio=6)
    (row,) = clean([text], config, target=[target])
    assert (row["text"], row["target"], row["reason"]) == (text, target, None)


def test_a_target_is_cleaned_as_its_text_is() -> None:
    texts = ["Call 13800138000", "nothing", "gone", "same", "long", "garbled", "marks"]
    targets = ["致电１３９００１３９０００ ", None, "\u200b", "same", "长" * 30, "\ufffd\ufffd字", "，。"]
    rows = clean(texts, CleanConfig(max_chars=20, languages=("en",)), target=targets)
    assert [row["reason"] for row in rows] == [
        None, "missing_target", "empty", "untranslated", "too_long", "broken", "no_text",
    ]  # fmt: skip
    assert (rows[0]["text"], rows[0]["target"]) == ("Call <phone>", "致电<phone>")
    assert rows[0]["_pii"] == ["mobile", "mobile"]
    assert rows[1]["target"] is None
    assert rows[0]["_target"] == hashlib.sha256(normal_key("致电<phone>").encode()).digest()
    (dropped,) = clean(["Call me"], CleanConfig(pii="drop"), target=["致电13800138000"])
    assert (dropped["reason"], dropped["detail"]) == ("pii", "mobile")
    (repaired,) = clean(["summer"], target=["Ã©tÃ©"])
    assert (repaired["target"], repaired["_repaired"]) == ("été", True)
