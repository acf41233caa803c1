from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from danlu.core.batch import Batch
from danlu.core.errors import DataError, UsageError
from danlu.data.batches import Tokens, collate
from danlu.data.clean import CleanConfig
from danlu.explain.attribution import can_explain, explain
from danlu.explain.gradients import margin
from danlu.model.classifier import NeuralClassifier
from danlu.model.ensemble import Ensemble
from danlu.model.families import ENSEMBLE, TFIDF
from danlu.model.pixels import PixelConfig, PixelLogisticRegression
from danlu.model.predictor import Predictor
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from made_serving import made_predictor

TEXT = "了我这个，买很就棒赞好是在到有"
GOOD = {"棒", "赞", "好"}


def log_odds(predictor, texts, label=1):
    return margin(np.log(predictor.predict_proba(texts).astype(np.float64)), label)


def total(found):
    return sum(span.weight for span in found.spans)


@pytest.mark.parametrize("family", ["bert", "gru", TFIDF, ENSEMBLE])
def test_what_tells_the_class_weighs_most_and_the_weights_are_all_of_the_change(text_models, family):
    found = explain(text_models[family], TEXT)
    assert (found.label, found.text) == ("good", TEXT)
    assert found.probability == pytest.approx(text_models[family].predict_proba([TEXT])[0, 1])
    assert {span.text for span in sorted(found.spans, key=lambda span: -span.weight)[:3]} == GOOD
    assert [TEXT[span.start : span.end] for span in found.spans] == [span.text for span in found.spans] == list(TEXT)
    assert total(found) == pytest.approx(found.change, abs=found.gap + 1e-9)
    assert found.gap <= 0.011 * abs(found.change)
    assert "not enough" not in found.method


@pytest.mark.parametrize("family", ["bert", "gru", TFIDF, ENSEMBLE])
def test_the_same_question_has_the_same_reasons_and_of_two_classes_one_speaks_against_the_other(text_models, family):
    found = explain(text_models[family], TEXT)
    assert explain(text_models[family], TEXT).plain() == found.plain()
    other = explain(text_models[family], TEXT, "bad")
    assert other.probability == pytest.approx(1 - found.probability, abs=1e-6)
    weights = [[span.weight for span in each.spans] for each in (found, other)]
    np.testing.assert_allclose(weights[0], np.negative(weights[1]), atol=2e-5)  # 2e-6 measured, of weights up to 3


@pytest.mark.parametrize("family", ["bert", "gru"])
def test_the_change_is_that_from_a_text_of_hidden_tokens(text_models, family):
    model = text_models[family].answerer
    ids = model.encode([TEXT.replace("，", ",")]).ids.tolist()
    batch = collate(Tokens.of([ids, [model.special.mask] * len(ids)]), np.arange(2), 0)
    with torch.no_grad():
        before_after = margin(model.module(batch).logits, 1)
    assert explain(text_models[family], TEXT).change == pytest.approx(
        float(before_after[0] - before_after[1]), abs=1e-5
    )


def test_weights_of_the_baseline_come_to_the_logit_without_the_intercept(text_models):
    predictor = text_models[TFIDF]
    for text in (TEXT, "ABC 了我", "x", ""):
        found = explain(predictor, text, "good")
        change = log_odds(predictor, [text])[0] - log_odds(predictor, [""])[0]
        assert total(found) == pytest.approx(change, abs=1e-5)  # 1e-6 measured: probabilities are float32
        assert found.change == pytest.approx(change, abs=1e-9)


def test_a_baseline_of_three_classes_adds_up_as_well():
    texts = [f"{word}{n % 7}的" for n in range(90) for word in ("很差", "很好", "一般")]
    labels = np.arange(len(texts)) % 3
    model = TfidfLogisticRegression(TfidfConfig()).fit(texts, labels)
    predictor = Predictor(model, "text-classification", TFIDF, CleanConfig(), ("a", "b", "c"))
    for number, label in enumerate("abc"):
        found = explain(predictor, "Ａ一般 很差", label)
        change = np.subtract(*log_odds(predictor, ["a一般 很差", ""], number))
        assert total(found) == pytest.approx(change, abs=1e-5)


def test_an_ensemble_is_the_weighted_sum_of_its_members_character_by_character(text_models):
    found = explain(text_models[ENSEMBLE], TEXT)
    parts = [explain(text_models[family], TEXT, "good") for family in ("bert", TFIDF)]
    expected = [0.7 * a.weight + 0.4 * b.weight for a, b in zip(*(part.spans for part in parts), strict=True)]
    np.testing.assert_allclose([span.weight for span in found.spans], expected, atol=1e-9)
    assert found.change == pytest.approx(0.7 * parts[0].change + 0.4 * parts[1].change)
    assert all(word in found.method for word in ("bert (integrated gradients", f"{TFIDF} (contribution"))
    alone = Ensemble({TFIDF: text_models[TFIDF].answerer}, np.array([0.6]), np.array([0.3, -0.3]))
    predictor = replace(text_models[ENSEMBLE], answerer=alone)
    answered = log_odds(predictor, [TEXT, ""])
    assert total(explain(predictor, TEXT)) == pytest.approx(answered[0] - answered[1], abs=1e-5)


def test_spans_are_of_the_text_that_was_typed(text_models):
    text = "  了我１３８１２３４５６７８，\u200b买　𪚥 很好"
    for predictor in text_models.values():
        found = explain(predictor, text)
        assert found.text == text
        expected = ["了", "我", "１３８１２３４５６７８", "，", "买", "　", "𪚥", " ", "很", "好"]
        assert [span.text for span in found.spans] == expected
        assert all(text[span.start : span.end] == span.text for span in found.spans)
        assert total(found) == pytest.approx(found.change, abs=found.gap + 1e-9)


def test_where_what_was_typed_cannot_be_told_apart_the_text_that_was_read_is_given(text_models):
    found = explain(text_models["bert"], "13812345678")
    assert found.text == "<phone>"
    assert [span.text for span in found.spans] == list("<phone>")


def test_tokens_put_around_every_text_get_no_share(text_models):
    model = text_models["bert"].answerer
    tokenizer = type(model.tokenizer).from_str(model.tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    tokenizer.post_processor = TemplateProcessing("<cls> $A <sep>", special_tokens=[("<cls>", 2), ("<sep>", 3)])
    around = replace(text_models["bert"], answerer=NeuralClassifier(model.module, tokenizer))
    found = explain(around, "我<cls>好")
    assert [span.text for span in found.spans] == ["我", *"<cls>", "好"]
    assert total(found) == pytest.approx(found.change, abs=found.gap + 1e-9)
    assert explain(around, "").spans == ()


def test_of_a_long_text_the_parts_that_are_read_are_explained(text_models):
    text = "了我" * 20 + "好棒"
    found = explain(text_models["bert"], text)
    assert [(span.start, span.text) for span in found.spans] == [
        (place, text[place]) for place in [*range(16), *range(len(text) - 16, len(text))]
    ]
    assert "only the first 16 and the last 16 tokens are read" in found.method


def test_an_empty_text_has_no_reasons(text_models):
    for predictor in text_models.values():
        found = explain(predictor, " ")
        assert (found.spans, found.change, found.gap) == ((), 0.0, 0.0)


def test_a_picture_is_explained_by_its_sides(picture_model, pictures):
    images, labels = pictures
    for number in range(4):
        found = explain(picture_model, images[number])
        assert found.label == ("left", "right")[labels[number]]
        sides = found.weights_YX[:, :7].sum(), found.weights_YX[:, 7:].sum()
        assert min(sides) > 0  # the bright side, and the dark one beside it
        assert found.weights_YX.sum() == pytest.approx(found.change, abs=found.gap + 1e-9)
        assert found.gap <= 0.011 * found.change
        picture = torch.from_numpy(images[number]).float() / 255
        plain = picture.mean((1, 2), keepdim=True).expand(3, 14, 14)
        with torch.no_grad():
            batch = Batch(rows_B=torch.arange(2), images_BCYX=torch.stack([picture, plain]))
            asked = margin(picture_model.answerer.module(batch).logits, int(labels[number]))
        assert found.change == pytest.approx(float(asked[0] - asked[1]), abs=1e-5)
        assert explain(picture_model, images[number]).plain() == found.plain()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_baseline_of_pictures_is_linear(pictures, n_classes):
    images, _ = pictures
    labels = np.arange(len(images)) % n_classes
    model = PixelLogisticRegression(PixelConfig()).fit(images, labels)
    predictor = Predictor(
        model, "image-classification", "pixels-lr", CleanConfig(), ("a", "b", "c")[:n_classes], (3, 14, 14)
    )
    changes = [explain(predictor, image, "b").change for image in images[:2]]
    plain = np.full((3, 14, 14), 90, np.uint8)
    assert explain(predictor, plain, "b").change == pytest.approx(0, abs=1e-12)
    means = np.broadcast_to(images[:2].mean((2, 3), keepdims=True), (2, 3, 14, 14))
    margins = margin(np.log(predictor.image_proba(images[:2]).astype(np.float64)), 1)
    at_mean = margin(np.log(predictor.image_proba(means).astype(np.float64)), 1)
    np.testing.assert_allclose(changes, margins - at_mean, atol=1e-4)  # of float32 probabilities
    with pytest.raises(DataError, match=r"not \(3, 14, 15\)"):
        explain(predictor, np.zeros((3, 14, 15), np.uint8))


def test_as_json_it_is_what_the_server_answers(text_models, picture_model, pictures):
    facts = json.loads(json.dumps(explain(text_models["bert"], "好，", "good").plain()))
    assert set(facts) == {"label", "probability", "method", "change", "gap", "text", "spans"}
    assert [set(span) for span in facts["spans"]] == [{"text", "start", "end", "weight"}] * 2
    assert facts["spans"][1]["text"] == "，"
    facts = json.loads(json.dumps(explain(picture_model, pictures[0][0]).plain()))
    assert (facts["height"], facts["width"]) == (14, 14)
    assert np.array(facts["weights"]).shape == (14, 14)


class Fixed:
    """A classifier that nothing is known of."""

    n_parameters = 0

    def predict_proba(self, given):
        return np.full((len(given), 2), 0.5, np.float32)


def test_what_cannot_be_explained_is_refused(text_models, picture_model):
    writer = made_predictor("language-modelling")
    with pytest.raises(UsageError, match="for language-modelling says cannot be explained") as refused:
        explain(writer, "好")
    assert not can_explain(writer)
    assert "classifiers" in refused.value.advice
    for predictor, given in ((text_models["bert"], "好"), (picture_model, np.zeros((3, 14, 14), np.uint8))):
        with pytest.raises(UsageError, match="Fixed gives no reasons"):
            explain(replace(predictor, answerer=Fixed()), given)
        assert (can_explain(predictor), can_explain(replace(predictor, answerer=Fixed()))) == (True, False)
    mixed = Ensemble({"fixed": Fixed(), TFIDF: text_models[TFIDF].answerer}, np.ones(2), np.zeros(2))
    assert not can_explain(replace(text_models[ENSEMBLE], answerer=mixed))
    assert all(map(can_explain, text_models.values()))
    with pytest.raises(UsageError, match="no class 'goode'") as unknown:
        explain(text_models["bert"], "好", "goode")
    assert unknown.value.advice == "did you mean 'good'?"
    with pytest.raises(UsageError, match="explains a picture"):
        explain(picture_model, "好")
    with pytest.raises(UsageError, match="explains a text"):
        explain(text_models["bert"], np.zeros((3, 14, 14), np.uint8))


def test_a_family_without_token_vectors_is_refused(text_models):
    model = text_models["bert"].answerer

    class Bare(type(model.module)):
        def modules(self):
            return iter([self])

    module = Bare(model.module.config, model.module.signature)
    bare = replace(text_models["bert"], answerer=NeuralClassifier(module, model.tokenizer))
    with pytest.raises(UsageError, match="0 token embeddings"):
        explain(bare, "好")
    assert not can_explain(bare)
