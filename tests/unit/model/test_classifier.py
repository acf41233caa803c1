from __future__ import annotations

import numpy as np
import pytest

from danlu.core.errors import CorruptError
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model import classifier as module
from danlu.model.classifier import NeuralClassifier
from danlu.model.text import TextModel
from small import made_up, make_module, signature_of

TEXTS = [text for text, _ in made_up(40)]
TOKENIZER = train_tokenizer(TEXTS, TokenizerConfig(kind="char", vocab_size=300))
SIGNATURE = signature_of("text-classification", TOKENIZER, 2)


def make_classifier():
    return NeuralClassifier(make_module("bert", SIGNATURE).train(), TOKENIZER)


def test_dropout_is_off_when_it_answers():
    classifier = make_classifier()
    np.testing.assert_array_equal(classifier.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert not classifier.module.training


def test_many_texts_are_answered_in_batches_that_fit(monkeypatch):
    classifier = make_classifier()
    whole = classifier.predict_proba(TEXTS)
    monkeypatch.setattr(module, "_BATCH_TOKENS", 64)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), whole, atol=1e-6)


@pytest.mark.parametrize("name", ["config.json", "signature.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"{}", None])
def test_damaged_files_are_called_corrupt(tmp_path, name, content):
    make_classifier().save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    for kind in (NeuralClassifier, TextModel):
        with pytest.raises(CorruptError):
            kind.load(tmp_path)


def test_it_knows_the_tokens_that_stand_for_no_text():
    special = make_classifier().special
    assert (special.mask, special.begin, special.end) == (4, 2, 3)
