from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.evaluation import evaluate_predictions
from danlu.evaluate.predictions import PredictionWriter
from danlu.evaluate.slices import length_quarters, slice_metrics

CONFIG = EvaluateConfig(bootstrap=200, examples=5)


@pytest.fixture
def three_classes(tmp_path):
    rng = np.random.default_rng(1)
    n = 300
    p_BN = rng.dirichlet(np.full(3, 0.5), n).astype(np.float32)
    label_B = (p_BN.cumsum(1) > rng.random((n, 1))).argmax(1)
    n_chars_B, milliseconds_B = rng.integers(1, 200, n), rng.random(n)
    path = tmp_path / "predictions.parquet"
    with PredictionWriter(path, ["x", "y", "z"]) as writer:
        writer.write([str(i) for i in range(n)], label_B, p_BN, n_chars_B, milliseconds_B)
    return path, label_B, p_BN, n_chars_B, milliseconds_B


def test_every_metric_is_that_of_sklearn_and_within_its_interval(three_classes):
    path, label_B, p_BN, *_ = three_classes
    found = evaluate_predictions(path, CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    predicted_B = p_BN.argmax(1)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(label_B, predicted_B, average="macro")
    p64_BN = p_BN.astype(float)
    expected = {
        "accuracy": reference.accuracy_score(label_B, predicted_B),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "auroc": reference.roc_auc_score(np.eye(3)[label_B], p64_BN, average="macro"),
        "log_loss": reference.log_loss(label_B, p64_BN / p64_BN.sum(1, keepdims=True)),
        "brier": ((p64_BN - np.eye(3)[label_B]) ** 2).sum(1).mean(),
    }
    assert set(found["metrics"]) == {*expected, "ece"}
    for name, value in expected.items():
        measure = found["metrics"][name]
        assert measure["value"] == pytest.approx(value, rel=1e-5), name
        assert measure["low"] < value < measure["high"], name
        assert measure["n"] == 300
    assert found["confusion"] == reference.confusion_matrix(label_B, predicted_B).tolist()
    assert found["classes"][1]["recall"]["value"] == pytest.approx((predicted_B[label_B == 1] == 1).mean())
    assert found["classes"][1]["precision"]["n"] == int((predicted_B == 1).sum())
    # The labels were drawn from the probabilities, so the model is calibrated.
    assert found["calibration"]["p_calibrated"] > 0.01
    assert found["metrics"]["ece"]["low"] == 0.0


def test_the_records_to_look_at(three_classes):
    path, label_B, p_BN, n_chars_B, milliseconds_B = three_classes
    found = evaluate_predictions(path, CONFIG, np.random.default_rng(0))
    wrong = [i for i in np.argsort(-p_BN.max(1), kind="stable") if p_BN[i].argmax() != label_B[i]]
    assert [example["id"] for example in found["most_confident_wrong"]] == [str(i) for i in wrong[:5]]
    first = found["most_confident_wrong"][0]
    assert (first["label"], first["predicted"]) == ("xyz"[label_B[wrong[0]]], "xyz"[p_BN[wrong[0]].argmax()])
    assert first["n_chars"] == n_chars_B[wrong[0]]
    assert found["slowest"][0]["id"] == str(milliseconds_B.argmax())
    assert found["latency_ms"]["p90"] == pytest.approx(np.quantile(milliseconds_B, 0.9), rel=1e-5)


def test_the_same_generator_gives_the_same_evaluation(three_classes):
    first, second, other = (evaluate_predictions(three_classes[0], CONFIG, np.random.default_rng(s)) for s in (3, 3, 4))
    assert first == second
    assert first["metrics"]["macro_f1"] != other["metrics"]["macro_f1"]


def test_one_class_in_the_test_gives_null_and_not_a_crash(tmp_path):
    path = tmp_path / "p.parquet"
    with PredictionWriter(path, ["a", "b", "c"]) as writer:
        p_BN = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
        writer.write(["1", "2"], np.array([0, 0]), p_BN, np.array([3, 3]), np.ones(2))
    found = evaluate_predictions(path, CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    assert found["metrics"]["auroc"]["value"] is None
    assert found["metrics"]["macro_f1"]["value"] == 1.0
    assert found["metrics"]["accuracy"]["low"] < 0.5  # two right of two prove little
    assert found["classes"][2]["f1"] == {"value": None, "low": None, "high": None, "n": 0, "method": "bootstrap"}
    assert found["most_confident_wrong"] == []
    assert [part["name"] for part in found["slices"]["n_chars"]] == ["3-3"]


def test_length_quarters_hold_a_quarter_each_and_never_part_equal_lengths():
    n_chars_B = np.random.default_rng(0).permutation(np.arange(1, 101))
    names, slice_B = length_quarters(n_chars_B)
    assert names == ["1-25", "26-50", "51-75", "76-100"]
    assert np.bincount(slice_B).tolist() == [25] * 4
    names, slice_B = length_quarters(np.array([5, 5, 5, 5, 5, 5, 9, 5]))
    assert names == ["5-5", "9-9"]
    assert slice_B.tolist() == [0, 0, 0, 0, 0, 0, 1, 0]
    assert length_quarters(np.array([1, 100]))[0] == ["1-1", "100-100"]


def test_slices_are_the_metrics_of_their_records():
    rng = np.random.default_rng(2)
    label_B, predicted_B, slice_B = rng.integers(3, size=(3, 120))
    found = slice_metrics(["p", "q", "r", "empty"], slice_B, label_B, predicted_B, 3, CONFIG, rng)
    assert [part["name"] for part in found] == ["p", "q", "r"]
    for index, part in enumerate(found):
        inside = slice_B == index
        expected = reference.f1_score(label_B[inside], predicted_B[inside], average="macro")
        assert part["n"] == inside.sum()
        assert part["macro_f1"]["value"] == pytest.approx(expected)
        assert part["macro_f1"]["low"] < expected < part["macro_f1"]["high"]
        assert part["accuracy"]["value"] == pytest.approx((label_B == predicted_B)[inside].mean())
