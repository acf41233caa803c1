from __future__ import annotations

import json

import numpy as np
import pytest

from danlu.core.errors import CorruptError
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model.cascade import Cascade, best_threshold
from danlu.model.translation_memory import TranslationMemory, TranslationMemoryConfig
from danlu.model.translator import NeuralTranslator
from small import make_module, signature_of

KNOWN = ["open the file", "close the file", "save the file as"]
TARGETS = ["打开文件", "关闭文件", "文件另存为"]


class Counted(NeuralTranslator):
    """A network that says what it was asked."""

    def __init__(self) -> None:
        tokenizer = train_tokenizer(KNOWN + TARGETS, TokenizerConfig(kind="char", vocab_size=300))
        super().__init__(make_module("transformer", signature_of("translation", tokenizer)), tokenizer)

    def translate(self, texts):
        return [f"?{text}" for text in texts]


def memory() -> TranslationMemory:
    return TranslationMemory(TranslationMemoryConfig()).fit(KNOWN, TARGETS)


def test_the_memory_answers_from_the_threshold_on_and_the_network_below_it():
    asked = ["open the file", "a wholly different thing", "close the files"]
    similar = [answer.similarity for answer in memory().answers(asked)]
    assert similar[0] == 1.0 > similar[2] > similar[1]
    answers = memory().translate(asked)
    assert Cascade(memory(), Counted(), similar[2]).translate(asked) == [answers[0], f"?{asked[1]}", answers[2]]
    assert Cascade(memory(), Counted(), 1.0).translate(asked) == [answers[0], f"?{asked[1]}", f"?{asked[2]}"]
    assert Cascade(memory(), Counted(), 2.0).translate(asked) == [f"?{text}" for text in asked]
    assert Cascade(memory(), Counted(), 0.0).translate(asked) == answers
    assert Cascade(memory(), Counted(), 0.5).translate([]) == []


def test_the_best_threshold_is_that_of_trying_every_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        similarity = rng.integers(0, 6, 20) / 5
        a, b = rng.random((2, 20))
        found = best_threshold(similarity, a, b)
        every = {t: float(np.where(similarity >= t, a, b).mean()) for t in (*similarity, 2.0)}
        assert every[found] == pytest.approx(max(every.values()))
    assert best_threshold(np.array([0.9, 0.1]), np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0.9
    assert best_threshold(np.array([0.9, 0.1]), np.zeros(2), np.ones(2)) == 2.0


def test_what_was_saved_answers_the_same_and_damage_is_named(tmp_path):
    asked = ["open the file", "something else"]
    tokenizer = train_tokenizer(KNOWN + TARGETS, TokenizerConfig(kind="char", vocab_size=300))
    network = NeuralTranslator(make_module("transformer", signature_of("translation", tokenizer)), tokenizer)
    cascade = Cascade(memory(), network, 0.8)
    cascade.save(tmp_path)
    again = Cascade.load(tmp_path)
    assert again.threshold == 0.8
    assert again.translate(asked) == cascade.translate(asked)
    assert again.n_parameters == cascade.n_parameters == 3 + network.n_parameters + 1
    (tmp_path / "cascade.json").write_text(json.dumps({"threshold": "high"}))
    with pytest.raises(CorruptError, match="no threshold"):
        Cascade.load(tmp_path)
