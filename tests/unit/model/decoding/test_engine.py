from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.model.adapters import add_adapters, initialise_adapters, merge_adapters
from danlu.model.base import Model, Signature
from danlu.model.decode import prompt_batch
from danlu.model.decoding.engine import QuickDecoder, quick
from danlu.model.decoding.matrix import Matrix
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.layers.lora import LoraConfig
from danlu.model.transformer import Transformer, TransformerConfig

STYLES: dict[str, dict[str, Any]] = {
    "own": {},
    "gpt-2": {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True},
    "qwen2": {"n_kv_heads": 2, "qkv_bias": True, "tie_embeddings": False},
    "qwen3": {"n_kv_heads": 1, "qk_norm": True, "d_head": 12},
    "relu": {"norm": "layer", "activation": "relu", "bias": True, "norm_eps": 0.1},
    "narrow": {"activation": "gelu", "d_ff": 16, "norm_eps": 0.1},
    "transformer": {"n_decoder_layers": 2},
    "post-norm": {"n_decoder_layers": 2, "norm_first": False, "activation": "swiglu"},
    "rotary": {"n_decoder_layers": 2, "positions": "rotary"},
}
TRANSLATORS = ("transformer", "post-norm", "rotary")


def make(style: str) -> Any:
    values: dict[str, Any] = {"d_model": 32, "n_heads": 4, "n_layers": 3, "d_ff": 48, "max_len": 40, **STYLES[style]}
    module: Model
    if style in TRANSLATORS:
        module = Transformer(
            TransformerConfig(family="transformer", **values), Signature(task="translation", vocab_size=90)
        )
    else:
        module = Gpt(GptConfig(family="gpt", **values), Signature(task="language-modelling", vocab_size=90))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        nn.init.normal_(parameter, mean, 0.1 if style in TRANSLATORS and "tokens" in name else 0.4, generator=generator)
    return module.eval()


def ask(style: str, n_texts: int) -> Batch:
    """Prompts of 1 to 11 tokens, with sources of 1 to 13 where there are any."""
    prompts = [[(7 * i + j * j) % 85 + 5 for j in range(1 + (5 * i) % 11)] for i in range(n_texts)]
    sources = [[(5 * i + 3 * j) % 85 + 5 for j in range(1 + (8 * i) % 13)] for i in range(n_texts)]
    batch, read = prompt_batch(prompts, 2), prompt_batch(sources, 2)
    return replace(batch, source_BS=read.tokens_BT, source_mask_BS=read.mask_BT) if style in TRANSLATORS else batch


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("n_texts", [1, 2, 3, 9])
@torch.inference_mode()
def test_it_gives_the_logits_of_the_module(style, n_texts):
    module = make(style)
    engine = quick(module)
    assert isinstance(engine, QuickDecoder)
    batch = ask(style, n_texts)
    logits_BV, state = module.begin(batch, 40)
    ours_BV, our_state = engine.begin(batch, 40)
    assert torch.equal(ours_BV, logits_BV)
    for _ in range(25):
        tokens_B = logits_BV.argmax(1)
        logits_BV, ours_BV = module.advance(tokens_B, state), engine.advance(tokens_B, our_state)
        # The largest difference measured is 7e-6 of the largest logit: other orders of sums, oneDNN's curves.
        assert (ours_BV - logits_BV).abs().max() < 3e-5 * logits_BV.abs().max()
        assert torch.equal(ours_BV.argmax(1), logits_BV.argmax(1))
    assert torch.equal(our_state.lengths_B, state.lengths_B)


ROWS = [
    [[4, 1, 2, 3], [0, 3, 2]],
    [[0, 1], [1, 0]],
    [[2], [0, 0, 0]],
    [[3, 3, 0, 0, 1], [0, 1, 2, 3]],
    [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [1, 1, 3, 2, 4, 5, 8, 9], [2, 2, 4, 5]],
    [[4, 3, 2, 1, 0], [4, 4, 1, 1]],
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("style", ["own", "transformer"])
@torch.inference_mode()
def test_texts_that_are_selected_go_on_as_they_would_have(style, rows):
    module = make(style)
    engine = QuickDecoder(module)
    (_, state), (_, our_state) = module.begin(ask(style, 5), 40), engine.begin(ask(style, 5), 40)
    for chosen in [list(range(5)), *rows]:
        state, our_state = state.select(torch.tensor(chosen)), our_state.select(torch.tensor(chosen))
        for step in range(3):
            tokens_B = 11 + (torch.arange(len(chosen)) + step) % 7
            expected_BV, ours_BV = module.advance(tokens_B, state), engine.advance(tokens_B, our_state)
            assert (ours_BV - expected_BV).abs().max() < 3e-5 * expected_BV.abs().max()


def test_beams_share_the_memory_of_their_source():
    engine = QuickDecoder(make("transformer"))
    with torch.inference_mode():
        _, state = engine.begin(ask("transformer", 3), 40)
        beams = state.select(torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2]))
        assert len(beams.memory[0].keys) == 3
        fewer = beams.select(torch.tensor([2, 0, 1, 8, 7, 7]))
        assert len(fewer.memory[0].keys) == 2


def test_a_module_that_it_cannot_stand_for_is_left_as_it_is():
    adapted = make("own")
    add_adapters(adapted, LoraConfig())
    initialise_adapters(adapted, Seeds.new("1"))
    assert quick(adapted) is adapted
    merge_adapters(adapted)
    assert isinstance(quick(adapted), QuickDecoder)
    double = make("own").double()
    assert quick(double) is double
    engine = QuickDecoder(make("own"))
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
    for n_rows in (1, 2, 5, 6, 17):
        x_BD = torch.randn(n_rows, shape[0])
        y_BF = torch.randn(n_rows, shape[1])
        # 2e-6 measured, of numbers up to 4.
        torch.testing.assert_close(matrix(x_BD), curves[curve](linear(x_BD)), atol=1e-5, rtol=0)
        if curve == "none":
            before = y_BF.clone()
            torch.testing.assert_close(matrix.add_to(y_BF, x_BD), before + linear(x_BD), atol=1e-5, rtol=0)
            assert torch.equal(y_BF, before)
