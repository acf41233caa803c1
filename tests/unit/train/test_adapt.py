from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from danlu.core.progress import Silent
from danlu.model.module import load_module
from danlu.model.predictor import load_predictor
from danlu.train.prepare import Sources, Start
from danlu.train.stage import train_model
from small import SCORE, made_up, make_dataset, spec_of


@pytest.fixture
def world(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    spec = spec_of(tmp_path, train={"epochs": 1}, seed=3)
    first = train_model(workspace, "first", dataset, spec, Sources(), SCORE, Silent())
    return tmp_path, workspace, dataset, first


def tuned(world, mode, **train):
    folder, workspace, dataset, first = world
    adapt = {"mode": mode, "lora": {"rank": 2, "dropout": 0.0}}
    train = {"learning_rate": 0.02, "adapt": adapt, "epochs": 2, **train}
    spec = spec_of(folder, model={"from": str(first.path)}, train=train)
    sources = Sources(start=Start(first.path, first.digest))
    return train_model(workspace, "tuned", dataset, spec, sources, SCORE, Silent())


def changed(before, after):
    one, two = load_module(before.path).state_dict(), load_module(after.path).state_dict()
    assert one.keys() == two.keys()
    return {name for name in one if not torch.equal(one[name], two[name])}


@pytest.mark.parametrize("mode", ["full", "lora", "head"])
def test_only_what_was_to_be_trained_is_changed_and_the_record_says_so(world, mode):
    *_, dataset, first = world
    model = tuned(world, mode)
    assert model.manifest["parents"] == {"dataset": dataset.digest, "start": first.digest}
    facts, found = model.json("training.json"), changed(first, model)
    everything = set(load_module(first.path).state_dict())
    head = {name for name in everything if name.startswith("head.")}
    adapted = {f"blocks.0.{name}.weight" for name in ("attention.q", "attention.k", "attention.v", "attention.out")}
    adapted |= {f"blocks.0.feedforward.{name}.weight" for name in ("up", "down")}
    if mode == "full":
        assert len(found) > 0.9 * len(everything)
        assert facts["n_trained"] == facts["n_parameters"]
    else:
        assert found == (head if mode == "head" else head | adapted)
        n_head = sum(load_module(first.path).get_parameter(name).numel() for name in head)
        n_adapters = sum(2 * (sum(load_module(first.path).get_parameter(name).shape)) for name in adapted)
        assert facts["n_trained"] == n_head + (n_adapters if mode == "lora" else 0)
    assert ("merge_difference" in facts) == (model.path / "adapter").is_dir() == (mode == "lora")


def test_the_merged_model_answers_as_the_one_with_adapters_and_these_are_kept_in_pefts_format(world):
    from danlu.model.adapters import merge_adapters
    from danlu.model.classifier import NeuralClassifier
    from danlu.model.peft_format import load_adapters

    *_, first = world
    model = tuned(world, "lora")
    # Sums in another order: measured 2e-7 of logits about 1.
    assert model.json("training.json")["merge_difference"] < 2e-6
    config = json.loads((model.path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["peft_type"]) == (2, "LORA")
    merged = load_predictor(model).answerer
    again = load_predictor(first).answerer
    load_adapters(again.module, model.path / "adapter", str)
    texts = [text for text, _ in made_up(20, seed=4)]
    assert isinstance(again, NeuralClassifier)
    np.testing.assert_allclose(merged.predict_proba(texts), again.predict_proba(texts), atol=1e-6)
    merge_adapters(again.module)
    np.testing.assert_allclose(merged.predict_proba(texts), again.predict_proba(texts), atol=1e-6)


def test_the_same_seed_tunes_to_the_same_bits(world, tmp_path):
    model = tuned(world, "lora")
    (tmp_path / "again").mkdir()
    workspace, dataset = make_dataset(tmp_path / "again")
    again = tuned((tmp_path, workspace, dataset, world[3]), "lora")
    for name in ("model.safetensors", "metrics.jsonl", "adapter/adapter_model.safetensors"):
        assert again.manifest["files"][name] == model.manifest["files"][name]
