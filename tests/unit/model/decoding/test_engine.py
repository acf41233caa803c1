from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from danlu.core.seeds import Seeds
from danlu.model.adapters import add_adapters, initialise_adapters, merge_adapters
from danlu.model.base import Signature
from danlu.model.decode import prompt_batch
from danlu.model.decoding.engine import QuickGpt, quick
from danlu.model.decoding.matrix import Matrix
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.layers.lora import LoraConfig

STYLES: dict[str, dict[str, Any]] = {
    "own": {},
    "gpt-2": {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True},
    "qwen2": {"n_kv_heads": 2, "qkv_bias": True, "tie_embeddings": False},
    "qwen3": {"n_kv_heads": 1, "qk_norm": True, "d_head": 12},
    "relu": {"norm": "layer", "activation": "relu", "bias": True, "norm_eps": 0.1},
    "narrow": {"activation": "gelu", "d_ff": 16, "norm_eps": 0.1},
}


def make(style: str) -> Gpt:
    values = {"d_model": 32, "n_heads": 4, "n_layers": 3, "d_ff": 48, "max_len": 40, **STYLES[style]}
    module = Gpt(GptConfig(family="gpt", **values), Signature(task="language-modelling", vocab_size=90))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        nn.init.normal_(parameter, mean, 0.4, generator=generator)
    return module.eval()


def prompts(n: int) -> list[list[int]]:
    return [[(7 * i + j * j) % 85 + 5 for j in range(1 + (5 * i) % 11)] for i in range(n)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("n_texts", [1, 3, 4, 9])
@torch.inference_mode()
def test_it_gives_the_logits_of_the_module(style, n_texts):
    module = make(style)
    engine = quick(module)
    assert isinstance(engine, QuickGpt)
    batch = prompt_batch(prompts(n_texts), 2)
    logits_BV, state = module.begin(batch, 40)
    ours_BV, our_state = engine.begin(batch, 40)
    assert torch.equal(ours_BV, logits_BV)
    for _ in range(25):
        tokens_B = logits_BV.argmax(1)
        logits_BV, ours_BV = module.advance(tokens_B, state), engine.advance(tokens_B, our_state)
        # The largest difference measured is 7e-6 of the largest logit: other orders of sums, oneDNN's curves.
        apart = (ours_BV - logits_BV).abs().max() / logits_BV.abs().max()
        assert apart < 3e-5
        assert torch.equal(ours_BV.argmax(1), logits_BV.argmax(1))
    assert torch.equal(our_state.lengths_B, state.lengths_B)


@pytest.mark.parametrize(
    "rows", [[4, 1, 2, 3], [0, 1], [2], [3, 3, 0, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [4, 3, 2, 1, 0]]
)
@torch.inference_mode()
def test_texts_that_are_selected_go_on_as_they_would_have(rows):
    module = make("own")
    engine = QuickGpt(module)
    batch, rows_B = prompt_batch(prompts(5), 2), torch.tensor(rows)
    (_, state), (_, our_state) = module.begin(batch, 40), engine.begin(batch, 40)
    for _ in range(3):
        tokens_B = torch.arange(len(state.lengths_B)) + 11
        module.advance(tokens_B, state)
        engine.advance(tokens_B, our_state)
    state, our_state = state.select(rows_B), our_state.select(rows_B)
    for _ in range(3):
        tokens_B = torch.arange(len(rows)) + 20
        expected_BV, ours_BV = module.advance(tokens_B, state), engine.advance(tokens_B, our_state)
        torch.testing.assert_close(ours_BV, expected_BV, atol=4e-5, rtol=0)


def test_a_module_that_it_cannot_stand_for_is_left_as_it_is():
    adapted = make("own")
    add_adapters(adapted, LoraConfig())
    initialise_adapters(adapted, Seeds.new("1"))
    assert quick(adapted) is adapted
    merge_adapters(adapted)
    assert isinstance(quick(adapted), QuickGpt)
    double = make("own").double()
    assert quick(double) is double
    engine = QuickGpt(make("own"))
    assert quick(engine) is engine


@pytest.mark.parametrize("curve", ["none", "relu", "gelu", "gelu-tanh"])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_a_product_is_that_of_a_linear_layer_however_many_rows_there_are(curve, shape, biased):
    torch.manual_seed(0)
    linear = nn.Linear(*shape, bias=biased)
    curves = {"none": nn.Identity(), "relu": nn.ReLU(), "gelu": nn.GELU(), "gelu-tanh": nn.GELU(approximate="tanh")}
    matrix = Matrix(linear.weight.detach(), None if linear.bias is None else linear.bias.detach(), curve)
    for n_rows in (1, 2, 3, 4, 17):
        x_BD = torch.randn(n_rows, shape[0])
        y_BF = torch.randn(n_rows, shape[1])
        # 2e-6 measured, of numbers up to 4.
        torch.testing.assert_close(matrix(x_BD), curves[curve](linear(x_BD)), atol=1e-5, rtol=0)
        if curve == "none":
            before = y_BF.clone()
            torch.testing.assert_close(matrix.add_to(y_BF, x_BD), before + linear(x_BD), atol=1e-5, rtol=0)
            assert torch.equal(y_BF, before)
