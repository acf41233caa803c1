from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from danlu.core.errors import CorruptError, DataError
from danlu.model.translation_memory import TranslationMemory, TranslationMemoryConfig

PAIRS = [
    ("Could not delete the file %(name)s.", "无法删除文件 %(name)s。"),
    ("%(count)s of {total} items", "{total} 项中的 %(count)s 项"),
    ("Wait 30 seconds", "等待 30 秒"),
    ("Open in Jupyter now", "立即在 Jupyter 中打开"),
    ("No matching users were found", "未找到匹配的用户"),
    ("Users", "用户"),
    ("Documents", "文档"),
    ("Save <b>everything</b> first", "请先保存<b>全部内容</b>"),
]


def memory(pairs=PAIRS, **config):
    return TranslationMemory(TranslationMemoryConfig(**config)).fit(*zip(*pairs, strict=True))


def phrases(n, seed=0):
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(string.ascii_letters), rng.integers(2, 7))) for _ in range(60)]
    return [" ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(n)]


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("Could not delete the file %(name)s.", "无法删除文件 %(name)s。"),
        ("Could not delete the file %(path)s.", "无法删除文件 %(path)s。"),
        ("Could not delete the file {0}.", "无法删除文件 {0}。"),
        ("Could not delete the file %s.", "无法删除文件 %s。"),
        ("Could not delete the file.", "无法删除文件 。"),  # a placeholder that has no value would break the program
        ("%(n)s of {all} items", "{all} 项中的 %(n)s 项"),
        ("Wait 45 seconds", "等待 45 秒"),
        ("Wait some seconds", "等待 30 秒"),  # a word never stands where a number stood
        ("Open in Spyder now", "立即在 Spyder 中打开"),
        ("open in jupyter now", "立即在 Jupyter 中打开"),
        ("No matching documents were found", "未找到匹配的文档"),
        ("Save <i>everything</i> first", "请先保存<i>全部内容</i>"),
    ],
)
def test_what_differs_is_mended(source, translation):
    assert memory().translate([source]) == [translation]


def test_two_that_change_places_do_not_overwrite_each_other():
    pairs = [("From %(a)s to %(b)s", "从 %(a)s 到 %(b)s")]
    assert memory(pairs).translate(["From %(b)s to %(a)s"]) == ["从 %(b)s 到 %(a)s"]


def test_a_known_text_gets_its_most_frequent_translation():
    pairs = [("Open", "开放"), ("Close", "关闭"), ("Open", "打开"), ("Open", "打开"), ("open", "打开的")]
    model = memory(pairs)
    assert model.pairs == [("Open", "打开"), ("Close", "关闭"), ("open", "打开的")]
    assert model.n_parameters == 3
    assert model.translate(["open", "Open"]) == ["打开的", "打开"]
    assert model.matches(["open", "Open"]) == [(2, 1.0), (0, 1.0)]


def test_nothing_is_more_similar_than_a_known_text():
    sources = phrases(300)
    similarities = [
        similarity for _, similarity in memory([(s, s) for s in sources]).matches([s.upper() for s in sources])
    ]
    assert max(similarities) <= 1
    assert min(similarities) > 1 - 1e-6  # case does not count; the cosine is float32


def test_the_candidates_are_the_nearest_by_the_cosine():
    sources, unseen = phrases(300), phrases(700, seed=1)
    model = memory([(source, str(i)) for i, source in enumerate(sources)], n_candidates=1, token_weight=0)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    kept = [source for source, _ in model.pairs]
    cosines = cosine_similarity(vectorizer.fit_transform(kept), vectorizer.transform(unseen)).T
    places, similarities = zip(*model.matches(unseen), strict=True)
    # float32 against float64.
    np.testing.assert_allclose(similarities, cosines.max(1), atol=1e-6)
    np.testing.assert_allclose(cosines[range(len(unseen)), places], cosines.max(1), atol=1e-6)


def test_mending_decides_between_candidates():
    """The cosine prefers the text that shares the long name; only the other one can be mended to the whole text."""
    pairs = [("Reinstall Jupyterlab", "重装 Jupyterlab"), ("Open Git", "打开 Git")]
    assert memory(pairs, token_weight=0).translate(["Open Jupyterlab"]) == ["重装 Jupyterlab"]
    model = memory(pairs)
    assert model.translate(["Open Jupyterlab"]) == ["打开 Jupyterlab"]
    ((place, similarity),) = model.matches(["Open Jupyterlab"])
    assert place == 1
    assert 0.5 < similarity < 1


def test_a_text_answers_alone_as_among_others():
    model = memory([(source, source.upper()) for source in phrases(200)])
    unseen = phrases(300, seed=2)  # more than are looked up at once
    together = model.translate(unseen)
    assert len(together) == len(unseen)
    assert together[::10] == [model.translate([source])[0] for source in unseen[::10]]
    assert model.translate([]) == []


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.text(max_size=20))
def test_any_text_is_answered(sources, unseen):
    model = memory([*PAIRS, *((source, source) for source in sources)])
    ((place, similarity),) = model.matches([unseen])
    assert 0 <= place < len(model.pairs)
    assert 0 <= similarity <= 1
    assert model.translate(sources) == [dict(model.pairs)[source] for source in sources]


def test_the_same_after_reload(tmp_path):
    model = memory([(source, source.upper()) for source in phrases(200)], ngram_max=4)
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "pairs.json"}
    again = TranslationMemory.load(tmp_path)
    unseen = phrases(100, seed=3)
    assert again.matches(unseen) == model.matches(unseen)
    assert again.translate(unseen) == model.translate(unseen)
    assert again.config == model.config


def test_nothing_to_remember():
    for sources in ([], [""], ["", ""]):
        with pytest.raises(DataError, match="needs texts"):
            TranslationMemory(TranslationMemoryConfig()).fit(sources, sources)
    with pytest.raises(ValidationError, match="token_weight"):
        TranslationMemoryConfig(token_weight=1.1)


def test_damaged_files_are_called_corrupt(tmp_path):
    memory().save(tmp_path)
    for name, contents in [
        ("pairs.json", [b"xx", b"[]", b"{}", b'[["a"]]', b'[["a", "b", "c"]]', b'[[1, "b"]]', b'[["a", null]]', b"3"]),
        ("config.json", [b"[]", b'{"n": 1}']),
    ]:
        kept = (tmp_path / name).read_bytes()
        for content in contents:
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CorruptError):
                TranslationMemory.load(tmp_path)
        (tmp_path / name).write_bytes(kept)
    (tmp_path / "pairs.json").unlink()
    with pytest.raises(CorruptError):
        TranslationMemory.load(tmp_path)
