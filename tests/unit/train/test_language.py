from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from danlu.core.batch import NOT_PREDICTED
from danlu.core.errors import UsageError
from danlu.data.tokenizer import encode
from danlu.train import language
from danlu.train.examples import load_texts
from small import made_up, make_dataset, material_of, spec_of

TASK = "language-modelling"


@pytest.fixture
def world(tmp_path):
    rows = [*made_up(), ("".join(text for text, _ in made_up(9, seed=5)), "good")]  # one text is far longer
    _, dataset = make_dataset(tmp_path, rows, task=TASK)
    return tmp_path, dataset


def prepared(world, family="gpt", **sections):
    folder, dataset = world
    return language.prepare(material_of(dataset, spec_of(folder, family, task=TASK, **sections)))


@pytest.mark.parametrize("family", ["gpt", "gru"])
def test_an_epoch_asks_for_every_token_and_end_of_the_training_texts_once(world, family):
    ready = prepared(world, family, train={"epochs": 1})
    texts = load_texts(world[1], "train")
    tokens = encode(ready.answerer.tokenizer, texts, None)
    asked, widest = [], 0
    for step in range(ready.feed.n_steps):
        batch = ready.feed.batch(step)
        asked += batch.targets[batch.targets != NOT_PREDICTED].tolist()
        widest = max(widest, batch.targets.shape[1])
    ends = [ready.module.signature.end_token] * len(texts)
    assert sorted(asked) == sorted([*tokens.ids.tolist(), *ends])
    assert widest == ready.answerer.config.max_len
    assert ready.feed.n_tokens == len(asked)


def test_the_loss_of_training_is_the_nats_by_the_token(world):
    """On short texts, which are one window each: what the batches say together is what the language model says."""
    ready = prepared(world, train={"epochs": 1})
    texts = [text for text in load_texts(world[1], "train") if len(text) < 32]
    model, module = ready.answerer, ready.module.eval()
    total, n_asked = 0.0, 0
    with torch.inference_mode():
        for step in range(ready.feed.n_steps):
            batch = ready.feed.batch(step)
            short = batch.targets[:, 0] != NOT_PREDICTED
            begins = batch.text[0][:, 0] == module.signature.begin_token
            whole = begins & (batch.targets == module.signature.end_token).any(1) & short
            rows = whole.nonzero()[:, 0]
            parts = {
                name: getattr(batch, name)[rows]
                for name in ("rows_B", "tokens_BT", "mask_BT", "positions_BT", "targets_BT")
            }
            some = dataclasses.replace(batch, **parts)
            n_here = int((some.targets != NOT_PREDICTED).sum())
            total, n_asked = total + module.loss(module(some), some).item() * n_here, n_asked + n_here
    assert n_asked == int(model.count_tokens(texts).sum())
    assert total == pytest.approx(model.nats(texts).sum(), rel=1e-5)


def test_it_is_judged_by_the_bits_per_character_of_the_validation_texts(world, monkeypatch):
    ready = prepared(world)
    ready.module.eval()
    texts = load_texts(world[1], "valid")
    expected = ready.answerer.nats(texts).sum() / math.log(2) / sum(map(len, texts))
    assert ready.evaluate(ready.module) == {"score": -expected, "bits_per_character": expected}
    monkeypatch.setattr(language, "N_VALID_TEXTS", 3)
    few = prepared(world)
    bits = few.evaluate(few.module.eval())["bits_per_character"]
    assert bits == pytest.approx(few.answerer.nats(texts[:3]).sum() / math.log(2) / sum(map(len, texts[:3])))


def test_the_vocabulary_is_that_of_the_training_texts_alone(tmp_path):
    rows = [(f"{text}{'甲' if n % 3 else '乙'}", label) for n, (text, label) in enumerate(made_up())]
    _, dataset = make_dataset(tmp_path, rows, task=TASK)
    only_in_valid = set("".join(load_texts(dataset, "valid"))) - set("".join(load_texts(dataset, "train")))
    ready = language.prepare(material_of(dataset, spec_of(tmp_path, "gpt", task=TASK)))
    vocabulary = set(ready.answerer.tokenizer.get_vocab())
    assert not only_in_valid & vocabulary
    assert {"甲", "乙"} <= vocabulary


def test_seeds_and_tokenizer_are_kept_for_the_next_process(world):
    folder, dataset = world
    spec = spec_of(folder, "gpt", task=TASK, seed=None)
    run = folder / "run"
    run.mkdir()
    first, again = (language.prepare(material_of(dataset, spec, run)) for _ in range(2))
    other = language.prepare(material_of(dataset, spec))
    assert (run / "seeds.json").exists()
    assert (run / "tokenizer.json").exists()
    weights = [dict(ready.module.named_parameters()) for ready in (first, again, other)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert not torch.equal(weights[0]["embedding.tokens.weight"], weights[2]["embedding.tokens.weight"])
    assert all(np.array_equal(first.feed.rows(step), again.feed.rows(step)) for step in range(first.feed.n_steps))


def test_sizes_that_do_not_fit_are_the_users_mistake(world):
    folder, dataset = world
    spec = spec_of(folder, "bert")
    with pytest.raises(UsageError, match="a bert is not trained for language-modelling"):
        language.prepare(material_of(dataset, spec))


@pytest.mark.parametrize("model", [{}, {"positions": "learned", "norm": "layer", "activation": "gelu", "bias": True}])
def test_texts_that_share_a_row_do_not_see_each_other(world, model):
    """Loss and gradients of packed rows are those of the same texts each in a row of its own."""
    packed, plain = (prepared(world, model=model, train={"pack": pack}) for pack in (True, False))
    rows, found = packed.feed.rows(0), []
    for work in (packed, plain):
        batch = work.feed._make(rows, 0)
        loss = work.module.loss(work.module(batch), batch)
        torch.autograd.backward(loss)
        found.append((loss, {name: weight.grad for name, weight in work.module.named_parameters()}, batch))
    (loss, gradients, together), (expected, others, apart) = found
    assert len(together.rows_B) < len(apart.rows_B)
    assert sorted(together.targets[together.targets >= 0].tolist()) == sorted(
        apart.targets[apart.targets >= 0].tolist()
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], atol=2e-6), name


def test_an_epoch_of_packed_rows_asks_for_everything_once_and_wastes_little(world):
    ready, plain = (prepared(world, train={"epochs": 1, "pack": pack}) for pack in (True, False))
    asked, positions = [], 0
    for step in range(ready.feed.n_steps):
        batch = ready.feed.batch(step)
        asked += batch.targets[batch.targets != NOT_PREDICTED].tolist()
        assert batch.text[0].shape[1] == ready.answerer.config.max_len
        assert batch.text[0].numel() == ready.feed.size(step)
        positions += batch.text[0].numel()
        for row in range(len(batch.rows_B)):  # the places of a text begin at 0 and go up by one
            for text in range(int(batch.texts_BT[row].max()) + 1):
                own = batch.text[2][row][batch.texts_BT[row] == text]
                assert own.tolist() == list(range(len(own)))
    expected = [plain.feed.batch(step).targets for step in range(plain.feed.n_steps)]
    assert sorted(asked) == sorted(torch.cat([each[each != NOT_PREDICTED] for each in expected]).tolist())
    assert ready.feed.n_tokens / positions > 0.8  # two texts of half a row seldom fit one


def test_a_model_that_remembers_texts_is_not_given_packed_rows(world):
    with pytest.raises(UsageError, match="a gru takes what it has read into the next text of a row"):
        prepared(world, "gru", train={"pack": True})
