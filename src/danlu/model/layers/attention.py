"""Multi-head attention (Vaswani et al., 2017), with fewer key-value heads where wanted (Ainslie et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from danlu.model.layers.cache import KeysValues, KVCache
from danlu.model.layers.norm import RmsNorm
from danlu.model.layers.positions import Rotation, rotate

__all__ = ["Attention", "AttentionConfig", "Sight", "own_text_mask", "padding_mask", "slot_mask"]


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The make of an attention layer.

    Attributes:
        d_model: Width D of the sequence.
        n_heads: Query heads.
        n_kv_heads: Key-value heads; ``n_heads`` is a multiple of it. None: as many.
        d_head: Width K of a head. None: D / n_heads.
        bias: Whether the output has one.
        qkv_bias: Whether queries, keys and values have one. None: as ``bias`` says.
        qk_norm: Epsilon of an RMSNorm of each head's queries and keys (Henry et al., 2020); None: no norm.
        dropout: Share of attention weights dropped in training.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    bias: bool = True
    qkv_bias: bool | None = None
    qk_norm: float | None = None
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the tokens of a batch may look at, the same in every layer.

    Attributes:
        mask: bool, broadcast to ``[B, H, T, S]``; True where a token may look. None: everywhere.
        causal: Whether a token sees those before it and itself only.
        rotation: How queries and keys are turned; None: not.
        cache: Where keys and values are kept; None: nowhere.
        n_slots: How many slots of the cache the tokens look at; 0: at each other only.
    """

    mask: torch.Tensor | None = None
    causal: bool = False
    rotation: Rotation | None = None
    cache: KVCache | None = None
    n_slots: int = 0


class Attention(nn.Module):
    """Queries from one sequence; keys and values from the same one, or from another (cross-attention).

    Args:
        config: See :class:`AttentionConfig`.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        n_kv_heads = config.n_kv_heads or config.n_heads
        if config.n_heads % n_kv_heads:
            raise ValueError(f"n_heads={config.n_heads} is not a multiple of n_kv_heads={n_kv_heads}")
        if config.d_head is None and config.d_model % config.n_heads:
            raise ValueError(f"d_model={config.d_model} is not a multiple of n_heads={config.n_heads}")
        self.d_head = config.d_head or config.d_model // config.n_heads
        self.shares_heads = n_kv_heads != config.n_heads
        self.dropout = config.dropout
        qkv_bias = config.bias if config.qkv_bias is None else config.qkv_bias
        self.q = nn.Linear(config.d_model, config.n_heads * self.d_head, bias=qkv_bias)
        self.k = nn.Linear(config.d_model, n_kv_heads * self.d_head, bias=qkv_bias)
        self.v = nn.Linear(config.d_model, n_kv_heads * self.d_head, bias=qkv_bias)
        self.out = nn.Linear(config.n_heads * self.d_head, config.d_model, bias=config.bias)
        self.q_norm, self.k_norm = (
            nn.Identity() if config.qk_norm is None else RmsNorm(self.d_head, eps=config.qk_norm) for _ in range(2)
        )

    def forward(self, x_BTD: torch.Tensor, sight: Sight, layer: int = 0) -> torch.Tensor:
        """Attend within a sequence.

        Args:
            x_BTD: The sequence.
            sight: What its tokens may look at.
            layer: Which part of the cache is this layer's.

        Returns:
            ``[B, T, D]``; rows on padding hold no meaning.
        """
        q_BHTK, (k_BHSK, v_BHSK) = self._queries(x_BTD), self.keys_values(x_BTD)
        if sight.rotation is not None:
            q_BHTK, k_BHSK = rotate(q_BHTK, sight.rotation), rotate(k_BHSK, sight.rotation)
        if sight.cache is not None:
            sight.cache.write(layer, k_BHSK, v_BHSK)
            if sight.n_slots:
                k_BHSK = sight.cache.keys[layer][:, :, : sight.n_slots]
                v_BHSK = sight.cache.values[layer][:, :, : sight.n_slots]
        return self._mix(q_BHTK, KeysValues(k_BHSK, v_BHSK), sight.mask, sight.causal)

    def look(self, x_BTD: torch.Tensor, memory: KeysValues, mask: torch.Tensor | None) -> torch.Tensor:
        """Attend from a sequence to what another one was turned into by :meth:`keys_values`; ``[B, T, D]``."""
        return self._mix(self._queries(x_BTD), memory, mask, causal=False)

    def keys_values(self, x_BSD: torch.Tensor) -> KeysValues:
        """Keys and values of a sequence, not turned yet."""
        keys_BHSK = self.k_norm(self.k(x_BSD).unflatten(-1, (-1, self.d_head))).transpose(1, 2)
        return KeysValues(keys_BHSK, self.v(x_BSD).unflatten(-1, (-1, self.d_head)).transpose(1, 2))

    def _queries(self, x_BTD: torch.Tensor) -> torch.Tensor:
        q_BHTK: torch.Tensor = self.q_norm(self.q(x_BTD).unflatten(-1, (-1, self.d_head))).transpose(1, 2)
        return q_BHTK

    def _mix(self, q_BHTK: torch.Tensor, memory: KeysValues, mask: torch.Tensor | None, causal: bool) -> torch.Tensor:
        mixed_BHTK = F.scaled_dot_product_attention(
            q_BHTK,
            memory.keys,
            memory.values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
            enable_gqa=self.shares_heads,
        )
        mixed: torch.Tensor = self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return mixed


def padding_mask(mask_BS: torch.Tensor) -> torch.Tensor | None:
    """Nothing looks at padding: ``[B, 1, 1, S]``; on a CPU None where there is none, which a GPU is not asked for."""
    nowhere = mask_BS.device.type == "cpu" and bool(mask_BS.all())
    return None if nowhere else mask_BS[:, None, None, :]


def own_text_mask(texts_BT: torch.Tensor) -> torch.Tensor:
    """A token looks at those before it in its own text and at itself: ``[B, 1, T, T]``."""
    earlier_TT = torch.ones(texts_BT.shape[1:] * 2, dtype=torch.bool, device=texts_BT.device).tril()
    return ((texts_BT[:, :, None] == texts_BT[:, None, :]) & earlier_TT)[:, None]


def slot_mask(lengths_B: torch.Tensor, n_slots: int) -> torch.Tensor:
    """A next token looks at the tokens before it and at itself: ``[B, 1, 1, S]`` over the slots of a cache."""
    return (torch.arange(n_slots, device=lengths_B.device) <= lengths_B[:, None])[:, None, None, :]
