from __future__ import annotations

import json
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from danlu.core.errors import CorruptError, DataError
from danlu.model.ngram import NgramConfig, NgramModel


class Dictionaries:
    """The same model from the formulas of Chen and Goodman, with dictionaries and one n-gram at a time."""

    def __init__(self, order, texts):
        seen = [Counter() for _ in range(order)]
        for text in texts:
            symbols = ("<s>", *text, "</s>")
            for end in range(1, len(symbols)):
                for n in range(1, order + 1):
                    if end + 1 >= n:
                        seen[n - 1][symbols[end + 1 - n : end + 1]] += 1
        self.counts = []
        for n in range(order):
            before = defaultdict(set)
            for gram in seen[n + 1] if n + 1 < order else ():
                before[gram[1:]].add(gram[0])
            self.counts.append({gram: len(before[gram]) if before[gram] else count for gram, count in seen[n].items()})
        self.discounts = [self.estimate(list(counts.values())) for counts in self.counts]
        self.followers = defaultdict(list)
        for counts in self.counts:
            for gram, count in counts.items():
                self.followers[gram[:-1]].append(count)

    @staticmethod
    def estimate(counts):
        n = [None, *(counts.count(k) for k in (1, 2, 3, 4))]
        if all(n[1:]):
            y = n[1] / (n[1] + 2 * n[2])
            found = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
            if min(found) > 0:
                return found
        return [0.5, 1.0, 1.5]

    def probability(self, history, symbol):
        below = self.probability(history[1:], symbol) if history else 1 / (0x110000 + 1)
        followers = self.followers.get(history)
        if not followers:
            return below
        discounts = self.discounts[len(history)]
        off = [discounts[min(count, 3) - 1] for count in followers]
        count = self.counts[len(history)].get((*history, symbol), 0)
        own = count - discounts[min(count, 3) - 1] if count else 0
        return (own + sum(off) * below) / sum(followers)

    def nats(self, text):
        symbols, n = ("<s>", *text, "</s>"), len(self.counts)
        return [-math.log(self.probability(symbols[max(0, i + 1 - n) : i], symbols[i])) for i in range(1, len(symbols))]


def poems(n, seed=0):
    """Texts with counts of counts like those of a language: characters by Zipf's law, each after its neighbours."""
    rng = np.random.default_rng(seed)
    return ["".join(chr(0x4E00 + c) for c in np.cumsum(rng.zipf(1.6, rng.integers(0, 24)) % 7) % 40) for _ in range(n)]


UNSEEN = ["", "一", "x", "😀", "一x一丁", "\ud800", "\x00", "丁" * 30]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 60, 800])
def test_it_is_what_dictionaries_and_the_formulas_give(order, n):
    texts = poems(n + 1)[-n:]
    model, reference = NgramModel(NgramConfig(order=order)).fit(texts), Dictionaries(order, texts)
    unseen = [*poems(20, seed=1), *texts[:5], *UNSEEN]
    # The same sums in another order: a few last bits of float64.
    for text in unseen:
        np.testing.assert_allclose(model.nats_per_character(text), reference.nats(text), rtol=1e-12)
    np.testing.assert_allclose(model.nats(unseen), [sum(reference.nats(text)) for text in unseen], rtol=1e-12)
    assert model.n_parameters == sum(map(len, reference.counts))


def test_the_discounts_are_estimated_where_they_can_be():
    """That the comparison above is about the estimates and not about the fallback only."""
    reference = Dictionaries(3, poems(800))
    assert [0.5, 1.0, 1.5] not in reference.discounts[1:]
    assert Dictionaries(3, poems(2)).discounts == [[0.5, 1.0, 1.5]] * 3


def test_discounts_below_zero_are_not_believed():
    """Five characters once, one twice, five three times, one four times: the second discount would be -8.7."""
    texts = ["abcdefghijkl"[i] * n for i, n in enumerate([1] * 5 + [2] + [3] * 5 + [4])]
    reference = Dictionaries(1, texts)
    assert reference.discounts == [[0.5, 1.0, 1.5]]
    found = NgramModel(NgramConfig(order=1)).fit(texts).nats_per_character("afgx")
    np.testing.assert_allclose(found, reference.nats("afgx"), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_after_any_context_the_probabilities_sum_to_one(order):
    texts = poems(300)
    model = NgramModel(NgramConfig(order=order)).fit(texts)
    known = sorted(set("".join(texts)))
    for context in ["", *UNSEEN, *(text[: i + 1] for i, text in enumerate(poems(12, seed=2)))]:
        at = len(context)
        character = [model.nats_per_character(context + c)[at] for c in known]
        unknown = math.exp(-model.nats_per_character(context + "x")[at])
        assert math.exp(-model.nats_per_character(context + "\U0010ffff")[at]) == unknown
        total = np.exp(-np.array(character)).sum() + math.exp(-model.nats_per_character(context)[at])
        assert total + unknown * (0x110000 - len(known)) == pytest.approx(1, abs=1e-12)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.text(max_size=12))
def test_any_text_has_a_finite_probability(texts, unseen):
    if not any(texts):
        texts = [*texts, "x"]
    model = NgramModel(NgramConfig(order=3)).fit(texts)
    nats = model.nats([*texts, unseen])
    assert np.isfinite(nats).all()
    assert (nats > 0).all()
    assert model.nats_per_character(unseen).sum() == pytest.approx(nats[-1])


def test_a_text_answers_alone_as_among_others():
    model, texts = NgramModel(NgramConfig()).fit(poems(300)), poems(50, seed=3)
    np.testing.assert_array_equal(model.nats(texts), np.concatenate([model.nats([text]) for text in texts]))
    assert model.nats([]).shape == (0,)


def test_longer_contexts_help_on_text_that_has_them():
    texts = poems(3000)
    bits = [NgramModel(NgramConfig(order=n)).fit(texts[:2800]).nats(texts[2800:]).sum() for n in (1, 2)]
    assert bits[1] < 0.8 * bits[0]


def test_what_it_writes_follows_its_probabilities():
    model, rng = (
        NgramModel(NgramConfig(order=3)).fit(["甲乙丙", "甲乙丁", "甲乙", "丙甲"] * 3),
        np.random.default_rng(0),
    )
    n = 4000
    drawn = Counter(model.generate("丙甲乙", 1, rng) for _ in range(n))
    expected = {c: math.exp(-model.nats_per_character("丙甲乙" + c)[3]) for c in ["甲", "乙", "丙", "丁", ""]}
    seen = sum(expected.values())  # the rest is the unknown, which is never written
    assert set(drawn) <= set(expected)
    for c, p in expected.items():
        p /= seen
        assert abs(drawn[c] / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_writing_stops_at_the_length_or_at_the_end_and_obeys_the_generator():
    texts = poems(300)
    model = NgramModel(NgramConfig()).fit(texts)
    written = [model.generate("x", 9, np.random.default_rng(seed)) for seed in range(20)]
    assert written == [model.generate("x", 9, np.random.default_rng(seed)) for seed in range(20)]
    assert len(set(written)) > 10
    assert {len(text) for text in written} > {9}
    assert set("".join(written)) <= set("".join(texts))
    assert model.generate("x", 0, np.random.default_rng(0)) == ""
    assert len(NgramModel(NgramConfig(order=1)).fit(["甲" * 10**4]).generate("", 50, np.random.default_rng(0))) == 50


def test_the_same_to_the_bit_after_reload(tmp_path):
    model = NgramModel(NgramConfig(order=4)).fit(poems(300))
    model.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = NgramModel.load(tmp_path)
    unseen = [*poems(50, seed=1), *UNSEEN]
    np.testing.assert_array_equal(again.nats(unseen), model.nats(unseen))
    assert again.config == model.config
    assert again.n_parameters == model.n_parameters
    first, second = (m.generate("一", 20, np.random.default_rng(0)) for m in (model, again))
    assert first == second


def test_a_text_shorter_than_the_order_is_enough():
    model = NgramModel(NgramConfig(order=9)).fit(["甲"])
    assert np.exp(-model.nats_per_character("甲")).min() > 0.25


def test_nothing_to_learn_from():
    for texts in ([], [""], ["", ""]):
        with pytest.raises(DataError, match="needs text"):
            NgramModel(NgramConfig()).fit(texts)
    with pytest.raises(ValidationError, match="order"):
        NgramConfig(order=0)


def test_damaged_files_are_called_corrupt(tmp_path):
    NgramModel(NgramConfig(order=3)).fit(poems(30)).save(tmp_path)
    for name, content in [("model.safetensors", b"xx"), ("config.json", b"[]"), ("config.json", b'{"order": 4}')]:
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptError):
            NgramModel.load(tmp_path)
        (tmp_path / name).write_bytes(kept)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, wrong in [
        ("characters", tensors["characters"][1:]),
        ("characters", tensors["characters"] + np.uint32(0x110000)),
        ("counts_1", tensors["counts_1"][1:]),
        ("keys_2", tensors["keys_2"][::-1].copy()),
        ("keys_3", tensors["keys_3"] + 10**9),
        ("keys_3", tensors["keys_3"].astype(np.float64)),
    ]:
        save_file({**tensors, name: wrong}, tmp_path / "model.safetensors")
        with pytest.raises(CorruptError):
            NgramModel.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CorruptError):
        NgramModel.load(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"order": 3}
