from __future__ import annotations

import pytest
import torch
from torch import nn

from danlu.model.base import Signature
from danlu.model.init import EMBEDDING_STD
from small import make_module

CLASSES = Signature(task="text-classification", vocab_size=300, n_classes=2)


def test_initial_weights_have_the_spread_that_is_promised():
    module = make_module("bert", CLASSES, d_model=128, d_ff=512, n_heads=4)
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


def test_a_convolution_is_drawn_by_all_that_one_of_its_outputs_sums():
    signature = Signature(task="image-classification", n_classes=3, image_size=(1, 28, 28))
    module = make_module("cnn", signature, channels=[64, 64])
    spreads = {
        (layer.weight.std() * layer.weight[0].numel() ** 0.5).item()
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 1
    }
    assert spreads
    assert all(spread == pytest.approx(1, rel=0.02) for spread in spreads)


def test_a_parameter_does_not_depend_on_which_others_there_are():
    one, two = (make_module("bert", CLASSES, n_layers=n).state_dict() for n in (1, 2))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
