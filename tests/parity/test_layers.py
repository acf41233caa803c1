"""Our layers against torch.nn and plain arithmetic, forward and backward, in float64 where that settles it.

Where both sides are in float64 the tolerance is 1e-12: the largest difference measured is 4e-15, of numbers up to 10;
it comes from the order of sums.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from danlu.core.batch import NOT_PREDICTED, Batch, Output
from danlu.model.gru import Gru, GruConfig
from danlu.model.layers.attention import SelfAttention
from danlu.model.layers.block import EncoderBlock
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.heads import ClassificationHead, MaskedLanguageHead
from danlu.model.layers.pooling import masked_max, masked_mean
from danlu.model.layers.positions import Rotary

B, T, D, H, F = 4, 7, 16, 4, 24
EXACT = {"atol": 1e-12, "rtol": 0.0}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def sequence() -> tuple[torch.Tensor, torch.Tensor]:
    """A sequence, and where it has tokens: all, some, one."""
    lengths = torch.tensor([T, 5, 1, T - 1])
    return torch.randn(B, T, D), torch.arange(T)[None, :] < lengths[:, None]


def batch_of(mask_BT: torch.Tensor, **fields: torch.Tensor) -> Batch:
    n, width = mask_BT.shape
    tokens = fields.pop("tokens_BT", torch.zeros(n, width, dtype=torch.int64))
    positions = torch.arange(width).expand(n, -1)
    return Batch(rows_B=torch.arange(n), tokens_BT=tokens, mask_BT=mask_BT, positions_BT=positions, **fields)


def copy_attention(ours: SelfAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)


def compare(
    ours: nn.Module,
    theirs: nn.Module,
    y: torch.Tensor,
    y_theirs: torch.Tensor,
    mask_BT: torch.Tensor,
    pairs: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """The same values where there are tokens, and the same gradients of a random function of these."""
    weights = torch.randn_like(y)[mask_BT]
    torch.testing.assert_close(y[mask_BT], y_theirs[mask_BT], **EXACT)
    for module, value in ((ours, y), (theirs, y_theirs)):
        module.zero_grad()
        torch.autograd.backward((value[mask_BT] * weights).sum())
    for mine, other in pairs:
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, **EXACT)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_without_positions_is_that_of_torch(padded: bool) -> None:
    ours, theirs = SelfAttention(D, H, 0.0), nn.MultiheadAttention(D, H, batch_first=True)
    copy_attention(ours, theirs)
    x, mask_BT = sequence()
    mask_BT = mask_BT if padded else torch.ones_like(mask_BT)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ours(x1, mask_BT, torch.zeros(B, T, dtype=torch.int64))
    y_theirs, _ = theirs(x2, x2, x2, key_padding_mask=~mask_BT)
    pairs = [
        (ours.qkv.weight, theirs.in_proj_weight),
        (ours.qkv.bias, theirs.in_proj_bias),
        (ours.out.weight, theirs.out_proj.weight),
        (ours.out.bias, theirs.out_proj.bias),
        (x1, x2),
    ]
    compare(ours, theirs, y, y_theirs, mask_BT, pairs)


def test_attention_with_positions_is_the_formula() -> None:
    """softmax(q k / sqrt(K)) v with every query and key turned, written out token by token."""
    layer = SelfAttention(D, H, 0.0)
    x, mask_BT = sequence()
    positions = torch.arange(T).expand(B, -1)
    y = layer(x, mask_BT, positions)
    width = D // H
    for b in range(B):
        n = int(mask_BT[b].sum())
        q, k, v = (layer.qkv(x[b, :n])[:, i * D : (i + 1) * D].view(n, H, width) for i in range(3))
        heads = []
        for h in range(H):
            turned = [turn(part[:, h], torch.arange(n)) for part in (q, k)]
            scores = turned[0] @ turned[1].T / math.sqrt(width)
            heads.append(scores.softmax(-1) @ v[:, h])
        # The angles are computed in float32, whatever the rest is in; measured 6e-9.
        torch.testing.assert_close(y[b, :n], layer.out(torch.cat(heads, 1)), atol=1e-7, rtol=0)


def turn(x_TK: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
    """Rotary positions in complex numbers: channel i and channel i + K/2 are one number, times e^(i angle)."""
    half = x_TK.shape[-1] // 2
    speeds = torch.tensor([10000 ** (-i / half) for i in range(half)])
    numbers = torch.complex(x_TK[..., :half].contiguous(), x_TK[..., half:].contiguous())
    turned = numbers * torch.exp(1j * positions_T[:, None] * speeds)
    return torch.cat([turned.real, turned.imag], -1)


def test_rotary_is_a_product_of_complex_numbers_forward_and_backward() -> None:
    rotary, positions = Rotary(8), torch.tensor([0, 1, 2, 17, 500])
    x1 = torch.randn(5, 8, requires_grad=True)
    x2 = x1.detach().clone().requires_grad_()
    y, reference = rotary(x1[None, None], positions[None])[0, 0], turn(x2, positions)
    # Angles, sines and cosines are float32: 2**-24 of 1; measured 7e-8 forward and 8e-8 backward.
    torch.testing.assert_close(y, reference, atol=1e-6, rtol=0)
    weights = torch.randn_like(y)
    for value in (y, reference):
        torch.autograd.backward((value * weights).sum())
    assert x1.grad is not None
    torch.testing.assert_close(x1.grad, x2.grad, atol=1e-6, rtol=0)
    torch.testing.assert_close(y[0], x1[0])  # position 0 turns nothing
    torch.testing.assert_close(y.norm(dim=-1), x1.norm(dim=-1), atol=1e-6, rtol=0)


def test_rotary_attention_depends_on_the_distance_of_tokens_alone() -> None:
    layer = SelfAttention(D, H, 0.0)
    x, mask_BT = sequence()
    positions = torch.arange(T).expand(B, -1)
    here, later = layer(x, mask_BT, positions), layer(x, mask_BT, positions + 50)
    torch.testing.assert_close(here[mask_BT], later[mask_BT], atol=1e-6, rtol=0)  # measured 8e-9
    spread = layer(x, mask_BT, positions * 2)
    assert float((here - spread)[mask_BT].abs().max().detach()) > 1e-3


@pytest.mark.parametrize("padded", [False, True])
def test_a_block_is_the_pre_norm_layer_of_torch(padded: bool) -> None:
    ours = EncoderBlock(D, H, F, 0.0)
    theirs = nn.TransformerEncoderLayer(D, H, F, 0.0, activation="gelu", batch_first=True, norm_first=True)
    names = [
        ("attention.qkv", "self_attn.in_proj_"),
        ("attention.out", "self_attn.out_proj."),
        ("feedforward.up", "linear1."),
        ("feedforward.down", "linear2."),
        ("attention_norm", "norm1."),
        ("feedforward_norm", "norm2."),
    ]
    mine, other = dict(ours.named_parameters()), dict(theirs.named_parameters())
    pairs = [(mine[f"{a}.{part}"], other[f"{b}{part}"]) for a, b in names for part in ("weight", "bias")]
    assert len(pairs) == len(mine) == len(other)
    with torch.no_grad():
        for parameter, reference in pairs:
            parameter.copy_(torch.randn_like(parameter) / 4)
            reference.copy_(parameter)
    x, mask_BT = sequence()
    mask_BT = mask_BT if padded else torch.ones_like(mask_BT)
    y = ours(x, mask_BT, torch.zeros(B, T, dtype=torch.int64))
    compare(ours, theirs, y, theirs(x, src_key_padding_mask=~mask_BT), mask_BT, pairs)


def test_the_recurrent_network_is_that_of_torch_on_each_text_alone() -> None:
    config = GruConfig(family="gru", d_model=D, n_layers=2, d_hidden=6, dropout=0, token_dropout=0)
    model = Gru(config, vocab_size=20, mask_token=4, n_classes=3)
    _, mask_BT = sequence()
    tokens = torch.randint(5, 20, (B, T))
    labels = torch.tensor([0, 1, 2, 0])
    together = model(batch_of(mask_BT, tokens_BT=tokens)).logits
    torch.autograd.backward(nn.functional.cross_entropy(together, labels))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    alone = []
    for b in range(B):
        text = model.embedding.norm(model.embedding.tokens(tokens[b, : int(mask_BT[b].sum())]))
        states, _ = model.gru(text)
        pooled = [states.mean(0), states.max(0).values]
        alone.append(model.head.linear(torch.cat(pooled[: len(model.head.poolings)])))
    torch.testing.assert_close(together, torch.stack(alone), **EXACT)
    torch.autograd.backward(nn.functional.cross_entropy(torch.stack(alone), labels))
    for name, parameter in model.named_parameters():
        assert gradients[name] is not None
        torch.testing.assert_close(parameter.grad, gradients[name], **EXACT)


def test_the_embedding_is_a_table_and_a_norm_by_hand() -> None:
    embedding = TokenEmbedding(9, D, 4, 0.0, 0.0)
    tokens = torch.randint(0, 9, (B, T))
    rows = embedding.tokens.weight[tokens]
    scale = (rows.var(-1, correction=0, keepdim=True) + embedding.norm.eps).sqrt()
    torch.testing.assert_close(embedding(tokens), (rows - rows.mean(-1, keepdim=True)) / scale, **EXACT)


def test_pooling_by_hand() -> None:
    x, mask_BT = sequence()
    mask_BT[2] = False
    mean, high = masked_mean(x, mask_BT), masked_max(x, mask_BT)
    for b in range(B):
        rows = x[b, mask_BT[b]]
        expected = (rows.mean(0), rows.max(0).values) if len(rows) else (torch.zeros(D), torch.zeros(D))
        torch.testing.assert_close(mean[b], expected[0], **EXACT)
        torch.testing.assert_close(high[b], expected[1], **EXACT)


def test_the_loss_of_classes_by_hand_forward_and_backward() -> None:
    head = ClassificationHead(D, 3, 0.0, [masked_mean])
    labels = torch.tensor([0, 2, 1, 1])
    logits = torch.randn(B, 3, dtype=torch.float32, requires_grad=True)
    loss = head.loss(Output(logits=logits), batch_of(torch.ones(B, T, dtype=torch.bool), labels_B=labels))
    exact = logits.detach().double()
    by_hand = -sum(exact[b, labels[b]] - exact[b].exp().sum().log() for b in range(B)) / B
    torch.testing.assert_close(loss.double(), by_hand, atol=1e-6, rtol=0)  # the loss is float32; measured 8e-8
    torch.autograd.backward(loss)
    slope = (exact.softmax(-1) - nn.functional.one_hot(labels, 3)) / B
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), slope, atol=1e-6, rtol=0)


def test_the_loss_of_hidden_tokens_by_hand_and_shared_vectors_learn_from_both_ends() -> None:
    table = nn.Embedding(9, D)
    head = MaskedLanguageHead(table)
    x, mask_BT = sequence()
    targets = torch.full((B, T), NOT_PREDICTED)
    targets[0, 2], targets[1, 0], targets[3, 4] = 5, 8, 5
    batch = batch_of(mask_BT, targets_BT=targets)
    output = head(x, batch)
    loss = head.loss(output, batch)
    asked = torch.stack([x[0, 2], x[1, 0], x[3, 4]])
    inner = nn.functional.layer_norm(nn.functional.gelu(asked @ head.linear.weight.T + head.linear.bias), (D,))
    logits = inner @ table.weight.T + head.bias
    torch.testing.assert_close(output.logits, logits, **EXACT)
    by_hand = -logits.log_softmax(-1)[torch.arange(3), torch.tensor([5, 8, 5])].mean()
    torch.testing.assert_close(loss.double(), by_hand, atol=2e-6, rtol=0)  # the loss is float32; measured 2e-7
    mine = torch.autograd.grad(loss, table.weight, retain_graph=True)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(by_hand, table.weight)[0], atol=2e-6, rtol=0)
    assert "_shared" not in "".join(name for name, _ in head.named_parameters())


def test_a_batch_that_asks_for_nothing_costs_nothing() -> None:
    head = MaskedLanguageHead(nn.Embedding(9, D))
    x, mask_BT = sequence()
    batch = batch_of(mask_BT, targets_BT=torch.full((B, T), NOT_PREDICTED))
    loss = head.loss(head(x, batch), batch)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in head.parameters())
