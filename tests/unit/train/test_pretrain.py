from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.core.batch import NOT_PREDICTED
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.data.stage import DataConfig, build_dataset, read_split
from danlu.data.tokenizer import encode
from danlu.train import pretrain
from danlu.train.plan import plan_training
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from small import DATA, SCORE, made_up, make_dataset, material_of, spec_of, write_csv


@pytest.fixture
def world(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    return tmp_path, workspace, dataset


def prepared(world, texts=None, model=None, **config):
    folder, _, dataset = world
    spec = spec_of(folder, pretrain={"epochs": 1, **config}, model=model or {})
    return pretrain.prepare(material_of(texts or dataset, spec), held_out=dataset)


def test_it_learns_and_asks_for_the_same_tokens_each_time(world):
    ready = prepared(world)
    ready.module.eval()
    with torch.inference_mode():
        first, again = (ready.evaluate(ready.module) for _ in range(2))
    assert first == again
    assert first["score"] == -first["loss"]
    n_tokens = ready.answerer.tokenizer.get_vocab_size()
    assert first["loss"] == pytest.approx(np.log(n_tokens), abs=1.0)
    one, two = (ready.feed.batch(1) for _ in range(2))
    assert torch.equal(one.tokens_BT, two.tokens_BT)
    assert one.labels_B is None


def test_pairs_are_told_apart_where_that_is_wanted(world):
    ready = prepared(world, model={"n_segments": 2}, next_sentence=True)
    signature = ready.module.signature
    marks = {signature.begin_token, signature.end_token}
    n_true = n_pairs = 0
    for step in range(ready.feed.n_steps):
        batch, again = ready.feed.batch(step), ready.feed.batch(step)
        tokens_BT, mask_BT, _ = batch.text
        assert torch.equal(tokens_BT, again.text[0])
        assert torch.equal(batch.labels_B, again.labels_B)
        assert bool((tokens_BT[:, 0] == signature.begin_token).all())
        assert int(mask_BT.sum(1).max()) <= ready.answerer.config.max_len
        asked = set(batch.targets[batch.targets != NOT_PREDICTED].tolist())
        assert asked
        assert not asked & marks
        n_true, n_pairs = n_true + int(batch.labels_B.sum()), n_pairs + len(batch.labels_B)
    assert 0.3 < n_true / n_pairs < 0.7
    output = ready.module(batch)
    assert output.pair_logits_B2.shape == (len(batch.labels_B), 2)
    alone = prepared(world)
    for each in (ready, alone):
        each.module.eval()
    with torch.inference_mode():
        both, tokens_only = (each.evaluate(each.module)["loss"] for each in (ready, alone))
    assert both == pytest.approx(tokens_only + np.log(2), abs=0.5)


def test_pairs_need_segments(world):
    with pytest.raises(UsageError, match="two parts") as found:
        prepared(world, next_sentence=True)
    assert "model.n_segments=2" in str(found.value.advice)


def test_other_texts_are_read_but_for_those_of_the_test_split(world):
    folder, _, dataset = world
    (folder / "other").mkdir()
    held_out = read_split(dataset, "test", ["text"]).column("text").to_pylist()
    rows = [*made_up(120, seed=9), *((text, "good") for text in held_out)]
    write_csv(folder / "other" / "texts.csv", rows)
    config = DataConfig(**DATA["language-modelling"], split={"valid": 0.2, "test": 0, "seed": 5})
    texts = build_dataset(world[1], "other", config, folder / "other", Silent())
    ready = prepared(world, texts)
    seen = set()
    for step in range(ready.feed.n_steps):
        batch = ready.feed.batch(step)
        whole_BT = torch.where(batch.targets == NOT_PREDICTED, batch.text[0], batch.targets)
        seen |= {tuple(row[mask].tolist()) for row, mask in zip(whole_BT, batch.text[1], strict=True)}
    encoded = encode(ready.answerer.tokenizer, held_out, 32)
    tests = {tuple(encoded.ids[a:b].tolist()) for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)}
    there = read_split(texts, "train", ["text"]).column("text").to_pylist()
    assert set(there) & set(held_out), "some of them were put there"
    assert not seen & tests
    assert len(seen) == len(set(there) - set(held_out))


def test_a_model_that_was_pretrained_on_other_texts_says_so(world):
    folder, workspace, dataset = world
    (folder / "other").mkdir()
    _, texts = make_dataset(folder / "other", made_up(120, seed=9), task="language-modelling")
    spec, sources = spec_of(folder, pretrain={"epochs": 1}), Sources(texts=texts)
    model = train_model(workspace, "tiny", dataset, spec, sources, SCORE, Silent())
    (before,) = workspace.all("pretrained")
    assert before.manifest["parents"] == {"dataset": dataset.digest, "texts": texts.digest}
    assert model.manifest["parents"] == before.manifest["parents"] | {"pretrained": before.digest}
    plan = plan_training(workspace, dataset, spec, sources, SCORE, Silent())
    facts = model.json("training.json")
    assert plan.n_steps == facts["n_steps"] + facts["pretraining"]["n_steps"]
    assert plan.n_tokens == facts["n_tokens"] + facts["pretraining"]["n_tokens"]
