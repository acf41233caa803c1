from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from danlu.data.filters import Language, Verdicts, garbage, language, length, measure, pairs


def reasons(verdicts: Verdicts, n: int) -> list[str | None]:
    found: list[str | None] = [None] * n
    for drop, reason, _ in reversed(verdicts):
        for row in np.flatnonzero(drop).tolist():
            found[row] = reason
    return found


@pytest.mark.parametrize(
    "text",
    [
        "好", "很好", "666", "5分", "ok", "一般////////////////////////", "厚!厚!厚!厚!厚!厚!厚!", "哈哈哈哈哈",
        "整体性价比很不错" + "!" * 120, "还没有收到书！！！还没有收到书1",
        "Very good 👍👍", "装XP很............费劲!",
    ],
)  # fmt: skip
def test_honest_reviews_stay(text: str) -> None:
    assert reasons(garbage(measure(pa.array([text]))), 1) == [None]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_text"),
        ("。。。", "no_text"),
        (":)", "no_text"),
        ("\ue12e\ue084\ue616丁砰", "broken"),
        ("质量\ufffd\ufffd很", "broken"),
        ("=-" * 60 + "目录", "symbols"),
        ("好" * 120, "repetition"),
        ("\n".join(["免费注册网站导航宾馆索引服务说明关于携程"] * 6), "repeated_lines"),
    ],
)
def test_garbage_is_named(text: str, reason: str) -> None:
    assert reasons(garbage(measure(pa.array([text]))), 1) == [reason]


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        ("质量很好", {"zh"}),
        ("ThinkPad T400 的键盘手感很不错", {"zh"}),
        ("the quality is very good", {"en"}),
        ("この本はとても良かったです", set()),
        ("очень хорошо", set()),
        ("666 :)", {"zh", "en"}),
        ("書寫得很好，內容豐富", {"zh"}),
    ],
)
def test_languages(text: str, languages: set[Language]) -> None:
    measures = measure(pa.array([text]))
    names: tuple[Language, ...] = ("zh", "en")
    assert {name for name in names if reasons(language(measures, [name]), 1) == [None]} == languages
    assert language(measures, []) == []


def test_length_limits_are_inclusive() -> None:
    measures = measure(pa.array(["", "ab", "abc", "好好好好", "abcde"]))
    assert reasons(length(measures, 3, 4), 5) == ["empty", "too_short", None, None, "too_long"]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=150), min_size=1, max_size=5))
def test_measures_against_counting(texts: list[str]) -> None:
    measures = measure(pa.array(texts, pa.string()))
    assert measures.n_chars.tolist() == [len(text) for text in texts]
    assert measures.counts.sum(axis=1).tolist() == [len(text) for text in texts]
    for text, bits in zip(texts, measures.entropy.tolist(), strict=True):
        if len(text) >= 100:
            assert bits == pytest.approx(float(entropy(list(Counter(text).values()), base=2)), abs=1e-9)
        else:
            assert bits == np.inf


def test_pairs_that_are_no_translation() -> None:
    texts = pa.array(["Save", "GLib", "Authentication", "Select the user that will take over", ""])
    targets = pa.array(["保存", "GLib", "认证", "。", "空"])
    assert reasons(pairs(texts, targets, None), 5) == [None, "untranslated", None, None, None]
    found = pairs(texts, targets, 6.0)
    assert reasons(found, 5) == [None, "untranslated", None, "length_ratio", None]
    # In bytes of UTF-8: 4 and 6, 4 and 4, 14 and 6, 35 and 3; nothing counts as one byte.
    assert found[1][2].tolist() == pytest.approx([6 / 4, 1, 14 / 6, 35 / 3, 3])
