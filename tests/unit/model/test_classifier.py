from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from danlu.core.errors import CorruptError
from danlu.core.seeds import Seeds
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model.bert import BertConfig
from danlu.model.classifier import NeuralClassifier, build_module, load_backbone, save_module
from danlu.model.init import EMBEDDING_STD, initialise
from small import SIZES, made_up, make_training

TEXTS = [text for text, _ in made_up(40)]
TOKENIZER = train_tokenizer(TEXTS, TokenizerConfig(kind="char", vocab_size=300))


def module_of(n_classes, seed="1", **changes):
    module = build_module(BertConfig(family="bert", **(SIZES["bert"] | changes)), TOKENIZER, n_classes)
    initialise(module, Seeds.new(seed))
    return module


def test_a_backbone_carries_everything_but_the_head(tmp_path):
    before = module_of(None)
    save_module(tmp_path, before, TOKENIZER)
    after = module_of(2, seed="2")
    head = {name: tensor.clone() for name, tensor in after.state_dict().items() if name.startswith("head.")}
    load_backbone(after, tmp_path)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, head[name] if name.startswith("head.") else before.state_dict()[name])


@pytest.mark.parametrize("changes", [{"d_model": 32}, {"n_layers": 2}])
def test_a_backbone_of_another_shape_is_refused(tmp_path, changes):
    save_module(tmp_path, module_of(None), TOKENIZER)
    with pytest.raises(CorruptError, match="cannot start from these weights"):
        load_backbone(module_of(2, **changes), tmp_path)
    save_module(tmp_path, module_of(None, **changes), TOKENIZER)
    with pytest.raises(CorruptError, match="cannot start from these weights"):
        load_backbone(module_of(2), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b'{"family": "bert", "d_model": -1}'),
        ("head.json", b"{}"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"xx"),
        ("model.safetensors", b""),
        ("model.safetensors", None),
        ("config.json", None),
    ],
)
def test_damaged_files_are_called_corrupt(tmp_path, name, content):
    NeuralClassifier(module_of(2), TOKENIZER, 2).save(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptError):
        NeuralClassifier.load(tmp_path)
    if name == "model.safetensors":
        with pytest.raises(CorruptError):
            load_backbone(module_of(2), tmp_path)


def test_a_model_of_another_number_of_classes_does_not_fit(tmp_path):
    NeuralClassifier(module_of(3), TOKENIZER, 3).save(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps({"n_classes": 2}))
    with pytest.raises(CorruptError, match="not a saved model"):
        NeuralClassifier.load(tmp_path)


def test_dropout_is_off_when_it_answers():
    classifier = NeuralClassifier(module_of(2).train(), TOKENIZER, 2)
    np.testing.assert_array_equal(classifier.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert not classifier.module.training


def test_many_texts_are_answered_in_batches_that_fit(monkeypatch):
    from danlu.model import classifier as module

    classifier = NeuralClassifier(module_of(2), TOKENIZER, 2)
    whole = classifier.predict_proba(TEXTS)
    monkeypatch.setattr(module, "_BATCH_TOKENS", 64)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS), whole, atol=1e-6)


def test_initial_weights_have_the_spread_that_is_promised():
    module = module_of(2, d_model=128, d_ff=512, n_heads=4)
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            expected = layer.in_features**-0.5
            assert layer.weight.std().item() == pytest.approx(
                expected, rel=0.15 if layer.weight.numel() < 1e3 else 0.05
            )
            assert not layer.bias.any(), name
        elif isinstance(layer, nn.Embedding):
            assert layer.weight.std().item() == pytest.approx(EMBEDDING_STD, rel=0.05)
        elif isinstance(layer, nn.LayerNorm):
            assert bool((layer.weight == 1).all())
            assert not layer.bias.any()


def test_a_parameter_does_not_depend_on_which_others_there_are():
    one, two = (module_of(2, n_layers=n).state_dict() for n in (1, 2))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_parameters_that_are_shared_or_frozen_are_not_counted_twice_or_at_all():
    module = make_training().module
    n = module.n_parameters()
    module.norm.weight.requires_grad_(False)
    assert module.n_parameters() == n - 16
    shared = module_of(None)
    by_name = sum(p.numel() for p in shared.parameters())
    assert shared.n_parameters() == by_name
