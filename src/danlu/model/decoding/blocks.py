"""A Transformer block for decoding on a CPU: :class:`danlu.model.layers.block.Block` for one new token a text.

A step of a small model reads every weight once and does little else, so what counts is how the weights lie in memory
and how many operations there are. Queries, keys and values are one product, gate and up another; RMSNorm's scale is
folded into the product behind it; channels are ordered so that a rotation is one complex product; keys and values of a
step go to their slots in one copy. The answers are those of the module up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from danlu.model.decoding.matrix import Curve, Matrix
from danlu.model.layers.attention import Attention
from danlu.model.layers.block import Block
from danlu.model.layers.cache import KeysValues
from danlu.model.layers.feedforward import Activation

__all__ = ["QuickBlock", "QuickNorm", "Step", "pairs_of_channels", "stacked"]


@dataclass(frozen=True, slots=True)
class Step:
    """What is the same in every layer of a step.

    Attributes:
        n_slots: How many slots of the cache are looked at.
        slots_R: int64; where the new keys and values go, in rows of K channels over texts, keys and values, and heads.
        mask: ``[B, 1, 1, S]``, to be added to the scores of the slots; None where all texts are of one length.
        turns_B1h: The rotation of the new tokens, a complex number a pair of channels; None: no rotation.
        memory_mask: ``[P, 1, 1, S]``, to be added to the scores of the sources; None where all are of one length.
    """

    n_slots: int
    slots_R: torch.Tensor
    mask: torch.Tensor | None
    turns_B1h: torch.Tensor | None
    memory_mask: torch.Tensor | None


class QuickBlock:
    """A block that only goes forward, one token a text.

    Args:
        block: The trained block, in float32 on a CPU; its weights are copied.
        activation: What stands in its feed-forward part.
        pairs_K: The order of channels in which queries and keys are turned; None where they are not.
    """

    def __init__(self, block: Block, activation: Activation, pairs_K: torch.Tensor | None) -> None:
        attention, feedforward = block.attention, block.feedforward
        self._norm_first = block.norm_first
        self._n_q, self._n_qk = attention.q.out_features, attention.q.out_features + attention.k.out_features
        self._norm, self._feedforward_norm = QuickNorm(block.attention_norm), QuickNorm(block.feedforward_norm)
        first = self._norm if block.norm_first else None
        self._qkv = stacked([_of(attention.q, pairs_K), _of(attention.k, pairs_K), _of(attention.v)], first)
        self._qk_norm = None if isinstance(attention.q_norm, nn.Identity) else _QKNorm(attention, pairs_K)
        self._out = stacked([_of(attention.out)])
        if block.cross is not None and block.cross_norm is not None:
            self._cross_norm = QuickNorm(block.cross_norm)
            self._cross_q = stacked([_of(block.cross.q)], self._cross_norm if block.norm_first else None)
            self._cross_out = stacked([_of(block.cross.out)])
        self._gated = feedforward.gate is not None
        up = [_of(layer) for layer in (feedforward.gate, feedforward.up) if layer is not None]
        first = self._feedforward_norm if block.norm_first else None
        self._up = stacked(up, first, "none" if activation == "swiglu" else activation)
        self._down = stacked([_of(feedforward.down)])

    def advance(
        self, x_BD: torch.Tensor, layer_B2HSK: torch.Tensor, memory: KeysValues | None, step: Step
    ) -> torch.Tensor:
        """Go through the block.

        Args:
            x_BD: One new token of every text.
            layer_B2HSK: Keys, then values, of the tokens before; those of the new ones are put into their slots.
            memory: Keys and values of P sources, where there are any; as many texts, one after another, have each.
            step: What else is needed.
        """
        if self._norm_first:
            x_BD = self._out.add_to(x_BD, self._attend(self._norm(x_BD), layer_B2HSK, step))
            if memory is not None:
                x_BD = self._cross_out.add_to(x_BD, self._look(self._cross_norm(x_BD), memory, step))
            return self._down.add_to(x_BD, self._inner(self._feedforward_norm(x_BD)))
        x_BD = self._norm(self._out.add_to(x_BD, self._attend(x_BD, layer_B2HSK, step)))
        if memory is not None:
            x_BD = self._cross_norm(self._cross_out.add_to(x_BD, self._look(x_BD, memory, step)))
        return self._feedforward_norm(self._down.add_to(x_BD, self._inner(x_BD)))

    def _attend(self, x_BD: torch.Tensor, layer_B2HSK: torch.Tensor, step: Step) -> torch.Tensor:
        n_texts, _, n_heads, _, width = layer_B2HSK.shape
        qkv = self._qkv(x_BD)
        qk_BHK = qkv[:, : self._n_qk].view(n_texts, -1, width)
        if self._qk_norm is not None:
            self._qk_norm(qk_BHK)
        if step.turns_B1h is not None:
            torch.view_as_complex(qk_BHK.view(n_texts, -1, width // 2, 2)).mul_(step.turns_B1h)
        layer_B2HSK.view(-1, width).index_copy_(0, step.slots_R, qkv[:, self._n_q :].reshape(-1, width))
        seen = layer_B2HSK[:, :, :, : step.n_slots]
        # Queries that share a key-value head stand as several positions of it, so that no key is repeated.
        q_BHGK = qkv[:, : self._n_q].view(n_texts, n_heads, -1, width)
        mixed = F.scaled_dot_product_attention(q_BHGK, seen[:, 0], seen[:, 1], attn_mask=step.mask)
        return mixed.reshape(n_texts, -1)

    def _look(self, x_BD: torch.Tensor, memory: KeysValues, step: Step) -> torch.Tensor:
        n_sources, n_heads, _, width = memory.keys.shape
        # Texts that share a source stand as several positions of it, so that no source is repeated.
        q_PHNK = self._cross_q(x_BD).view(n_sources, -1, n_heads, width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q_PHNK, memory.keys, memory.values, attn_mask=step.memory_mask)
        return mixed.transpose(1, 2).reshape(len(x_BD), -1)

    def _inner(self, x_BD: torch.Tensor) -> torch.Tensor:
        inner_BF = self._up(x_BD)
        if not self._gated:
            return inner_BF
        gate_BF, up_BF = inner_BF.chunk(2, dim=1)
        return F.silu(gate_BF).mul_(up_BF)


class QuickNorm:
    """A norm; the scale of an RMSNorm is left to the product behind it (:func:`stacked`).

    Args:
        norm: LayerNorm, RMSNorm, or nothing.
    """

    def __init__(self, norm: nn.Module) -> None:
        self._layer = norm if isinstance(norm, nn.LayerNorm) else None
        self._scale_D: torch.Tensor | None = None
        if isinstance(norm, nn.RMSNorm):
            assert norm.eps is not None
            (width,) = norm.normalized_shape
            self._scale_D = norm.weight.detach() * math.sqrt(width)
            self._least = torch.tensor(math.sqrt(width * norm.eps))

    def folded(self, weight_FD: torch.Tensor) -> torch.Tensor:
        """The weights of the product behind it."""
        return weight_FD if self._scale_D is None else weight_FD * self._scale_D

    def __call__(self, x_BD: torch.Tensor) -> torch.Tensor:
        """``[B, D]`` in and out."""
        if self._scale_D is not None:
            # The legs of a right triangle are |x| and what epsilon comes to; its longest side is sqrt(|x|^2 + D eps).
            return x_BD / torch.hypot(torch.linalg.vector_norm(x_BD, dim=1, keepdim=True), self._least)
        if self._layer is not None:
            norm = self._layer
            return F.layer_norm(x_BD, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return x_BD


class _QKNorm:
    """The RMSNorm of each head's queries and keys, in place."""

    def __init__(self, attention: Attention, pairs_K: torch.Tensor | None) -> None:
        scales = []
        for norm, linear in ((attention.q_norm, attention.q), (attention.k_norm, attention.k)):
            scale_K = cast(nn.RMSNorm, norm).weight.detach()
            ordered_K = scale_K if pairs_K is None else scale_K[pairs_K]
            scales.append(ordered_K.expand(linear.out_features // attention.d_head, -1))
        self._scale_HK = torch.cat(scales)
        self._eps = cast(nn.RMSNorm, attention.q_norm).eps

    def __call__(self, qk_BHK: torch.Tensor) -> None:
        qk_BHK.copy_(F.rms_norm(qk_BHK, qk_BHK.shape[-1:], None, self._eps)).mul_(self._scale_HK)


def pairs_of_channels(width: int) -> torch.Tensor:
    """The order of a head's channels that brings those which are turned together, i and i + K/2, side by side."""
    return torch.arange(width).view(2, -1).t().flatten()


def stacked(
    parts: list[tuple[torch.Tensor, torch.Tensor | None]], norm: QuickNorm | None = None, curve: Curve = "none"
) -> Matrix:
    """Linear layers of one input as one product.

    Args:
        parts: Weight ``[F, D]`` and bias ``[F]``, or None, of each.
        norm: What the input comes from.
        curve: What follows.
    """
    weight_FD = parts[0][0] if len(parts) == 1 else torch.cat([weight for weight, _ in parts])
    biases = [bias for _, bias in parts if bias is not None]
    assert len(biases) in (0, len(parts)), "either all of them have a bias or none"
    return Matrix(weight_FD if norm is None else norm.folded(weight_FD), torch.cat(biases) if biases else None, curve)


def _of(linear: nn.Linear, pairs_K: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a linear layer, the channels of each head in pairs where asked for."""
    weight = linear.weight.detach()
    bias = None if linear.bias is None else linear.bias.detach()
    if pairs_K is None:
        return weight, bias
    order = (torch.arange(0, len(weight), len(pairs_K))[:, None] + pairs_K).flatten()
    return weight[order], None if bias is None else bias[order]
