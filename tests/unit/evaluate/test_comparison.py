from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from danlu.core.errors import DataError, UsageError
from danlu.evaluate.comparison import compare_predictions, compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.predictions import PredictionWriter

CONFIG = EvaluateConfig(bootstrap=400, examples=4)
N = 400


def write(path, label_B, score_B, order=None, class_names=("neg", "pos")):
    order = np.arange(len(label_B)) if order is None else order
    p_BN = np.stack([1 - score_B, score_B], axis=1)
    with PredictionWriter(path, class_names) as writer:
        ids = [f"r{i}" for i in order]
        writer.write(ids, label_B[order], p_BN[order], np.ones(len(order), int), np.ones(len(order)))
    return path


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(2, size=N)


def scores(label_B, accuracy, seed):
    rng = np.random.default_rng(seed)
    return np.where((rng.random(N) < accuracy) == (label_B == 1), rng.uniform(0.51, 1, N), rng.uniform(0, 0.49, N))


def test_models_are_joined_on_id_and_differ_by_the_difference_of_their_metrics(tmp_path, labels):
    good, poor = scores(labels, 0.92, 1), scores(labels, 0.78, 2)
    a = write(tmp_path / "a.parquet", labels, good)
    b = write(tmp_path / "b.parquet", labels, poor, np.random.default_rng(3).permutation(N))
    found = compare_predictions(a, b, ("good", "poor"), CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    f1 = [f1_score(labels, score > 0.5, average="macro") for score in (good, poor)]
    macro_f1 = found["metrics"]["macro_f1"]
    assert (macro_f1["a"], macro_f1["b"]) == pytest.approx(tuple(f1))
    assert macro_f1["low"] < f1[0] - f1[1] < macro_f1["high"]
    assert macro_f1["low"] > 0
    assert macro_f1["p_permutation"] < 0.01
    area = [roc_auc_score(labels, score.astype(np.float32)) for score in (good, poor)]
    assert found["metrics"]["auroc"]["difference"] == pytest.approx(area[0] - area[1])
    right_a, right_b = (good > 0.5) == labels, (poor > 0.5) == labels
    assert found["mcnemar"]["n_only_a_right"] == (right_a & ~right_b).sum()
    assert found["mcnemar"]["n_both_wrong"] == (~right_a & ~right_b).sum()
    assert len(found["only_a_right"]) == 4
    for example in found["only_a_right"]:
        row = int(example["id"][1:])
        assert right_a[row]
        assert not right_b[row]
        assert example["predicted"] != example["label"]


def test_a_model_against_itself(tmp_path, labels):
    a = write(tmp_path / "a.parquet", labels, scores(labels, 0.8, 1))
    found = compare_predictions(a, a, ("a", "a"), CONFIG, np.random.default_rng(0))
    assert found["mcnemar"]["p"] == 1.0
    assert all(metric["difference"] == 0 for metric in found["metrics"].values())
    assert found["metrics"]["macro_f1"]["p_permutation"] == 1.0


def test_other_tests_are_refused(tmp_path, labels):
    score = scores(labels, 0.8, 1)
    a = write(tmp_path / "a.parquet", labels, score)
    flipped = labels.copy()
    flipped[7] = 1 - flipped[7]
    others = {
        "r7 has two labels": write(tmp_path / "b.parquet", flipped, score),
        "399": write(tmp_path / "c.parquet", labels, score, np.arange(399)),
        "r399 is missing": write(tmp_path / "d.parquet", labels, score, np.array([*range(399), 0])),
        "classes differ": write(tmp_path / "e.parquet", labels, score, class_names=("pos", "neg")),
    }
    for message, path in others.items():
        with pytest.raises(DataError, match="not predictions of the same test") as error:
            compare_predictions(a, path, ("a", "b"), CONFIG, np.random.default_rng(0))
        assert message in str(error.value)
    with pytest.raises(DataError, match="twice"):
        compare_predictions(others["r399 is missing"], a, ("d", "a"), CONFIG, np.random.default_rng(0))


def test_several_models_are_corrected_for_their_number(tmp_path, labels):
    accuracies = {"baseline": 0.80, "better": 0.93, "worse": 0.66, "like": 0.80}
    paths = {
        name: write(tmp_path / f"{name}.parquet", labels, scores(labels, accuracy, seed))
        for seed, (name, accuracy) in enumerate(accuracies.items(), start=10)
    }
    found = compare_with_baseline(paths, "baseline", CONFIG, np.random.default_rng(0))
    verdicts = {model["a"]: model["verdict"] for model in found["models"]}
    assert verdicts == {"better": "better", "worse": "worse", "like": "no difference shown"}
    macro_f1 = [model["metrics"]["macro_f1"] for model in found["models"]]
    assert macro_f1[0]["p_holm"] == pytest.approx(3 * macro_f1[0]["p_permutation"])
    assert all(model["mcnemar"]["p_holm"] >= model["mcnemar"]["p"] for model in found["models"])
    with pytest.raises(UsageError, match="no predictions of the baseline") as error:
        compare_with_baseline(paths, "baselin", CONFIG, np.random.default_rng(0))
    assert "'baseline'" in str(error.value)
