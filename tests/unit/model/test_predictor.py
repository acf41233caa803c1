from __future__ import annotations

import json

import numpy as np
import pytest

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError
from danlu.core.progress import Silent
from danlu.data.clean import CleanConfig
from danlu.model.families import TFIDF
from danlu.model.predictor import Predictor, load_predictor
from danlu.train.baseline import train_baseline
from small import SCORE, make_dataset


def trained(folder):
    workspace, dataset = make_dataset(folder)
    return train_baseline(workspace, "tiny", dataset, TFIDF, SCORE, Silent())


def test_what_is_asked_is_cleaned_as_the_training_texts_were(tmp_path):
    predictor = load_predictor(trained(tmp_path))
    assert predictor.classes == ["bad", "good"]
    plain, full_width = predictor.predict_proba(["好棒ok!13812345678", "好棒ｏｋ！13987654321"])
    np.testing.assert_array_equal(plain, full_width)  # NFKC, and both numbers are <phone> now
    assert predictor.predict_proba(["好棒赞"]).argmax() == 1


@pytest.mark.parametrize(
    "change", [{"family": "brt"}, {"classes": None}, {"task": None}, {"clean": {"dedupe": "near"}}]
)
def test_a_description_that_makes_no_sense_is_corrupt(tmp_path, change):
    model = trained(tmp_path)
    path = model.path / "model.json"
    facts = json.loads(path.read_text())
    key, value = next(iter(change.items()))
    if value is None:
        del facts[key]
    path.write_text(json.dumps(facts | change if value is not None else facts))
    with pytest.raises(CorruptError):
        load_predictor(Artifact.open(model.path))


class Echo:
    """Says what it was asked."""

    def nats(self, texts):
        return np.array([float(len(text)) for text in texts])

    def count_tokens(self, texts):
        return np.array([len(text) + 1 for text in texts])

    def translate(self, texts):
        return [f"<{text}>" for text in texts]


def test_every_task_is_asked_with_cleaned_texts():
    asked = ["ｏｋ！", "电话13812345678"]
    predictor = Predictor(Echo(), "translation", "echo", CleanConfig())
    assert predictor.translate(asked) == ["<ok!>", "<电话<phone>>"]
    assert predictor.nats(asked).tolist() == [3, 9]
    assert predictor.count_tokens(asked).tolist() == [4, 10]
