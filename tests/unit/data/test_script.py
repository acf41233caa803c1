from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from danlu.core.errors import UsageError
from danlu.data import script
from danlu.data.clean import CleanConfig, standard_texts
from danlu.data.script import convert_texts

# What stands where the scripts differ, from any table of simplified characters; 乾 depends on the word that it is in.
TRADITIONAL = ["春眠不覺曉，處處聞啼鳥。", "乾坤", "乾燥", "頭髮", "發展", "abc 123 %(name)s"]
SIMPLIFIED = ["春眠不觉晓，处处闻啼鸟。", "乾坤", "干燥", "头发", "发展", "abc 123 %(name)s"]


def test_a_character_follows_the_word_that_it_is_in() -> None:
    for given, script_, wanted in ((TRADITIONAL, "simplified", SIMPLIFIED), (SIMPLIFIED, "traditional", TRADITIONAL)):
        texts = pa.array([*given, None], pa.large_string())
        found = convert_texts(texts, script_)
        assert found.to_pylist() == [*wanted, None]
        assert found.type == texts.type
    assert convert_texts(texts, "keep") is texts


def test_what_is_in_the_script_already_stays() -> None:
    assert convert_texts(pa.array(SIMPLIFIED), "simplified").to_pylist() == SIMPLIFIED


def test_a_prompt_is_put_into_the_script_of_the_training_texts() -> None:
    clean = CleanConfig(script="simplified", normalize="nfc")
    assert standard_texts(["床前看月光，疑是地上霜。", "牀前明月光，擡頭望山月"], clean) == [
        "床前看月光，疑是地上霜。", "床前明月光，抬头望山月",
    ]  # fmt: skip


def test_personal_data_is_found_in_both_scripts() -> None:
    assert standard_texts(["粵B12345"], CleanConfig(script="simplified")) == ["<plate>"]
    assert standard_texts(["粤B12345"], CleanConfig(script="traditional")) == ["<plate>"]


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opencc", None)
    script._converter.cache_clear()
    with pytest.raises(UsageError, match=r"opencc is not installed") as found:
        standard_texts(["後"], CleanConfig(script="simplified"))
    assert "danlu[zh]" in str(found.value.advice)
    assert standard_texts(["後"], CleanConfig()) == ["後"]
