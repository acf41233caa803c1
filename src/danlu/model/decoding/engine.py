"""Gpt and Transformer for decoding on a CPU: what the modules do for one new token a text, in fewer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.model.base import Generative
from danlu.model.decoding.blocks import QuickBlock, QuickNorm, Step, pairs_of_channels, stacked
from danlu.model.gpt import Gpt
from danlu.model.layers.block import Block
from danlu.model.layers.cache import KeysValues, KVCache
from danlu.model.layers.norm import RmsNorm
from danlu.model.layers.positions import Rotary
from danlu.model.transformer import Transformer

__all__ = ["QuickDecoder", "QuickState", "quick"]


def quick(model: Generative) -> Generative:
    """A model that writes the same texts faster, where there is one, or the model itself.

    Weights are copied: a model that is trained further must be made quick again.
    """
    module: object = model
    if isinstance(module, Gpt | Transformer) and _is_plain(module):
        return cast(Generative, QuickDecoder(module))
    return model


def _is_plain(model: Gpt | Transformer) -> bool:
    """Whether every weight is an ordinary float32 one on the CPU: no adapter, nothing quantised."""
    parts = [part for block in _blocks(model) for part in (block.attention, block.cross, block.feedforward) if part]
    layers = [layer for part in parts for layer in part.children()]
    return all(type(layer) in (nn.Linear, RmsNorm, nn.Identity) for layer in layers) and all(
        weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in model.parameters()
    )


def _blocks(model: Gpt | Transformer) -> list[Block]:
    return [cast(Block, block) for block in (model.blocks if isinstance(model, Gpt) else model.decoder)]


class QuickState:
    """Keys and values of the texts that are being written.

    Args:
        cache: What the module has read.
        n_slots: The most tokens of a text.
        pairs_K: The order of channels of the keys; None: as they are.

    Attributes:
        layers: ``[B, 2, H, S, K]`` each: keys, then values, of key-value heads H and slots S; token t is in slot t.
        lengths_B: int64; tokens read so far of each text.
        memory: Keys and values of P sources in each layer, where texts have sources; each is that of B / P texts.
        memory_mask: ``[P, 1, 1, S]``, -inf where a source has ended; None where none has.
    """

    def __init__(self, cache: KVCache, n_slots: int, pairs_K: torch.Tensor | None) -> None:
        self.layers = []
        for keys, values in zip(cache.keys, cache.values, strict=True):
            n_texts, n_heads, n_read, width = keys.shape
            layer = keys.new_zeros(n_texts, 2, n_heads, max(n_slots, n_read), width)
            layer[:, 0, :, :n_read] = keys if pairs_K is None else keys[..., pairs_K]
            layer[:, 1, :, :n_read] = values
            self.layers.append(layer)
        self.lengths_B = cache.lengths_B
        self.memory = [KeysValues(keys.contiguous(), values.contiguous()) for keys, values in cache.memory]
        self.memory_mask = None if cache.memory_mask is None else _hidden(~cache.memory_mask)
        self._sources_B = torch.arange(len(self.lengths_B))

    def select(self, rows_B: torch.Tensor) -> Self:
        """The state of some texts, in this order; a text may come several times.

        It takes the memory of the old state, which is of no use afterwards: a text that stays where it is, as most do
        when one has ended or a beam is dropped, is not copied.
        """
        chosen = object.__new__(type(self))
        chosen.lengths_B = self.lengths_B[rows_B]
        n_used = int(chosen.lengths_B.max())
        chosen.layers = [_rearranged(layer, rows_B, n_used) for layer in self.layers]
        # Texts of one source that stand side by side, such as beams, share it; each source has as many texts.
        sources_P, counts_P = torch.unique_consecutive(self._sources_B[rows_B], return_counts=True)
        if counts_P.min() < counts_P.max():
            sources_P, counts_P = self._sources_B[rows_B], torch.ones_like(rows_B)
        chosen._sources_B = torch.arange(len(sources_P)).repeat_interleave(counts_P)
        chosen.memory = [KeysValues(*(_rearranged(part, sources_P) for part in pair)) for pair in self.memory]
        chosen.memory_mask = None if self.memory_mask is None else self.memory_mask[sources_P]
        return chosen


class QuickDecoder:
    """A model that only writes.

    Args:
        model: The trained model; see :func:`quick`.
    """

    def __init__(self, model: Gpt | Transformer) -> None:
        self.config = model.config
        self._model = model
        blocks = _blocks(model)
        self._tokens_VD = model.embedding.tokens.weight.detach() * model.embedding.scale
        self._positions = model.embedding.positions
        self._pairs_K = None if model.rotary is None else pairs_of_channels(blocks[0].attention.d_head)
        self._turns_Th = None if model.rotary is None else _turns(model.rotary, model.config.max_len)
        self._blocks = [QuickBlock(block, model.config.activation, self._pairs_K) for block in blocks]
        self._norm = QuickNorm(model.norm if isinstance(model, Gpt) else model.decoder_norm)
        self._head = stacked([(model.head.weight.detach(), None)], self._norm)

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, QuickState]:
        """See :class:`danlu.model.base.Generative`."""
        logits_BV, cache = self._model.begin(batch, batch.text[0].shape[1])
        return logits_BV, QuickState(cache, max_len, self._pairs_K)

    def advance(self, tokens_B: torch.Tensor, state: QuickState) -> torch.Tensor:
        """See :class:`danlu.model.base.Generative`."""
        lengths_B = state.lengths_B
        x_BD = F.embedding(tokens_B, self._tokens_VD)
        if self._positions is not None:
            x_BD = x_BD + self._positions(lengths_B)
        step = _step(state, None if self._turns_Th is None else self._turns_Th[lengths_B][:, None])
        memory: Sequence[KeysValues | None] = state.memory or [None] * len(self._blocks)
        for block, layer, source in zip(self._blocks, state.layers, memory, strict=True):
            x_BD = block.advance(x_BD, layer, source, step)
        state.lengths_B = lengths_B + 1
        return self._head(self._norm(x_BD))


def _step(state: QuickState, turns_B1h: torch.Tensor | None) -> Step:
    lengths_B = state.lengths_B
    n_texts, _, n_heads, n_slots, _ = state.layers[0].shape
    first_BR = torch.arange(0, n_texts * 2 * n_heads * n_slots, n_slots).view(n_texts, -1)
    shortest, longest = (int(length) for length in lengths_B.aminmax())
    mask = None
    if shortest < longest:
        mask = _hidden((torch.arange(longest + 1) > lengths_B[:, None])[:, None, None])
    return Step(longest + 1, (first_BR + lengths_B[:, None]).flatten(), mask, turns_B1h, state.memory_mask)


def _hidden(where: torch.Tensor) -> torch.Tensor:
    """-inf where True, 0 elsewhere: what is added to the scores of attention."""
    return torch.zeros(where.shape).masked_fill_(where, -torch.inf)


def _turns(rotary: Rotary, max_len: int) -> torch.Tensor:
    """The rotation of every position, as complex numbers ``[T, K/2]``."""
    cos_TK, sin_TK = (part[0, 0] for part in rotary(torch.arange(max_len)[None]))
    half = cos_TK.shape[1] // 2
    return torch.complex(cos_TK[:, :half], sin_TK[:, :half])


def _rearranged(tensor: torch.Tensor, rows: torch.Tensor, n_slots: int | None = None) -> torch.Tensor:
    """Some rows of a tensor, in its own memory where there is room; of each the first slots only, where given."""
    if len(rows) > len(tensor):
        return tensor[rows]
    moved = (rows != torch.arange(len(rows))).nonzero()[:, 0]
    if len(moved):
        used = tensor if n_slots is None else tensor[:, :, :, :n_slots]
        used[moved] = used[rows[moved]]
    return tensor[: len(rows)]
