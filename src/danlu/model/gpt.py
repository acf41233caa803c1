"""GPT: a causal Transformer that names the next token (Radford et al., 2019; Touvron et al., 2023).

    tokens -> embedding -> n_layers x (attention to earlier tokens, feed-forward) -> norm -> scores of every token

Its own make is that of Llama and Qwen: rotary positions, RMSNorm, SwiGLU, no biases. In the GPT-2 style it has
``positions: learned``, ``norm: layer``, ``activation: gelu-tanh``, ``bias: true``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import Model, Signature, TextConfig
from danlu.model.layers.attention import AttentionConfig, Sight, own_text_mask, slot_mask
from danlu.model.layers.block import Block, BlockConfig
from danlu.model.layers.cache import KVCache
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.feedforward import Activation
from danlu.model.layers.heads import LanguageHead
from danlu.model.layers.norm import Norm, make_norm
from danlu.model.layers.positions import LearnedPositions, Rotary, RotaryScaling

__all__ = ["Gpt", "GptConfig"]


class GptConfig(TextConfig):
    """A causal Transformer."""

    family: Literal["gpt"]
    """Which family."""
    d_model: int = Field(gt=0)
    """Width of the sequence."""
    n_layers: int = Field(gt=0)
    """Transformer blocks."""
    n_heads: int = Field(gt=0)
    """Attention heads of a block."""
    d_ff: int = Field(gt=0)
    """Width of a block's feed-forward part."""
    n_kv_heads: int | None = Field(None, gt=0)
    """Key-value heads; fewer than ``n_heads`` make decoding cheaper. None: as many."""
    d_head: int | None = Field(None, gt=0)
    """Width of a head. None: d_model / n_heads."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How the model knows the order of the tokens."""
    rope_base: float = Field(10000.0, gt=0)
    """Base of the rotary positions."""
    rope_scaling: RotaryScaling | None = None
    """How the rotation is stretched to longer texts, as in Llama 3."""
    norm: Norm = "rms"
    """``rms`` or ``layer``."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to variances before division."""
    activation: Activation = "swiglu"
    """What stands between the layers of the feed-forward part."""
    bias: bool = False
    """Whether linear layers have one."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values have one. None: as ``bias`` says."""
    qk_norm: bool = False
    """Whether each head's queries and keys are normalised."""
    tie_embeddings: bool = True
    """Whether the token vectors also score the tokens."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share dropped of token vectors, attention weights and of what each part of a block adds, in training."""

    @model_validator(mode="after")
    def _heads_fit(self) -> GptConfig:
        if self.d_head is None and self.d_model % self.n_heads:
            raise ValueError(f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}")
        if self.n_heads % (self.n_kv_heads or self.n_heads):
            raise ValueError(f"n_heads={self.n_heads} is not a multiple of n_kv_heads={self.n_kv_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need heads of even width, not {self.head_width}")
        return self

    @property
    def head_width(self) -> int:
        """K."""
        return self.d_head or self.d_model // self.n_heads

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"d_model": 192, "n_layers": 3, "n_heads": 4, "d_ff": 512, "embedding_from": "cooccurrence"},
            "train": {"epochs": 1, "optimizer": "muon", "learning_rate": 3e-3, "batch_tokens": 1024},
        },
        "small": {
            "model": {"d_model": 512, "n_layers": 8, "n_heads": 8, "d_ff": 1408},
            "train": {"epochs": 3, "optimizer": "muon", "learning_rate": 2e-3, "batch_tokens": 8192},
        },
        "base": {
            "model": {"d_model": 768, "n_layers": 12, "n_heads": 12, "d_ff": 2048, "max_len": 1024},
            "train": {"epochs": 3, "optimizer": "muon", "learning_rate": 1e-3, "batch_tokens": 65536},
        },
    }


class Gpt(Model):
    """The language model; see :class:`danlu.model.base.Model`."""

    Config = GptConfig
    tasks = frozenset({"language-modelling"})
    config: GptConfig
    head: LanguageHead

    def __init__(self, config: GptConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.embedding = TokenEmbedding(
            signature.vocab_size,
            config.d_model,
            positions=LearnedPositions(config.max_len, config.d_model) if config.positions == "learned" else None,
            dropout=config.dropout,
        )
        self.rotary = (
            Rotary(config.head_width, config.rope_base, config.rope_scaling) if config.positions == "rotary" else None
        )
        self.blocks = nn.ModuleList(Block(_block(config)) for _ in range(config.n_layers))
        self.norm = make_norm(config.norm, config.d_model, config.norm_eps)
        embedding = self.embedding.tokens if config.tie_embeddings else None
        self.head = LanguageHead(embedding, signature.vocab_size, config.d_model)

    def forward(self, batch: Batch) -> Output:
        """``logits_MV`` where there is a target, or ``logits_BTV``."""
        tokens_BT, _, positions_BT = batch.text  # padding is on the right, where no token looks
        sight = Sight(causal=True) if batch.texts_BT is None else Sight(mask=own_text_mask(batch.texts_BT))
        answer: Output = self.head(self._hidden(tokens_BT, positions_BT, sight), batch)
        return answer

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, KVCache]:
        """See :class:`danlu.model.base.Generative`."""
        tokens_BT, mask_BT, positions_BT = batch.text
        shape = (len(tokens_BT), self.config.n_kv_heads or self.config.n_heads, max_len, self.config.head_width)
        cache = KVCache(self.config.n_layers, shape, self.embedding.tokens.weight)
        x_BTD = self._hidden(tokens_BT, positions_BT, Sight(causal=True, cache=cache))
        cache.lengths_B = mask_BT.sum(1)
        last_BD = x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), cache.lengths_B - 1]
        return self.head.scores(last_BD), cache

    def advance(self, tokens_B: torch.Tensor, state: KVCache) -> torch.Tensor:
        """See :class:`danlu.model.base.Generative`."""
        positions_BT = state.lengths_B[:, None]
        n_slots = int(state.lengths_B.max()) + 1
        sight = Sight(mask=slot_mask(state.lengths_B, n_slots), cache=state, n_slots=n_slots)
        x_BTD = self._hidden(tokens_B[:, None], positions_BT, sight)
        state.lengths_B = state.lengths_B + 1
        return self.head.scores(x_BTD[:, 0])

    def _hidden(self, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, sight: Sight) -> torch.Tensor:
        """The sequence as the head sees it; ``[B, T, D]``."""
        x_BTD = self.embedding(tokens_BT, positions_BT)
        sight = replace(sight, rotation=None if self.rotary is None else self.rotary(positions_BT))
        for layer, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, sight, layer)
        out: torch.Tensor = self.norm(x_BTD)
        return out


def _block(config: GptConfig) -> BlockConfig:
    attention = AttentionConfig(
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
        d_head=config.d_head,
        bias=config.bias,
        qkv_bias=config.qkv_bias,
        qk_norm=config.norm_eps if config.qk_norm else None,
        dropout=config.dropout,
    )
    return BlockConfig(
        attention=attention,
        d_ff=config.d_ff,
        activation=config.activation,
        norm=config.norm,
        norm_eps=config.norm_eps,
        dropout=config.dropout,
    )
