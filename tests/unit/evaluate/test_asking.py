from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.data.clean import CleanConfig
from danlu.data.stage import read_split
from danlu.evaluate import asking
from danlu.evaluate.asking import predict_split
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.stage import compare_models, evaluate_model
from danlu.evaluate.tasks import TASKS
from danlu.model.families import NGRAM, TFIDF
from danlu.model.predictor import Predictor, load_predictor
from danlu.train.baseline import train_baseline
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from danlu.train.tasks import TRAINING
from small import FAMILY, SCORE, made_up, make_dataset, spec_of, translated


class Knows:
    """Answers each record with something that only this record gives."""

    def predict_proba(self, records):
        if isinstance(records, np.ndarray):
            shares = records.reshape(len(records), -1).mean(1) / 255
        else:
            shares = np.array([text.count("的") / 100 for text in records])
        return np.stack([shares, 1 - shares], axis=1).astype(np.float32)

    def nats(self, texts):
        return np.array([0.25 + sum(map(ord, text)) for text in texts])

    def count_tokens(self, texts):
        return np.array([len(text) + 1 for text in texts])

    def translate(self, texts):
        return [translated(text)[::-1] for text in texts]


def predictor_of(task, **changes):
    values = {"classes": ("bad", "good")} if task == "text-classification" else {}
    if task == "image-classification":
        values = {"classes": ("0", "1"), "image_size": (1, 14, 14)}
    return Predictor(Knows(), task, "knows", CleanConfig(), **(values | changes))


def expected(task, row):
    """The columns of a predictions file besides the time, for one record."""
    if task == "language-modelling":
        text = row["text"]
        return {"nats": Knows().nats([text])[0], "n_chars": len(text), "n_tokens": len(text) + 1}
    if task == "translation":
        hypothesis = translated(row["text"])[::-1]
        return {"source": row["text"], "reference": row["target"], "hypothesis": hypothesis}
    if task == "image-classification":
        pixels = np.frombuffer(row["image"], np.uint8)[None]
        probabilities, n_chars = Knows().predict_proba(pixels)[0], 0
    else:
        probabilities, n_chars = Knows().predict_proba([row["text"]])[0], len(row["text"])
    label = predictor_of(task).classes.index(row["label"])
    return {"label": label, "n_chars": n_chars, "probabilities": probabilities.tolist()}


@pytest.mark.parametrize("task", sorted(TRAINING))
@pytest.mark.parametrize("room", [7, 1024])
def test_every_record_of_the_test_split_gets_its_own_answer(tmp_path, monkeypatch, task, room):
    monkeypatch.setattr(asking, "_ROWS", room)
    monkeypatch.setattr(asking, "_TIMED_TOGETHER", 3)
    monkeypatch.setattr(asking, "_TIMED_ALONE", 20)
    _, dataset = make_dataset(tmp_path, task=task)
    path = tmp_path / "predictions.parquet"
    alone = predict_split(predictor_of(task), dataset, path, Silent())
    rows = pq.read_table(dataset.path / "test.parquet").to_pylist()
    found = {row["id"]: row for row in pq.read_table(path).to_pylist()}
    assert len(found) == len(rows) == pq.read_metadata(path).num_rows
    for row in rows:
        answer = found[row["id"]]
        assert answer.pop("milliseconds") > 0
        assert answer == {"id": row["id"], **expected(task, row)}
    assert alone["n"] == 20
    assert 0 < alone["p50"] <= alone["p95"]
    facts = TASKS[task].evaluate(path, EvaluateConfig(bootstrap=100), np.random.default_rng(0))
    assert facts["n"] == len(rows)


def test_a_label_that_the_model_does_not_know_is_named_with_its_record(tmp_path):
    _, dataset = make_dataset(tmp_path)
    predictor = predictor_of("text-classification", classes=("bad", "fine"))
    with pytest.raises(UsageError, match="the model does not know: 'good'") as found:
        predict_split(predictor, dataset, tmp_path / "predictions.parquet", Silent())
    assert found.value.where.removeprefix("record ") in read_split(dataset, "test", ["id"]).column("id").to_pylist()
    assert found.value.advice == "the model's classes are bad, fine"


def test_a_language_model_is_judged_by_all_its_bits_over_all_characters(tmp_path):
    task = "language-modelling"
    rows = [*made_up(), *((text * 4, "good") for text, _ in made_up(20, seed=7))]  # some in several windows
    workspace, dataset = make_dataset(tmp_path, rows, task=task)
    spec, config = spec_of(tmp_path, FAMILY[task], task=task), EvaluateConfig(bootstrap=100, permutations=1000)
    models = {
        "gpt": train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent()),
        NGRAM: train_baseline(workspace, "tiny", dataset, NGRAM, SCORE, Silent()),
    }
    texts = read_split(dataset, "test", ["text"]).column("text").to_pylist()
    evaluations, bits = {}, {}
    for label, model in models.items():
        evaluations[label] = evaluate_model(workspace, model, dataset, config, Silent())
        facts, answerer = evaluations[label].json("evaluation.json"), load_predictor(model).answerer
        bits[label] = answerer.nats(texts).sum() / math.log(2) / sum(map(len, texts))
        # Other texts share its batches: measured 1e-7 of 8 bits.
        assert facts["metrics"]["bits_per_character"]["value"] == pytest.approx(bits[label], rel=1e-6)
        assert facts["n_tokens"] == answerer.count_tokens(texts).sum()
        assert (facts["task"], facts["primary"], facts["family"]) == (task, "bits_per_character", label)
        assert facts["n"] == facts["alone_ms"]["n"] == len(texts)
        assert {example["text"] for example in facts["hardest"]} <= set(texts)
    comparison = compare_models(workspace, "tiny", evaluations, NGRAM, config, Silent()).json("comparison.json")
    (compared,) = comparison["models"]
    difference = compared["metrics"]["bits_per_character"]["difference"]
    assert (compared["a"], comparison["baseline"]) == ("gpt", NGRAM)
    assert difference == pytest.approx(bits["gpt"] - bits[NGRAM], abs=1e-5)
    assert compared["verdict"] == ("worse" if difference > 0 else "better")


def test_models_of_different_tasks_are_not_compared(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    config, evaluations = EvaluateConfig(bootstrap=100), {}
    for label in (NGRAM, TFIDF):
        model = train_baseline(workspace, "tiny", dataset, label, SCORE, Silent())
        evaluations[label] = evaluate_model(workspace, model, dataset, config, Silent())
    with pytest.raises(UsageError, match="do different things: language-modelling, text-classification"):
        compare_models(workspace, "tiny", evaluations, NGRAM, config, Silent())
