"""GPT for decoding on a CPU: the arithmetic of :class:`danlu.model.gpt.Gpt` for one new token a text, in fewer steps.

A step of a small model reads every weight once and does little else, so what counts is how the weights lie in memory
and how many operations there are. Queries, keys and values are one product, gate and up another; RMSNorm's scale is
folded into the product behind it; channels are ordered so that a rotation is one complex product; keys and values of a
step go to their slots in one copy. The answers are those of the module up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.model.base import Generative
from danlu.model.decoding.matrix import Curve, Matrix
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.layers.attention import Attention
from danlu.model.layers.block import Block
from danlu.model.layers.norm import RmsNorm

__all__ = ["QuickGpt", "QuickState", "quick"]

_WeightBias = tuple[torch.Tensor, torch.Tensor | None]


def quick(model: Generative) -> Generative:
    """A model that writes the same texts faster, where there is one, or the model itself.

    Weights are copied: a model that is trained further must be made quick again.
    """
    module: object = model
    return cast(Generative, QuickGpt(module)) if isinstance(module, Gpt) and _is_plain(module) else model


def _is_plain(model: Gpt) -> bool:
    """Whether every weight is an ordinary float32 one on the CPU: no adapter, nothing quantised."""
    parts = [(block.attention, block.feedforward) for block in _blocks(model)]
    layers = [layer for part in parts for half in part for layer in half.children()]
    return all(type(layer) in (nn.Linear, RmsNorm, nn.Identity) for layer in layers) and all(
        weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in model.parameters()
    )


def _blocks(model: Gpt) -> list[Block]:
    return [cast(Block, block) for block in model.blocks]


class QuickState:
    """Keys and values of the texts that are being written.

    Args:
        layers: ``[B, 2, H, S, K]`` each: keys, then values, of key-value heads H and slots S; token t is in slot t.
        lengths_B: int64; tokens read so far of each text.
    """

    def __init__(self, layers: list[torch.Tensor], lengths_B: torch.Tensor) -> None:
        self.layers = layers
        self.lengths_B = lengths_B

    def select(self, rows_B: torch.Tensor) -> Self:
        """The state of some texts, in this order; a text may come several times.

        It takes the memory of the old state, which is of no use afterwards: a text that stays where it is, as most do
        when one has ended or a beam is dropped, is not copied.
        """
        lengths_B = self.lengths_B[rows_B]
        if len(rows_B) > len(self.lengths_B):
            return type(self)([layer[rows_B] for layer in self.layers], lengths_B)
        moved_M = (rows_B != torch.arange(len(rows_B))).nonzero()[:, 0]
        for layer in self.layers if len(moved_M) else ():
            used = layer[:, :, :, : int(lengths_B.max())]
            used[moved_M] = used[rows_B[moved_M]]
        return type(self)([layer[: len(rows_B)] for layer in self.layers], lengths_B)


class QuickGpt:
    """A GPT that only writes.

    Args:
        model: The trained model; see :func:`quick`.
    """

    def __init__(self, model: Gpt) -> None:
        self.config = model.config
        self._model = model
        self._tokens_VD = model.embedding.tokens.weight.detach()
        self._positions = model.embedding.positions
        self._pairs_K = None if model.rotary is None else _pairs(model.config.head_width)
        self._turns_Th = _turns(model)
        self._blocks = [_QuickBlock(block, model.config, self._pairs_K) for block in _blocks(model)]
        self._norm = _Norm(model.norm)
        self._head = _stacked([(model.head.weight.detach(), None)], self._norm)

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, QuickState]:
        """See :class:`danlu.model.base.Generative`."""
        n_read = batch.text[0].shape[1]
        logits_BV, cache = self._model.begin(batch, n_read)
        layers = []
        for keys, values in zip(cache.keys, cache.values, strict=True):
            n_texts, n_heads, _, width = keys.shape
            layer = keys.new_zeros(n_texts, 2, n_heads, max(max_len, n_read), width)
            layer[:, 0, :, :n_read] = keys if self._pairs_K is None else keys[..., self._pairs_K]
            layer[:, 1, :, :n_read] = values
            layers.append(layer)
        return logits_BV, QuickState(layers, cache.lengths_B)

    def advance(self, tokens_B: torch.Tensor, state: QuickState) -> torch.Tensor:
        """See :class:`danlu.model.base.Generative`."""
        lengths_B = state.lengths_B
        x_BD = F.embedding(tokens_B, self._tokens_VD)
        if self._positions is not None:
            x_BD = x_BD + self._positions(lengths_B)
        turns_B1h = None if self._turns_Th is None else self._turns_Th[lengths_B][:, None]
        step = _Step.of(state, turns_B1h)
        for block, layer in zip(self._blocks, state.layers, strict=True):
            x_BD = block.advance(x_BD, layer, step)
        state.lengths_B = lengths_B + 1
        return self._head(self._norm(x_BD))


@dataclass(frozen=True, slots=True)
class _Step:
    """What is the same in every layer of a step.

    Attributes:
        n_slots: How many slots are looked at.
        slots_R: int64; where the new keys and values go, in rows of K channels over texts, keys and values, and heads.
        mask: ``[B, 1, 1, S]`` to be added to the scores; None where all texts are of one length.
        turns_B1h: The rotation of the new tokens, a complex number a pair of channels.
    """

    n_slots: int
    slots_R: torch.Tensor
    mask: torch.Tensor | None
    turns_B1h: torch.Tensor | None

    @classmethod
    def of(cls, state: QuickState, turns_B1h: torch.Tensor | None) -> _Step:
        lengths_B = state.lengths_B
        n_texts, _, n_heads, n_slots, _ = state.layers[0].shape
        first_BR = torch.arange(0, n_texts * 2 * n_heads * n_slots, n_slots).view(n_texts, -1)
        shortest, longest = (int(length) for length in lengths_B.aminmax())
        mask = None
        if shortest < longest:
            unseen_BS = torch.arange(longest + 1) > lengths_B[:, None]
            mask = torch.zeros(unseen_BS.shape).masked_fill_(unseen_BS, -torch.inf)[:, None, None]
        return cls(longest + 1, (first_BR + lengths_B[:, None]).flatten(), mask, turns_B1h)


class _QuickBlock:
    """One block; see :class:`danlu.model.layers.block.Block`."""

    def __init__(self, block: Block, config: GptConfig, pairs_K: torch.Tensor | None) -> None:
        attention, feedforward = block.attention, block.feedforward
        self._n_q, self._n_qk = attention.q.out_features, attention.q.out_features + attention.k.out_features
        self._norm, self._feedforward_norm = _Norm(block.attention_norm), _Norm(block.feedforward_norm)
        q, k = _of(attention.q, pairs_K), _of(attention.k, pairs_K)
        self._qkv = _stacked([q, k, _of(attention.v)], self._norm)
        self._qk_norm = _QKNorm(attention, pairs_K) if config.qk_norm else None
        self._out = _stacked([_of(attention.out)])
        self._gated = feedforward.gate is not None
        up = [_of(layer) for layer in (feedforward.gate, feedforward.up) if layer is not None]
        self._up = _stacked(up, self._feedforward_norm, "none" if config.activation == "swiglu" else config.activation)
        self._down = _stacked([_of(feedforward.down)])

    def advance(self, x_BD: torch.Tensor, layer_B2HSK: torch.Tensor, step: _Step) -> torch.Tensor:
        """One new token of every text; its keys and values are put into their slots."""
        n_texts, _, n_heads, _, width = layer_B2HSK.shape
        qkv = self._qkv(self._norm(x_BD))
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
        x_BD = self._out.add_to(x_BD, mixed.reshape(n_texts, -1))
        inner_BF = self._up(self._feedforward_norm(x_BD))
        if self._gated:
            gate_BF, up_BF = inner_BF.chunk(2, dim=1)
            inner_BF = F.silu(gate_BF).mul_(up_BF)
        return self._down.add_to(x_BD, inner_BF)


class _Norm:
    """A norm; the scale of an RMSNorm is left to the product behind it, whose weights go through :meth:`folded`."""

    def __init__(self, norm: nn.Module) -> None:
        assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
        assert norm.eps is not None
        self._shape, self._eps = norm.normalized_shape, norm.eps
        self._weight = norm.weight.detach()
        self._bias = norm.bias.detach() if isinstance(norm, nn.LayerNorm) else None
        self._least = torch.tensor(math.sqrt(self._shape[0] * norm.eps))

    def folded(self, weight_FD: torch.Tensor) -> torch.Tensor:
        return weight_FD if self._bias is not None else weight_FD * (self._weight * math.sqrt(self._shape[0]))

    def __call__(self, x_BD: torch.Tensor) -> torch.Tensor:
        if self._bias is not None:
            return F.layer_norm(x_BD, self._shape, self._weight, self._bias, self._eps)
        # The legs of a right triangle are |x| and what the epsilon comes to: its longest side is sqrt(|x|^2 + D eps).
        return x_BD / torch.hypot(torch.linalg.vector_norm(x_BD, dim=1, keepdim=True), self._least)


class _QKNorm:
    """The RMSNorm of each head's queries and keys, in place."""

    def __init__(self, attention: Attention, pairs_K: torch.Tensor | None) -> None:
        norms = (attention.q_norm, attention.k_norm)
        counts = (attention.q.out_features // attention.d_head, attention.k.out_features // attention.d_head)
        self._eps = cast(nn.RMSNorm, attention.q_norm).eps
        scales = [cast(nn.RMSNorm, norm).weight.detach() for norm in norms]
        order = slice(None) if pairs_K is None else pairs_K
        self._scale_HK = torch.cat([scale[order].expand(n, -1) for scale, n in zip(scales, counts, strict=True)])

    def __call__(self, qk_BHK: torch.Tensor) -> None:
        qk_BHK.copy_(F.rms_norm(qk_BHK, qk_BHK.shape[-1:], None, self._eps)).mul_(self._scale_HK)


def _pairs(width: int) -> torch.Tensor:
    """The order of channels that brings those which are turned together, i and i + K/2, side by side."""
    return torch.arange(width).view(2, -1).t().flatten()


def _turns(model: Gpt) -> torch.Tensor | None:
    """The rotation of every position as complex numbers ``[T, K/2]``; None where nothing is turned."""
    if model.rotary is None:
        return None
    cos_11TK, sin_11TK = model.rotary(torch.arange(model.config.max_len)[None])
    half = model.config.head_width // 2
    return torch.complex(cos_11TK[0, 0, :, :half], sin_11TK[0, 0, :, :half])


def _of(linear: nn.Linear, pairs_K: torch.Tensor | None = None) -> _WeightBias:
    """Weight and bias of a linear layer, the channels of each head side by side in pairs where asked for."""
    weight = linear.weight.detach()
    bias = None if linear.bias is None else linear.bias.detach()
    if pairs_K is None:
        return weight, bias
    order = (torch.arange(0, len(weight), len(pairs_K))[:, None] + pairs_K).flatten()
    return weight[order], None if bias is None else bias[order]


def _stacked(parts: list[_WeightBias], norm: _Norm | None = None, curve: Curve = "none") -> Matrix:
    """Several linear layers of one input as one product, behind a norm."""
    weight_FD = parts[0][0] if len(parts) == 1 else torch.cat([weight for weight, _ in parts])
    biases = [bias for _, bias in parts if bias is not None]
    assert len(biases) in (0, len(parts)), "either all of them have a bias or none"
    return Matrix(weight_FD if norm is None else norm.folded(weight_FD), torch.cat(biases) if biases else None, curve)
