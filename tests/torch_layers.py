"""Which parameter of torch.nn each of ours is, and the comparison of two modules that share their weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from danlu.model.layers.attention import Attention
from danlu.model.layers.block import Block

__all__ = ["Same", "agree", "attention_pairs", "block_pairs", "norm_pairs", "share"]

Same = tuple[torch.Tensor, torch.Tensor, slice]
"""A tensor of ours, one of theirs, and which rows of theirs ours is."""

ALL = slice(None)


def attention_pairs(ours: Attention, theirs: nn.MultiheadAttention) -> list[Same]:
    """Theirs keeps the weights of queries, keys and values in one matrix."""
    assert theirs.in_proj_weight is not None
    width = theirs.embed_dim
    rows = [slice(part * width, (part + 1) * width) for part in range(3)]
    pairs = [
        (layer.weight, theirs.in_proj_weight, row) for layer, row in zip((ours.q, ours.k, ours.v), rows, strict=True)
    ]
    pairs.append((ours.out.weight, theirs.out_proj.weight, ALL))
    if theirs.in_proj_bias is not None:
        layers = zip((ours.q, ours.k, ours.v), rows, strict=True)
        pairs += [(layer.bias, theirs.in_proj_bias, row) for layer, row in layers]
        pairs.append((ours.out.bias, theirs.out_proj.bias, ALL))
    return pairs


def norm_pairs(ours: nn.Module, theirs: nn.Module) -> list[Same]:
    """Any two modules whose own parameters are called the same: norms, linear layers."""
    named = dict(theirs.named_parameters(recurse=False))
    return [(mine, named[name], ALL) for name, mine in ours.named_parameters(recurse=False)]


def block_pairs(ours: Block, theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> list[Same]:
    """A block of the encoder, or one of the decoder, whose second attention looks at the encoder's output."""
    pairs = attention_pairs(ours.attention, theirs.self_attn)
    norms = [ours.attention_norm, ours.feedforward_norm]
    if isinstance(theirs, nn.TransformerDecoderLayer):
        assert ours.cross is not None
        assert ours.cross_norm is not None
        pairs += attention_pairs(ours.cross, theirs.multihead_attn)
        norms.insert(1, ours.cross_norm)
    for number, norm in enumerate(norms, start=1):
        pairs += norm_pairs(norm, theirs.get_submodule(f"norm{number}"))
    pairs += norm_pairs(ours.feedforward.up, theirs.linear1) + norm_pairs(ours.feedforward.down, theirs.linear2)
    return pairs


def share(pairs: Iterable[Same]) -> None:
    """Give both the same random numbers, also to norms and biases, which begin with ones or zeros."""
    with torch.no_grad():
        for mine, other, rows in pairs:
            mine.copy_(torch.randn_like(mine) / 4)
            other[rows].copy_(mine)


def agree(y: torch.Tensor, y_theirs: torch.Tensor, pairs: Iterable[Same], atol: float) -> None:
    """The same values, and the same gradients of a random function of them.

    Args:
        y: Our output, where it means something.
        y_theirs: Theirs.
        pairs: Parameters and inputs.
        atol: How far apart any two numbers may be.
    """
    torch.testing.assert_close(y, y_theirs, atol=atol, rtol=0)
    weights = torch.randn_like(y)
    for value in (y, y_theirs):
        torch.autograd.backward((value * weights).sum())
    for mine, other, rows in pairs:
        assert mine.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad[rows], atol=atol, rtol=0)
