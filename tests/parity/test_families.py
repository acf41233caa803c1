"""Whole families against references made of torch.nn or written out in a few lines, forward and backward, in float64.

The tolerance is 1e-12 save where rotary positions, whose angles are float32 on our side, come in: the largest
difference measured is 4e-15, of numbers up to 27; it comes from the order of sums.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.model.base import Model, Signature
from danlu.model.bert import Bert, BertConfig
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.gru import Gru, GruConfig
from danlu.model.transformer import Transformer, TransformerConfig
from torch_layers import ALL, Same, agree, block_pairs, norm_pairs, share

V, D, H, FF, N = 20, 16, 4, 24, 3
T, S = 7, 5
EXACT = {"atol": 1e-12, "rtol": 0.0}
LATER = torch.ones(T, T, dtype=torch.bool).triu(1)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def texts(width: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(5, V, (len(lengths), width)), torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def batch_of(**fields: torch.Tensor) -> Batch:
    """Four texts: of full length, of five tokens, of one, of all but one."""
    tokens_BT, mask_BT = texts(T, [T, 5, 1, T - 1])
    positions_BT = torch.arange(T).expand(4, -1)
    return Batch(rows_B=torch.arange(4), tokens_BT=tokens_BT, mask_BT=mask_BT, positions_BT=positions_BT, **fields)


def drawn(model: Model) -> Model:
    """The model with random numbers everywhere, its dropout off."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return model.eval()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_transformer_is_the_encoder_and_decoder_stacks_of_torch(norm_first: bool, activation: str) -> None:
    config = TransformerConfig(
        family="transformer",
        d_model=D,
        n_layers=2,
        n_decoder_layers=3,
        n_heads=H,
        d_ff=FF,
        norm_first=norm_first,
        norm_eps=0.01,
        activation=activation,
    )
    ours = drawn(Transformer(config, Signature(task="translation", vocab_size=V)))
    options = {"activation": activation, "batch_first": True, "norm_first": norm_first, "layer_norm_eps": 0.01}
    ends = [nn.LayerNorm(D, eps=0.01) if norm_first else None for _ in range(2)]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, H, FF, 0.0, **options), 2, ends[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(D, H, FF, 0.0, **options), 3, ends[1])
    table = nn.Embedding(V, D)
    pairs = blocks_of(ours.encoder, encoder.layers) + blocks_of(ours.decoder, decoder.layers)
    pairs += norm_pairs(ours.embedding.tokens, table)
    for mine, end in zip((ours.encoder_norm, ours.decoder_norm), ends, strict=True):
        pairs += [] if end is None else norm_pairs(mine, end)
    assert len(pairs) == len(list(ours.parameters()))
    share(pairs)

    source_BS, source_mask_BS = texts(S, [2, S, 3, 1])
    batch = batch_of(source_BS=source_BS, source_mask_BS=source_mask_BS)
    tokens_BT, mask_BT, _ = batch.text

    def embedded(tokens: torch.Tensor) -> torch.Tensor:
        return table(tokens) * math.sqrt(D) + ours.embedding.positions(torch.arange(tokens.shape[1]))

    memory = encoder(embedded(source_BS), src_key_padding_mask=~source_mask_BS)
    hidden = decoder(embedded(tokens_BT), memory, tgt_mask=LATER, memory_key_padding_mask=~source_mask_BS)
    agree(ours(batch).logits[mask_BT], (hidden @ table.weight.T)[mask_BT], pairs, 1e-12)


def test_bert_as_it_was_first_is_the_encoder_stack_of_torch() -> None:
    """Post-norm, with learnt positions, segments, a norm of their sum, and the first token's vector for the text."""
    config = BertConfig(
        family="bert",
        d_model=D,
        n_layers=2,
        n_heads=H,
        d_ff=FF,
        max_len=T + 2,
        positions="learned",
        n_segments=2,
        norm_first=False,
        norm_eps=0.01,
        pooling="first",
    )
    ours = drawn(Bert(config, Signature(task="text-classification", vocab_size=V, n_classes=N)))
    options = {"activation": "gelu", "batch_first": True, "layer_norm_eps": 0.01}
    layer = nn.TransformerEncoderLayer(D, H, FF, 0.0, **options)
    stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    tables = [nn.Embedding(n, D) for n in (V, T + 2, 2)]
    end, dense, answer = nn.LayerNorm(D, eps=0.01), nn.Linear(D, D), nn.Linear(D, N)
    pairs = blocks_of(ours.blocks, stack.layers)
    assert ours.pooler is not None
    for mine, theirs in (
        *zip((ours.embedding.tokens, ours.embedding.positions.vectors, ours.embedding.segments), tables, strict=True),
        (ours.embedding.norm, end),
        (ours.pooler.linear, dense),
        (ours.head.linear, answer),
    ):
        pairs += norm_pairs(mine, theirs)
    assert len(pairs) == len(list(ours.parameters()))
    share(pairs)

    segments_BT = (torch.arange(T) > 2).long().expand(4, -1)
    batch = batch_of(segments_BT=segments_BT)
    tokens_BT, mask_BT, positions_BT = batch.text
    x = end(tables[0](tokens_BT) + tables[1](positions_BT) + tables[2](segments_BT))
    expected = answer(torch.tanh(dense(stack(x, src_key_padding_mask=~mask_BT)[:, 0])))
    agree(ours(batch).logits, expected, pairs, 1e-12)


def test_gpt_in_the_style_of_gpt_2_is_the_encoder_stack_of_torch_that_looks_back() -> None:
    style = {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True}
    config = GptConfig(family="gpt", d_model=D, n_layers=2, n_heads=H, d_ff=FF, max_len=T, norm_eps=0.01, **style)
    ours = drawn(Gpt(config, Signature(task="language-modelling", vocab_size=V)))
    options = {"batch_first": True, "norm_first": True, "layer_norm_eps": 0.01}
    layer = nn.TransformerEncoderLayer(D, H, FF, 0.0, activation=partial(F.gelu, approximate="tanh"), **options)
    stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(D, eps=0.01), enable_nested_tensor=False)
    tables = [nn.Embedding(n, D) for n in (V, T)]
    pairs = blocks_of(ours.blocks, stack.layers) + norm_pairs(ours.norm, stack.norm)
    pairs += norm_pairs(ours.embedding.tokens, tables[0]) + norm_pairs(ours.embedding.positions.vectors, tables[1])
    assert len(pairs) == len(list(ours.parameters()))
    share(pairs)
    batch = batch_of()
    tokens_BT, mask_BT, positions_BT = batch.text
    hidden = stack(tables[0](tokens_BT) + tables[1](positions_BT), mask=LATER)
    agree(ours(batch).logits[mask_BT], (hidden @ tables[0].weight.T)[mask_BT], pairs, 1e-12)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_gpt_in_the_style_of_llama_written_out(qk_norm: bool, tied: bool) -> None:
    """RMSNorm, rotary positions in complex numbers, each key head copied for two query heads, SwiGLU; text by text."""
    config = GptConfig(
        family="gpt",
        d_model=D,
        n_layers=2,
        n_heads=H,
        n_kv_heads=2,
        d_head=6,
        d_ff=FF,
        qkv_bias=True,
        qk_norm=qk_norm,
        norm_eps=0.01,
        rope_base=500.0,
        tie_embeddings=tied,
    )
    ours = drawn(Gpt(config, Signature(task="language-modelling", vocab_size=V)))
    batch = batch_of()
    tokens_BT, mask_BT, _ = batch.text
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in ours.named_parameters()}
    expected = torch.cat([llama(weights, tokens_BT[b, : int(mask_BT[b].sum())], qk_norm) for b in range(4)])
    # The angles are float32: measured 2e-6, of numbers up to 37.
    pairs: list[Same] = [(parameter, weights[name], ALL) for name, parameter in ours.named_parameters()]
    agree(ours(batch).logits[mask_BT], expected, pairs, 1e-5)


def llama(weights: dict[str, torch.Tensor], tokens_T: torch.Tensor, qk_norm: bool) -> torch.Tensor:
    def rms(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.01) * weights[f"{name}.weight"]

    def heads(x: torch.Tensor, name: str) -> torch.Tensor:
        return (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]).unflatten(-1, (-1, 6)).transpose(0, 1)

    n, half = len(tokens_T), 3
    speeds = 500.0 ** -(torch.arange(half) / half)
    turn = torch.exp(1j * torch.arange(n)[:, None] * speeds)

    def turned(x_HTK: torch.Tensor) -> torch.Tensor:
        product = torch.complex(x_HTK[..., :half].contiguous(), x_HTK[..., half:].contiguous()) * turn
        return torch.cat([product.real, product.imag], -1)

    x = weights["embedding.tokens.weight"][tokens_T]
    for layer in ("blocks.0", "blocks.1"):
        y = rms(x, f"{layer}.attention_norm")
        q, k, v = (heads(y, f"{layer}.attention.{part}") for part in "qkv")
        if qk_norm:
            q, k = rms(q, f"{layer}.attention.q_norm"), rms(k, f"{layer}.attention.k_norm")
        k, v = (part[[0, 0, 1, 1]] for part in (turned(k), v))
        scores = turned(q) @ k.transpose(-1, -2) / math.sqrt(6)
        mixed = scores.masked_fill(LATER[:n, :n], -torch.inf).softmax(-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ weights[f"{layer}.attention.out.weight"].T
        y = rms(x, f"{layer}.feedforward_norm")
        gate, up, down = (weights[f"{layer}.feedforward.{part}.weight"] for part in ("gate", "up", "down"))
        x = x + (F.silu(y @ gate.T) * (y @ up.T)) @ down.T
    return rms(x, "norm") @ weights.get("head.linear.weight", weights["embedding.tokens.weight"]).T


@pytest.mark.parametrize("task", ["text-classification", "language-modelling"])
def test_the_recurrent_network_is_that_of_torch_on_each_text_alone(task: str) -> None:
    config = GruConfig(family="gru", d_model=D, n_layers=2, d_hidden=6, dropout=0, token_dropout=0)
    model = drawn(Gru(config, Signature(task=task, vocab_size=V, n_classes=N)))
    theirs = copy.deepcopy(model)
    batch, names_classes = batch_of(), task == "text-classification"
    tokens_BT, mask_BT, _ = batch.text
    if names_classes:
        wanted = torch.tensor([0, 1, 2, 0])
        batch = replace(batch, labels_B=wanted)
    else:
        wanted = tokens_BT[mask_BT].roll(1)
        targets_BT = torch.full_like(tokens_BT, NOT_PREDICTED).masked_scatter(mask_BT, wanted)
        batch = replace(batch, targets_BT=targets_BT)
    answers = []
    for b in range(4):
        text = theirs.embedding.norm(theirs.embedding.tokens(tokens_BT[b : b + 1, : int(mask_BT[b].sum())]))
        states, _ = theirs.gru(text)
        pooled = torch.cat([states.mean(1), states.amax(1)], -1) if names_classes else states[0]
        answers.append(theirs.head.linear(pooled))
    parameters = zip(model.parameters(), theirs.parameters(), strict=True)
    pairs: list[Same] = [(mine, other, ALL) for mine, other in parameters]
    together, alone = model(batch), torch.cat(answers)
    # The loss is float32; measured 9e-8.
    torch.testing.assert_close(model.loss(together, batch).double(), F.cross_entropy(alone, wanted), atol=1e-6, rtol=0)
    agree(together.logits, alone, pairs, 1e-12)


def blocks_of(ours: nn.ModuleList, theirs: nn.ModuleList) -> list[Same]:
    return [pair for mine, other in zip(ours, theirs, strict=True) for pair in block_pairs(mine, other)]
