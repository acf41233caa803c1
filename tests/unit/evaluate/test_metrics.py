from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from danlu.evaluate.intervals import observed
from danlu.evaluate.metrics import (
    auroc,
    brier_per_record,
    class_statistic,
    confusion_cells,
    confusion_matrix,
    log_loss_per_record,
    mean,
)

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(pairs)
def test_class_metrics_are_those_of_sklearn_absent_classes_included(records):
    label_B, predicted_B = np.array(records).T
    label_M, predicted_M, count_M = confusion_cells(confusion_matrix(label_B, predicted_B, 4))
    of_cells = observed(count_M, class_statistic(label_M, predicted_M, 4))
    of_records = observed(np.ones(len(label_B), np.int64), class_statistic(label_B, predicted_B, 4))

    macro = reference.precision_recall_fscore_support(label_B, predicted_B, average="macro", zero_division=0)[:3]
    each = reference.precision_recall_fscore_support(
        label_B, predicted_B, labels=range(4), average=None, zero_division=0
    )[:3]
    seen = np.isin(np.arange(4), np.concatenate([label_B, predicted_B]))
    for name, macro_value, each_value in zip(("precision", "recall", "f1"), macro, each, strict=True):
        for found in (of_cells, of_records):
            assert found[f"macro_{name}"] == pytest.approx(macro_value)
            np.testing.assert_allclose(found[name][seen], each_value[seen])
            assert np.isnan(found[name][~seen]).all()
    assert of_cells["accuracy"] == pytest.approx(reference.accuracy_score(label_B, predicted_B))


def test_confusion_matrix_has_labels_in_rows():
    label_B, predicted_B = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0])
    expected = reference.confusion_matrix(label_B, predicted_B)
    np.testing.assert_array_equal(confusion_matrix(label_B, predicted_B, 3), expected)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("decimals", [1, 6])  # one decimal makes many ties
def test_probability_metrics_are_those_of_sklearn(n_classes, decimals):
    rng = np.random.default_rng(7)
    p_BN = rng.dirichlet(np.ones(n_classes), 300).round(decimals)
    label_B = rng.integers(n_classes, size=300)
    ones_B = np.ones(300, np.int64)

    if n_classes == 2:
        area = reference.roc_auc_score(label_B, p_BN[:, 1])
    else:
        area = np.mean([reference.roc_auc_score(label_B == c, p_BN[:, c]) for c in range(n_classes)])
    assert auroc(p_BN, label_B)(ones_B[None])[0] == pytest.approx(area, abs=1e-12)

    one_hot_BN = np.eye(n_classes)[label_B]
    assert brier_per_record(p_BN, label_B) == pytest.approx(((p_BN - one_hot_BN) ** 2).sum(1))

    sharp_BN = p_BN.astype(np.float32)
    losses = log_loss_per_record(sharp_BN[np.arange(300), label_B])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rounded rows do not sum to 1
        expected = -np.log(np.clip(sharp_BN[np.arange(300), label_B].astype(float), np.finfo(np.float32).eps, 1)).mean()
    assert mean(losses)(ones_B[None])[0] == pytest.approx(expected)


def test_log_loss_is_that_of_sklearn_and_finite_at_probability_zero():
    p_BN = np.array([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5]], np.float32)
    label_B = np.array([1, 1, 0])
    ours = log_loss_per_record(p_BN[np.arange(3), label_B]).mean()
    assert ours == pytest.approx(reference.log_loss(label_B, p_BN), rel=1e-5)


def test_weights_mean_repeated_records():
    rng = np.random.default_rng(3)
    p_BN, label_B = rng.dirichlet(np.ones(3), 50).round(1), rng.integers(3, size=50)
    weights_B = rng.integers(0, 4, size=50)
    repeated = np.repeat(np.arange(50), weights_B)
    ones = np.ones((1, len(repeated)), np.int64)
    assert auroc(p_BN, label_B)(weights_B[None]) == pytest.approx(auroc(p_BN[repeated], label_B[repeated])(ones))
    assert mean(p_BN[:, 0])(weights_B[None]) == pytest.approx(p_BN[repeated, 0].mean())


def test_auroc_of_one_class_is_undefined_and_left_out_of_the_mean():
    p_BN = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
    ones = np.ones((1, 3), np.int64)
    assert np.isnan(auroc(p_BN[:, :2], np.array([1, 1, 1]))(ones)[0])
    # Class 2 has no record: the mean is over classes 0 (1 of 2 pairs won) and 1 (all won).
    assert auroc(p_BN, np.array([1, 0, 0]))(ones)[0] == pytest.approx((1.0 + 1.0) / 2)
