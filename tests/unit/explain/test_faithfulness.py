from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig
from danlu.explain import faithfulness
from danlu.explain.attribution import Attribution, Span, explain
from danlu.explain.faithfulness import measure_faithfulness
from danlu.model.families import ENSEMBLE, TFIDF
from danlu.model.predictor import Predictor
from small import made_up

UNSEEN = [text for text, _ in made_up(12, seed=5, n_chars=(5, 9))]


@pytest.mark.parametrize("family", ["bert", "gru", TFIDF, ENSEMBLE])
def test_reasons_are_more_faithful_than_an_order_at_random(text_models, family):
    facts = measure_faithfulness(text_models[family], UNSEEN).plain()
    assert facts["n"] + facts["n_left_out"] == len(UNSEEN)
    assert facts["n"] >= 8
    for name in ("comprehensiveness", "sufficiency"):
        assert 0 < facts[name]["low"] < facts[name]["gain"] < facts[name]["high"]
    assert facts["sufficiency"]["value"] < facts["random"] < facts["comprehensiveness"]["value"] <= 1


def test_the_reverse_of_the_reasons_is_less_faithful_than_random(text_models, monkeypatch):
    def reverse(predictor, text):
        found = explain(predictor, text)
        spans = [span._replace(weight=-span.weight) for span in found.spans]
        return Attribution(
            label=found.label, probability=found.probability, method="", change=0, gap=0, text=found.text, spans=spans
        )

    monkeypatch.setattr(faithfulness, "explain", reverse)
    facts = measure_faithfulness(text_models[TFIDF], UNSEEN).plain()
    assert facts["comprehensiveness"]["high"] < 0
    assert facts["sufficiency"]["high"] < 0


class Table:
    """Gives every text a probability of its own, drawn by what it holds."""

    n_parameters = 0

    def predict_proba(self, texts):
        drawn = [np.random.default_rng([ord(c) for c in text] or 0).random() for text in texts]
        return np.stack([drawn, np.subtract(1, drawn)], 1).astype(np.float32)


def test_limits_and_random_are_those_of_all_orders(monkeypatch):
    text = "abcd-ef"  # the hyphen is in no span and stays
    weights = {"a": 0.3, "b": -1.0, "cd": 2.0, "e": 0.1, "f": 0.2}
    spans = [Span(part, text.index(part), text.index(part) + len(part), weight) for part, weight in weights.items()]
    found = Attribution(label="x", probability=0, method="", change=0, gap=0, text=text, spans=spans)
    monkeypatch.setattr(faithfulness, "explain", lambda *_: found)
    predictor = Predictor(Table(), "text-classification", "table", CleanConfig(), ("x", "y"))

    def area(order):
        left, falls = text, []
        (before,) = predictor.predict_proba([text])[:, 0]
        for part in order:
            left = left.replace(part, "")
            falls.append(float(before) - float(predictor.predict_proba([left])[0, 0]))
        return np.mean(falls)

    areas = [area(order) for order in permutations(weights)]
    low, high = min(areas), max(areas)
    result = measure_faithfulness(predictor, ["any"])
    best_first = ["cd", "a", "f", "e", "b"]
    assert result.comprehensiveness_B[0] == pytest.approx((area(best_first) - low) / (high - low), abs=1e-6)
    assert result.sufficiency_B[0] == pytest.approx((area(best_first[::-1]) - low) / (high - low), abs=1e-6)
    assert result.random_B[0] == pytest.approx((np.mean(areas) - low) / (high - low), abs=1e-6)


def test_texts_whose_answer_never_changes_are_left_out_and_too_few_tell_nothing(text_models):
    result = measure_faithfulness(text_models["bert"], ["", " ", UNSEEN[0]])
    assert result.n_left_out == 2
    with pytest.raises(DataError, match="1 texts tell nothing"):
        result.plain()
