from __future__ import annotations

import json

import numpy as np
import pytest

from danlu.core.errors import CorruptError
from danlu.model.ensemble import Ensemble, fit_weights
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression

TEXTS = [f"{'很好' if n % 2 else '很差'}的东西{n % 5}" for n in range(60)]
LABELS = np.arange(60) % 2


class Fixed:
    """A member that always says the same."""

    n_parameters = 1

    def __init__(self, p: np.ndarray) -> None:
        self.p = p.astype(np.float32)

    def predict_proba(self, texts):
        return self.p[: len(texts)]


def test_it_is_a_softmax_of_weighted_log_probabilities():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], (2, 5))
    weights, bias = np.array([0.7, 1.4]), np.array([0.3, -0.1, -0.2])
    found = Ensemble({"a": Fixed(p[0]), "b": Fixed(p[1])}, weights, bias).predict_proba(["x"] * 5)
    powers = p[0] ** 0.7 * p[1] ** 1.4 * np.exp(bias)
    np.testing.assert_allclose(found, powers / powers.sum(1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float32


def test_equal_members_with_equal_weights_answer_as_each_of_them():
    p = np.random.default_rng(0).dirichlet([1, 1], 5)
    found = Ensemble({"a": Fixed(p), "b": Fixed(p)}, np.array([0.5, 0.5]), np.zeros(2)).predict_proba(["x"] * 5)
    np.testing.assert_allclose(found, p, atol=1e-6)


def test_a_member_that_is_sure_and_wrong_gives_finite_answers():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    weights, bias = fit_weights(np.log(np.maximum(np.stack([p, p[::-1]]), 1e-38)), np.array([0, 1]))
    found = Ensemble({"a": Fixed(p), "b": Fixed(p[::-1])}, weights, bias).predict_proba(["x", "y"])
    assert np.isfinite(found).all()
    assert found.argmax(1).tolist() == [0, 1]


def test_it_comes_back_bit_for_bit_with_its_members(tmp_path):
    member = TfidfLogisticRegression(TfidfConfig()).fit(TEXTS, LABELS)
    ensemble = Ensemble.fit({"tfidf-lr": member}, TEXTS, LABELS)
    ensemble.save(tmp_path)
    again = Ensemble.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), ensemble.predict_proba(TEXTS))
    assert again.n_parameters == ensemble.n_parameters == member.n_parameters + 3


@pytest.mark.parametrize("content", [{}, {"weights": 3, "bias": []}, {"weights": {}, "bias": "x"}])
def test_damaged_weights_are_called_corrupt(tmp_path, content):
    (tmp_path / "ensemble.json").write_text(json.dumps(content))
    with pytest.raises(CorruptError):
        Ensemble.load(tmp_path)
