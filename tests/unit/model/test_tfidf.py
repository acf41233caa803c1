from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from danlu.core.errors import CorruptError, DataError
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression


def texts_of(n_classes, n=240, seed=0):
    rng = np.random.default_rng(seed)
    words = [["质量很差", "退货", "太慢了"], ["很好", "非常满意", "推荐"], ["一般般", "还行", "凑合"]][:n_classes]
    labels = rng.integers(n_classes, size=n)
    texts = ["，".join([*rng.choice(words[c], 2), *rng.choice([w for ws in words for w in ws], 2)]) for c in labels]
    return texts, labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_pipeline_of_sklearn_and_the_same_to_the_bit_after_reload(tmp_path, n_classes):
    texts, labels = texts_of(n_classes)
    model = TfidfLogisticRegression(TfidfConfig()).fit(texts, labels)
    unseen, _ = texts_of(n_classes, seed=1)
    unseen += ["", "xyz", "质"]
    found = model.predict_proba(unseen)
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    pipeline = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=1000))
    # float32 against float64: lbfgs stops at a gradient of 1e-4, not at the same point.
    np.testing.assert_allclose(found, pipeline.fit(texts, labels).predict_proba(unseen), atol=5e-3)
    assert found.dtype == np.float32
    assert (found[:-3].argmax(1) == texts_of(n_classes, seed=1)[1]).mean() > 0.6

    model.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = TfidfLogisticRegression.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(unseen), found)
    rows = 1 if n_classes == 2 else n_classes
    assert again.n_parameters == model.n_parameters == rows * (len(vectorizer.vocabulary_) + 1)
    assert again.config == model.config


def test_fitting_twice_gives_the_same_bits():
    texts, labels = texts_of(2)
    first, second = (TfidfLogisticRegression(TfidfConfig()).fit(texts, labels).predict_proba(texts) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_data_that_cannot_be_learnt_from():
    model = TfidfLogisticRegression(TfidfConfig())
    with pytest.raises(DataError, match="at least two classes"):
        model.fit(["甲", "乙"], np.array([1, 1]))
    with pytest.raises(DataError, match="class 1 has no text"):
        model.fit(["甲", "乙"], np.array([0, 2]))
    with pytest.raises(DataError, match="nothing to count"):
        model.fit(["甲", "乙"], np.array([0, 1]))
    with pytest.raises(ValidationError, match="ngram_min"):
        TfidfConfig(ngram_min=3, ngram_max=2)


def test_damaged_files_are_called_corrupt(tmp_path):
    texts, labels = texts_of(2)
    TfidfLogisticRegression(TfidfConfig()).fit(texts, labels).save(tmp_path)
    for name, content in [("vocabulary.json", b'["a"]'), ("model.safetensors", b"xx"), ("config.json", b"[]")]:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptError):
            TfidfLogisticRegression.load(tmp_path)
        (tmp_path / name).write_bytes(kept)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CorruptError):
        TfidfLogisticRegression.load(tmp_path)


def test_what_each_ngram_adds_is_the_logit_and_ngrams_are_cut_from_the_text_that_is_read():
    texts, labels = texts_of(2)
    model = TfidfLogisticRegression(TfidfConfig(ngram_max=2)).fit(texts, labels)
    text = "很好 \n\n，ABC很好\t推荐"
    added = model.contributions(text)
    read = model.read(text)
    analyzer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2)).build_analyzer()
    cut = {read[start : start + size] for size in (1, 2) for start in range(len(read) - size + 1)}
    assert set(analyzer(text)) == cut
    assert {"很好", "推荐"} <= set(added) <= cut
    log_odds = np.diff(np.log(model.predict_proba([text, ""]).astype(np.float64)), axis=1)[:, 0]
    np.testing.assert_allclose(sum(added.values()), [0, log_odds[0] - log_odds[1]], atol=1e-5)
