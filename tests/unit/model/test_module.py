from __future__ import annotations

import json

import pytest
import torch

from danlu.core.errors import CorruptError, UsageError
from danlu.model.base import Signature
from danlu.model.module import load_backbone, load_module, save_module
from small import make_module, make_training

HIDDEN_TOKENS = Signature(task="masked-language-modelling", vocab_size=40, mask_token=4)


def classes(n_classes=2):
    return Signature(task="text-classification", vocab_size=40, mask_token=4, n_classes=n_classes)


def module_of(signature, seed="1", **changes):
    return make_module("bert", signature, seed, **changes)


def test_what_the_module_takes_and_answers_comes_back(tmp_path):
    signature = Signature(task="image-classification", n_classes=3, image_size=(1, 28, 28))
    save_module(tmp_path, make_module("mlp", signature))
    assert load_module(tmp_path).signature == signature  # the size as a tuple again
    assert not load_module(tmp_path).config.plain().keys() ^ json.loads((tmp_path / "config.json").read_text()).keys()


def test_a_backbone_carries_everything_but_the_head(tmp_path):
    before = module_of(HIDDEN_TOKENS)
    save_module(tmp_path, before)
    after = module_of(classes(), seed="2")
    head = {name: tensor.clone() for name, tensor in after.state_dict().items() if name.startswith("head.")}
    assert head
    assert set(load_backbone(after, tmp_path)) == head.keys()
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, head[name] if name.startswith("head.") else before.state_dict()[name])


@pytest.mark.parametrize(("other", "carried"), [(classes(2), True), (classes(3), False)])
def test_a_head_is_carried_where_it_answers_the_same(tmp_path, other, carried):
    before, after = module_of(classes(2)), module_of(other, seed="2")
    save_module(tmp_path, before)
    new = load_backbone(after, tmp_path)
    assert sorted(new) == ([] if carried else ["head.linear.bias", "head.linear.weight"])
    shape = before.head.linear.weight.shape
    same = after.head.linear.weight.shape == shape and torch.equal(after.head.linear.weight, before.head.linear.weight)
    assert same == carried


@pytest.mark.parametrize("changes", [{"d_model": 32}, {"n_layers": 2}])
def test_a_backbone_of_another_shape_is_refused(tmp_path, changes):
    save_module(tmp_path, module_of(HIDDEN_TOKENS))
    with pytest.raises(CorruptError, match="cannot start from these weights"):
        load_backbone(module_of(classes(), **changes), tmp_path)
    save_module(tmp_path, module_of(HIDDEN_TOKENS, **changes))
    with pytest.raises(CorruptError, match="cannot start from these weights"):
        load_backbone(module_of(classes()), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b'{"family": "bert", "d_model": -1}'),
        ("signature.json", b"{}"),
        ("signature.json", b"[]"),
        ("signature.json", b'{"task": "cooking"}'),
        ("signature.json", b'{"task": "translation", "vocab_size": 40}'),
        ("signature.json", b'{"task": "text-classification", "vocab_size": "many"}'),
        ("model.safetensors", b"xx"),
        ("model.safetensors", b""),
        ("model.safetensors", None),
        ("signature.json", None),
        ("config.json", None),
    ],
)
def test_damaged_files_are_called_corrupt(tmp_path, name, content):
    save_module(tmp_path, module_of(classes()))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptError):
        load_module(tmp_path)
    if name == "model.safetensors":
        with pytest.raises(CorruptError):
            load_backbone(module_of(classes()), tmp_path)


def test_a_family_that_is_not_here_is_named(tmp_path):
    save_module(tmp_path, module_of(classes()))
    (tmp_path / "config.json").write_text('{"family": "brt"}')
    with pytest.raises(UsageError, match="unknown model family 'brt'"):
        load_module(tmp_path)


def test_a_module_of_another_number_of_classes_does_not_fit(tmp_path):
    save_module(tmp_path, module_of(classes(3)))
    signature = json.loads((tmp_path / "signature.json").read_text())
    (tmp_path / "signature.json").write_text(json.dumps(signature | {"n_classes": 2}))
    with pytest.raises(CorruptError, match="not a saved model"):
        load_module(tmp_path)


def test_frozen_parameters_are_counted_but_not_as_trained():
    module = make_training().module
    n = module.n_parameters()
    assert module.n_trained() == n
    module.norm.weight.requires_grad_(False)
    assert (module.n_parameters(), module.n_trained()) == (n, n - 16)


def test_a_shared_parameter_is_counted_once():
    shared = module_of(HIDDEN_TOKENS)
    by_name = sum(p.numel() for p in shared.parameters())
    assert shared.n_parameters() == by_name
    tied, own = (
        make_module("gpt", Signature(task="language-modelling", vocab_size=40), tie_embeddings=tie)
        for tie in (True, False)
    )
    assert own.n_parameters() - tied.n_parameters() == 40 * 16
