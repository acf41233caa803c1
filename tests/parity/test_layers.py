"""Our layers against torch.nn and plain arithmetic, forward and backward, in float64 where that settles it.

Where both sides are in float64 the tolerance is 1e-12: the largest difference measured is 7e-15, of numbers up to
17; it comes from the order of sums. In float32 attention is held to 1e-5: measured 2e-6 of numbers up to 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from danlu.core.batch import NOT_PREDICTED, Batch, Output
from danlu.model.layers.attention import Attention, AttentionConfig, Sight, padding_mask
from danlu.model.layers.block import Block, BlockConfig
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.feedforward import FeedForward
from danlu.model.layers.heads import ClassificationHead, LanguageHead, MaskedLanguageHead
from danlu.model.layers.norm import make_norm
from danlu.model.layers.pooling import FirstToken, masked_max, masked_mean
from danlu.model.layers.positions import LearnedPositions, Rotary, RotaryScaling, SinusoidalPositions, rotate
from torch_layers import ALL, agree, attention_pairs, block_pairs, share

B, T, S, D, H, F = 4, 7, 5, 16, 4, 24
EXACT = {"atol": 1e-12, "rtol": 0.0}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


def masked(n: int, lengths: list[int]) -> torch.Tensor:
    return torch.arange(n)[None, :] < torch.tensor(lengths)[:, None]


MASK_BT = masked(T, [T, 5, 1, T - 1])
"""All tokens, some, one."""
MASK_BS = masked(S, [2, S, 3, 1])


def twice(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random numbers as two inputs that may have gradients."""
    x = torch.randn(*shape)
    return x.clone().requires_grad_(), x.clone().requires_grad_()


def batch_of(mask_BT: torch.Tensor, **fields: torch.Tensor) -> Batch:
    n, width = mask_BT.shape
    tokens = fields.pop("tokens_BT", torch.zeros(n, width, dtype=torch.int64))
    positions = torch.arange(width).expand(n, -1)
    return Batch(rows_B=torch.arange(n), tokens_BT=tokens, mask_BT=mask_BT, positions_BT=positions, **fields)


def attention(**changes: object) -> Attention:
    return Attention(AttentionConfig(**{"d_model": D, "n_heads": H, **changes}))


# Attention


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seen", ["everything", "no padding", "nothing later"])
def test_attention_without_positions_is_that_of_torch(seen: str, bias: bool) -> None:
    ours, theirs = attention(bias=bias), nn.MultiheadAttention(D, H, bias=bias, batch_first=True)
    pairs = attention_pairs(ours, theirs)
    share(pairs)
    x1, x2 = twice(B, T, D)
    if seen == "no padding":
        y = ours(x1, Sight(mask=padding_mask(MASK_BT)))[MASK_BT]
        y_theirs = theirs(x2, x2, x2, key_padding_mask=~MASK_BT)[0][MASK_BT]
    elif seen == "nothing later":
        later = torch.ones(T, T, dtype=torch.bool).triu(1)
        y, y_theirs = ours(x1, Sight(causal=True)), theirs(x2, x2, x2, attn_mask=later)[0]
    else:
        y, y_theirs = ours(x1, Sight()), theirs(x2, x2, x2)[0]
    agree(y, y_theirs, [*pairs, (x1, x2, ALL)], 1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_attention_to_another_sequence_is_that_of_torch(padded: bool) -> None:
    ours, theirs = attention(), nn.MultiheadAttention(D, H, batch_first=True)
    pairs = attention_pairs(ours, theirs)
    share(pairs)
    (x1, x2), (other1, other2) = twice(B, T, D), twice(B, S, D)
    y = ours.look(x1, ours.keys_values(other1), padding_mask(MASK_BS) if padded else None)
    y_theirs, _ = theirs(x2, other2, other2, key_padding_mask=~MASK_BS if padded else None)
    agree(y, y_theirs, [*pairs, (x1, x2, ALL), (other1, other2, ALL)], 1e-12)


def test_attention_in_single_precision() -> None:
    ours, theirs = attention().float(), nn.MultiheadAttention(D, H, batch_first=True).float()
    pairs = attention_pairs(ours, theirs)
    share(pairs)
    x = torch.randn(B, T, D, dtype=torch.float32)
    x1, x2 = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = ours(x1, Sight(mask=padding_mask(MASK_BT)))[MASK_BT]
    agree(y, theirs(x2, x2, x2, key_padding_mask=~MASK_BT)[0][MASK_BT], [*pairs, (x1, x2, ALL)], 1e-5)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [False, True])
def test_heads_that_share_keys_are_heads_that_have_each_a_copy(n_kv_heads: int, causal: bool) -> None:
    """Written out: the keys and values of a group repeated for each of its query heads; heads wider than D / H."""
    width = 6
    layer = attention(n_kv_heads=n_kv_heads, d_head=width, qkv_bias=True, bias=False)
    x1, x2 = twice(B, T, D)
    weights = torch.randn(B, T, D)
    mask = padding_mask(MASK_BT) if not causal else None
    y = layer(x1, Sight(mask=mask, causal=causal))

    q = layer.q(x2).view(B, T, H, width).transpose(1, 2)
    k, v = (part(x2).view(B, T, n_kv_heads, width).transpose(1, 2) for part in (layer.k, layer.v))
    k, v = (part.repeat_interleave(H // n_kv_heads, dim=1) for part in (k, v))
    seen = torch.ones(T, T, dtype=torch.bool).tril() if causal else MASK_BT[:, None, None, :]
    scores = (q @ k.transpose(-1, -2) / math.sqrt(width)).masked_fill(~seen, -torch.inf)
    by_hand = layer.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, H * width))

    torch.testing.assert_close(y, by_hand, **EXACT)
    mine, other = (
        torch.autograd.grad((value * weights).sum(), [x, *layer.parameters()]) for value, x in ((y, x1), (by_hand, x2))
    )
    for gradient, expected in zip(mine, other, strict=True):
        torch.testing.assert_close(gradient, expected, **EXACT)


@pytest.mark.parametrize("qk_norm", [None, 1e-6])
def test_attention_with_positions_is_the_formula(qk_norm: float | None) -> None:
    """softmax(q k / sqrt(K)) v with every query and key normalised and turned, written out token by token."""
    layer, rotary = attention(qk_norm=qk_norm), Rotary(D // H)
    if qk_norm:
        with torch.no_grad():
            layer.q_norm.weight.copy_(torch.rand(D // H) + 0.5)
            layer.k_norm.weight.copy_(torch.rand(D // H) + 0.5)
    x, positions = torch.randn(B, T, D), torch.arange(T).expand(B, -1)
    y = layer(x, Sight(mask=padding_mask(MASK_BT), rotation=rotary(positions)))
    width = D // H
    for b in range(B):
        n = int(MASK_BT[b].sum())
        q, k, v = (part(x[b, :n]).view(n, H, width) for part in (layer.q, layer.k, layer.v))
        if qk_norm:
            q, k = (
                part / (part.square().mean(-1, keepdim=True) + qk_norm).sqrt() * norm.weight
                for part, norm in ((q, layer.q_norm), (k, layer.k_norm))
            )
        heads = []
        for h in range(H):
            turned = [turn(part[:, h], torch.arange(n)) for part in (q, k)]
            scores = turned[0] @ turned[1].T / math.sqrt(width)
            heads.append(scores.softmax(-1) @ v[:, h])
        # The angles are computed in float32, whatever the rest is in; measured 7e-9.
        torch.testing.assert_close(y[b, :n], layer.out(torch.cat(heads, 1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_kv_heads", "d_model"), [(3, D), (None, D + 1)])
def test_heads_that_do_not_fit_are_refused(n_kv_heads: int | None, d_model: int) -> None:
    with pytest.raises(ValueError, match="is not a multiple of"):
        attention(n_kv_heads=n_kv_heads, d_model=d_model)


# Positions


def turn(x_TK: torch.Tensor, positions_T: torch.Tensor, base: float = 10000.0) -> torch.Tensor:
    """Rotary positions in complex numbers: channel i and channel i + K/2 are one number, times e^(i angle)."""
    half = x_TK.shape[-1] // 2
    speeds = torch.tensor([base ** (-i / half) for i in range(half)])
    numbers = torch.complex(x_TK[..., :half].contiguous(), x_TK[..., half:].contiguous())
    turned = numbers * torch.exp(1j * positions_T[:, None] * speeds)
    return torch.cat([turned.real, turned.imag], -1)


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotary_is_a_product_of_complex_numbers_forward_and_backward(base: float) -> None:
    rotary, positions = Rotary(8, base), torch.tensor([0, 1, 2, 17, 500])
    x1, x2 = twice(5, 8)
    y, reference = rotate(x1[None, None], rotary(positions[None]))[0, 0], turn(x2, positions, base)
    # The angles are float32 and go up to 500, so they are off by 3e-5 at most; measured 7e-6.
    torch.testing.assert_close(y, reference, atol=4e-5, rtol=0)
    torch.testing.assert_close(y[:3], reference[:3], atol=1e-6, rtol=0)  # near the beginning: measured 7e-8
    weights = torch.randn_like(y)
    for value in (y, reference):
        torch.autograd.backward((value * weights).sum())
    assert x1.grad is not None
    torch.testing.assert_close(x1.grad, x2.grad, atol=4e-5, rtol=0)
    torch.testing.assert_close(y[0], x1[0])  # position 0 turns nothing
    torch.testing.assert_close(y.norm(dim=-1), x1.norm(dim=-1), atol=1e-6, rtol=0)


def test_rotary_attention_depends_on_the_distance_of_tokens_alone() -> None:
    layer, rotary = attention(), Rotary(D // H)
    x, positions = torch.randn(B, T, D), torch.arange(T).expand(B, -1)
    here, later, spread = (
        layer(x, Sight(mask=padding_mask(MASK_BT), rotation=rotary(at)))
        for at in (positions, positions + 50, positions * 2)
    )
    torch.testing.assert_close(here[MASK_BT], later[MASK_BT], atol=1e-6, rtol=0)  # measured 1e-8
    assert float((here - spread)[MASK_BT].abs().max().detach()) > 1e-3


def test_the_rotation_is_stretched_as_llama_3_stretches_its_own() -> None:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stretched = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    parameters = {"rope_type": "llama3", "rope_theta": 50000.0, **stretched}
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters=parameters)
    expected, scale = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    found = Rotary(32, 50000.0, RotaryScaling(factor=8.0, low_factor=1.0, high_factor=4.0, original_len=64)).frequencies
    assert scale == 1
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-6)  # of float32 numbers; measured 6e-8
    # All three kinds are there: as they were, slowed down by the whole factor, and in between.
    ratio = Rotary(32, 50000.0).frequencies / found
    assert ratio.min() == pytest.approx(1)
    assert ratio.max() == pytest.approx(8)
    assert bool(((ratio > 1.01) & (ratio < 7.9)).any())


def test_sinusoidal_positions_are_the_formula() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) the cosine of the same."""
    positions = torch.tensor([[0, 1, 2, 3], [0, 5, 50, 511]])
    found = SinusoidalPositions(D)(positions)
    assert found.shape == (2, 4, D)
    for b, t in [(b, t) for b in range(2) for t in range(4)]:
        angles = [int(positions[b, t]) / 10000 ** (2 * (channel // 2) / D) for channel in range(D)]
        expected = [math.cos(a) if channel % 2 else math.sin(a) for channel, a in enumerate(angles)]
        # The angles are float32 and go up to 511, so they are off by 3e-5 at most; measured 3e-6.
        torch.testing.assert_close(found[b, t].double(), torch.tensor(expected), atol=4e-5, rtol=0)


@pytest.mark.parametrize("make", [SinusoidalPositions, Rotary])
def test_an_odd_width_cannot_be_turned(make: Callable[[int], nn.Module]) -> None:
    with pytest.raises(ValueError, match="an even"):
        make(5)


# Norms and feed-forward


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_by_hand(kind: str) -> None:
    norm = make_norm(kind, D, 0.1)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    x1, x2 = twice(B, T, D)
    if kind == "layer":
        centred = x2 - x2.mean(-1, keepdim=True)
        by_hand = centred / (centred.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight + norm.bias
    else:
        by_hand = x2 / (x2.square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight
        assert [name for name, _ in norm.named_parameters()] == ["weight"]
    agree(norm(x1), by_hand, [(x1, x2, ALL)], 1e-12)


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


CURVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu-tanh": tanh_gelu,
    "swiglu": lambda x: x / (1 + torch.exp(-x)),
}


@pytest.mark.parametrize("activation", CURVES)
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward_by_hand(activation: str, bias: bool) -> None:
    layer = FeedForward(D, F, activation, bias)
    weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    x1, x2 = twice(B, T, D)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + (weights[f"{name}.bias"] if bias else 0)

    gated = activation == "swiglu"
    inner = CURVES[activation](linear("gate" if gated else "up", x2)) * (linear("up", x2) if gated else 1)
    agree(layer(x1), linear("down", inner), [(x1, x2, ALL)], 1e-12)
    assert len(weights) == (3 if gated else 2) * (2 if bias else 1)


# Blocks


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("padded", [False, True])
def test_a_block_is_the_encoder_layer_of_torch(norm_first: bool, activation: str, padded: bool) -> None:
    ours = Block(block_config(activation=activation, norm_first=norm_first))
    options = {"activation": activation, "batch_first": True, "norm_first": norm_first, "layer_norm_eps": 0.01}
    theirs = nn.TransformerEncoderLayer(D, H, F, 0.0, **options)
    pairs = block_pairs(ours, theirs)
    assert len(pairs) == len(list(ours.parameters()))
    share(pairs)
    x1, x2 = twice(B, T, D)
    mask_BT = MASK_BT if padded else torch.ones_like(MASK_BT)
    y = ours(x1, Sight(mask=padding_mask(mask_BT)))[mask_BT]
    agree(y, theirs(x2, src_key_padding_mask=~mask_BT)[mask_BT], [*pairs, (x1, x2, ALL)], 1e-12)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_block_that_looks_at_another_sequence_is_the_decoder_layer_of_torch(
    norm_first: bool, activation: str
) -> None:
    ours = Block(block_config(activation=activation, norm_first=norm_first, cross=True))
    options = {"activation": activation, "batch_first": True, "norm_first": norm_first, "layer_norm_eps": 0.01}
    theirs = nn.TransformerDecoderLayer(D, H, F, 0.0, **options)
    pairs = block_pairs(ours, theirs)
    assert len(pairs) == len(list(ours.parameters()))
    share(pairs)
    (x1, x2), (memory1, memory2) = twice(B, T, D), twice(B, S, D)
    y = ours(x1, Sight(causal=True), 0, ours.remember(memory1), padding_mask(MASK_BS))
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    y_theirs = theirs(x2, memory2, tgt_mask=later, memory_key_padding_mask=~MASK_BS)
    agree(y, y_theirs, [*pairs, (x1, x2, ALL), (memory1, memory2, ALL)], 1e-12)


def block_config(**changes: object) -> BlockConfig:
    return BlockConfig(attention=AttentionConfig(d_model=D, n_heads=H), d_ff=F, norm_eps=0.01, **changes)


# Embedding, pooling, heads


def test_the_embedding_is_a_table_and_a_norm_by_hand() -> None:
    embedding = TokenEmbedding(9, D, norm_eps=0.1)
    tokens, positions = torch.randint(0, 9, (B, T)), torch.arange(T).expand(B, -1)
    rows = embedding.tokens.weight[tokens]
    scale = (rows.var(-1, correction=0, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(embedding(tokens, positions), (rows - rows.mean(-1, keepdim=True)) / scale, **EXACT)
    assert len(list(embedding.parameters())) == 3


@pytest.mark.parametrize("segments", [None, torch.tensor([[0, 0, 1, 1, 2, 2, 2]]).expand(B, -1)])
def test_the_embedding_adds_positions_and_segments(segments: torch.Tensor | None) -> None:
    embedding = TokenEmbedding(9, D, positions=LearnedPositions(T + 3, D), n_segments=3, scale=5.0)
    tokens, positions = torch.randint(0, 9, (B, T)), torch.randint(0, T + 3, (B, T))
    assert embedding.segments is not None
    expected = 5.0 * embedding.tokens.weight[tokens] + embedding.positions.vectors.weight[positions]
    expected = expected + embedding.segments.weight[0 if segments is None else segments]
    torch.testing.assert_close(embedding(tokens, positions, segments), expected, **EXACT)


def test_pooling_by_hand() -> None:
    x, mask_BT = torch.randn(B, T, D), MASK_BT.clone()
    mask_BT[2] = False
    mean, high = masked_mean(x, mask_BT), masked_max(x, mask_BT)
    for b in range(B):
        rows = x[b, mask_BT[b]]
        expected = (rows.mean(0), rows.max(0).values) if len(rows) else (torch.zeros(D), torch.zeros(D))
        torch.testing.assert_close(mean[b], expected[0], **EXACT)
        torch.testing.assert_close(high[b], expected[1], **EXACT)
    first = FirstToken(D)
    leading = torch.cat([x[:2, 0], torch.zeros(1, D), x[3:, 0]])
    expected = torch.tanh(leading @ first.linear.weight.T + first.linear.bias)
    torch.testing.assert_close(first(x, mask_BT), expected, **EXACT)


def test_the_loss_of_classes_by_hand_forward_and_backward() -> None:
    head = ClassificationHead(D, 3, 0.0, [masked_mean])
    labels = torch.tensor([0, 2, 1, 1])
    logits = torch.randn(B, 3, dtype=torch.float32, requires_grad=True)
    loss = head.loss(Output(scored=logits), batch_of(torch.ones(B, T, dtype=torch.bool), labels_B=labels))
    exact = logits.detach().double()
    by_hand = -sum(exact[b, labels[b]] - exact[b].exp().sum().log() for b in range(B)) / B
    torch.testing.assert_close(loss.double(), by_hand, atol=1e-6, rtol=0)  # the loss is float32; measured 8e-8
    torch.autograd.backward(loss)
    slope = (exact.softmax(-1) - nn.functional.one_hot(labels, 3)) / B
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), slope, atol=1e-6, rtol=0)


def test_a_head_without_a_mask_takes_every_patch() -> None:
    head, x = ClassificationHead(D, 3, 0.0, [masked_mean, masked_max]), torch.randn(B, T, D)
    pictures = Batch(rows_B=torch.arange(B), images_BCYX=torch.zeros(B, 1, 2, 2))
    expected = head.linear(torch.cat([x.mean(1), x.amax(1)], -1))
    torch.testing.assert_close(head(x, pictures).logits, expected, **EXACT)


def asked() -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    """A sequence, the tokens asked for, and where they are."""
    targets, where = torch.full((B, T), NOT_PREDICTED), [(0, 2), (1, 0), (3, 4)]
    for (b, t), token in zip(where, (5, 8, 5), strict=True):
        targets[b, t] = token
    return torch.randn(B, T, D), targets, where


def test_the_loss_of_hidden_tokens_by_hand_and_shared_vectors_learn_from_both_ends() -> None:
    table = nn.Embedding(9, D)
    head = MaskedLanguageHead(table)
    x, targets, where = asked()
    batch = batch_of(MASK_BT, targets_BT=targets)
    output = head(x, batch)
    loss = head.loss(output, batch)
    inner = torch.stack([x[place] for place in where]) @ head.linear.weight.T + head.linear.bias
    logits = nn.functional.layer_norm(nn.functional.gelu(inner), (D,)) @ table.weight.T + head.bias
    torch.testing.assert_close(output.logits, logits, **EXACT)
    by_hand = -logits.log_softmax(-1)[torch.arange(3), torch.tensor([5, 8, 5])].mean()
    torch.testing.assert_close(loss.double(), by_hand, atol=2e-6, rtol=0)  # the loss is float32; measured 2e-7
    mine = torch.autograd.grad(loss, table.weight, retain_graph=True)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(by_hand, table.weight)[0], atol=2e-6, rtol=0)
    assert "_shared" not in "".join(name for name, _ in head.named_parameters())


def test_the_loss_of_pairs_is_added_to_that_of_the_hidden_tokens() -> None:
    first = FirstToken(D)
    head = MaskedLanguageHead(nn.Embedding(9, D), pooling=first)
    x, targets, _ = asked()
    follows = torch.tensor([0, 1, 1, 0])
    batch = batch_of(MASK_BT, targets_BT=targets, labels_B=follows)
    output = head(x, batch)
    assert head.pair is not None
    pairs = head.pair(first(x, MASK_BT))
    assert output.pair_logits_B2 is not None
    torch.testing.assert_close(output.pair_logits_B2, pairs, **EXACT)
    alone = head.loss(Output(scored=output.logits), batch)
    by_hand = -pairs.log_softmax(-1)[torch.arange(B), follows].mean()
    # The loss is float32; measured 2e-7.
    torch.testing.assert_close(head.loss(output, batch).double(), alone.double() + by_hand, atol=2e-6, rtol=0)
    assert not [name for name, _ in head.named_parameters() if name.startswith("pooling")]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_of_next_tokens_by_hand(tied: bool, smoothing: float) -> None:
    """(1 - smoothing) of the target's log-probability and smoothing of the mean of all of them, in training only."""
    table = nn.Embedding(9, D)
    head = LanguageHead(table if tied else None, 9, D, smoothing)
    x, targets, where = asked()
    x.requires_grad_()
    batch = batch_of(MASK_BT, targets_BT=targets)
    weight = table.weight if tied else head.linear.weight
    assert head.weight is weight
    assert len(list(head.parameters())) == (0 if tied else 1)
    for training in (True, False):
        head.train(training)
        output = head(x, batch)
        logits = torch.stack([x[place] for place in where]) @ weight.T
        torch.testing.assert_close(output.logits, logits, **EXACT)
        log_p, share_of_all = logits.log_softmax(-1), smoothing if training else 0.0
        chosen = log_p[torch.arange(3), torch.tensor([5, 8, 5])]
        by_hand = -((1 - share_of_all) * chosen + share_of_all * log_p.mean(-1)).mean()
        loss = head.loss(output, batch)
        torch.testing.assert_close(loss.double(), by_hand, atol=2e-6, rtol=0)  # the loss is float32; measured 3e-7
        slopes = (torch.autograd.grad(value, [x, weight]) for value in (loss, by_hand))
        for mine, expected in zip(*slopes, strict=True):
            torch.testing.assert_close(mine, expected, atol=2e-6, rtol=0)


HEADS: dict[str, Callable[[], MaskedLanguageHead | LanguageHead]] = {
    "hidden tokens": lambda: MaskedLanguageHead(nn.Embedding(9, D)),
    "next tokens": lambda: LanguageHead(None, 9, D, 0.1),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_batch_that_asks_for_nothing_costs_nothing(kind: str) -> None:
    head = HEADS[kind]()
    batch = batch_of(MASK_BT, targets_BT=torch.full((B, T), NOT_PREDICTED))
    loss = head.loss(head(torch.randn(B, T, D), batch), batch)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_a_batch_without_targets_is_answered_everywhere(kind: str) -> None:
    head, x = HEADS[kind](), torch.randn(B, T, D)
    everywhere = head(x, batch_of(MASK_BT)).logits
    assert everywhere.shape == (B, T, 9)
    targets = torch.where(MASK_BT, 1, NOT_PREDICTED)
    torch.testing.assert_close(head(x, batch_of(MASK_BT, targets_BT=targets)).logits, everywhere[MASK_BT], **EXACT)
