"""The encoder-decoder Transformer (Vaswani et al., 2017), for translation.

    source -> embedding -> n_layers x (attention, feed-forward) -> norm -> memory
    tokens -> embedding -> n_decoder_layers x (attention to earlier tokens, attention to memory, feed-forward) -> norm
           -> scores of every token

Both sides share one vocabulary and one embedding, which also scores the tokens.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import nn

from danlu.core.batch import Batch, Output
from danlu.model.base import Model, Signature, TextConfig
from danlu.model.layers.attention import AttentionConfig, Sight, padding_mask, slot_mask
from danlu.model.layers.block import Block, BlockConfig
from danlu.model.layers.cache import KeysValues, KVCache
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.feedforward import Activation
from danlu.model.layers.heads import LanguageHead
from danlu.model.layers.positions import Rotary, SinusoidalPositions

__all__ = ["Transformer", "TransformerConfig"]


class TransformerConfig(TextConfig):
    """An encoder-decoder Transformer."""

    family: Literal["transformer"]
    """Which family."""
    d_model: int = Field(gt=0)
    """Width of the sequences."""
    n_layers: int = Field(gt=0)
    """Blocks of the encoder."""
    n_decoder_layers: int = Field(gt=0)
    """Blocks of the decoder."""
    n_heads: int = Field(gt=0)
    """Attention heads of a block."""
    d_ff: int = Field(gt=0)
    """Width of a block's feed-forward part."""
    positions: Literal["sinusoidal", "rotary"] = "sinusoidal"
    """How the model knows the order of the tokens."""
    norm_first: bool = True
    """Whether each part of a block sees a normalised sequence, or the sum is normalised after it."""
    norm_eps: float = Field(1e-5, gt=0)
    """Added to variances before division."""
    activation: Activation = "relu"
    """What stands between the layers of the feed-forward part."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share dropped of token vectors, attention weights and of what each part of a block adds, in training."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of each target that is spread over all tokens in training."""

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerConfig:
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model={self.d_model} is not an even multiple of n_heads={self.n_heads}")
        return self

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {
                "d_model": 192,
                "n_layers": 3,
                "n_decoder_layers": 2,
                "n_heads": 4,
                "d_ff": 576,
                "embedding_from": "cooccurrence",
            },
            "train": {"epochs": 8, "optimizer": "muon", "learning_rate": 3e-3, "batch_tokens": 1536},
        },
        "small": {
            "model": {"d_model": 384, "n_layers": 6, "n_decoder_layers": 6, "n_heads": 6, "d_ff": 1536},
            "train": {"epochs": 30, "learning_rate": 7e-4, "batch_tokens": 8192},
        },
        "base": {
            "model": {"d_model": 512, "n_layers": 6, "n_decoder_layers": 6, "n_heads": 8, "d_ff": 2048, "max_len": 512},
            "train": {"epochs": 40, "learning_rate": 7e-4, "batch_tokens": 25000},
        },
    }


class Transformer(Model):
    """The translator; see :class:`danlu.model.base.Model`."""

    Config = TransformerConfig
    tasks = frozenset({"translation"})
    config: TransformerConfig
    head: LanguageHead

    def __init__(self, config: TransformerConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        sines = SinusoidalPositions(config.d_model) if config.positions == "sinusoidal" else None
        self.embedding = TokenEmbedding(
            signature.vocab_size,
            config.d_model,
            positions=sines,
            scale=math.sqrt(config.d_model),
            dropout=config.dropout,
        )
        self.rotary = Rotary(config.d_model // config.n_heads) if config.positions == "rotary" else None
        block = _block(config)
        self.encoder = nn.ModuleList(Block(block) for _ in range(config.n_layers))
        self.decoder = nn.ModuleList(Block(replace(block, cross=True)) for _ in range(config.n_decoder_layers))
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(config.d_model, eps=config.norm_eps) if config.norm_first else nn.Identity() for _ in range(2)
        )
        self.head = LanguageHead(self.embedding.tokens, signature.vocab_size, config.d_model, config.smoothing)

    def forward(self, batch: Batch) -> Output:
        """``logits_MV`` where there is a target, or ``logits_BTV``."""
        tokens_BT, _, positions_BT = batch.text  # padding is on the right, where no token looks
        memory, mask = self._encode(batch)
        answer: Output = self.head(self._decode(tokens_BT, positions_BT, Sight(causal=True), memory, mask), batch)
        return answer

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, KVCache]:
        """See :class:`danlu.model.base.Generative`; the batch has sources, and its tokens begin the translations."""
        tokens_BT, mask_BT, positions_BT = batch.text
        memory, mask = self._encode(batch)
        width = self.config.d_model // self.config.n_heads
        shape = (len(tokens_BT), self.config.n_heads, max_len, width)
        cache = KVCache(self.config.n_decoder_layers, shape, self.embedding.tokens.weight)
        cache.memory, cache.memory_mask = memory, mask
        x_BTD = self._decode(tokens_BT, positions_BT, Sight(causal=True, cache=cache), memory, mask)
        cache.lengths_B = mask_BT.sum(1)
        last_BD = x_BTD[torch.arange(len(x_BTD), device=x_BTD.device), cache.lengths_B - 1]
        return self.head.scores(last_BD), cache

    def advance(self, tokens_B: torch.Tensor, state: KVCache) -> torch.Tensor:
        """See :class:`danlu.model.base.Generative`."""
        n_slots = int(state.lengths_B.max()) + 1
        sight = Sight(mask=slot_mask(state.lengths_B, n_slots), cache=state, n_slots=n_slots)
        positions_BT = state.lengths_B[:, None]
        x_BTD = self._decode(tokens_B[:, None], positions_BT, sight, state.memory, state.memory_mask)
        state.lengths_B = state.lengths_B + 1
        return self.head.scores(x_BTD[:, 0])

    def _encode(self, batch: Batch) -> tuple[list[KeysValues], torch.Tensor | None]:
        """The sources as each layer of the decoder sees them, and where they are no padding."""
        source_BS, source_mask_BS = batch.source
        positions_BS = torch.arange(source_BS.shape[1], device=source_BS.device).expand_as(source_BS)
        x_BSD = self.embedding(source_BS, positions_BS)
        mask = padding_mask(source_mask_BS)
        sight = Sight(mask=mask, rotation=None if self.rotary is None else self.rotary(positions_BS))
        for block in self.encoder:
            x_BSD = block(x_BSD, sight)
        memory_BSD = self.encoder_norm(x_BSD)
        return [cast("Block", block).remember(memory_BSD) for block in self.decoder], mask

    def _decode(
        self,
        tokens_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        sight: Sight,
        memory: list[KeysValues],
        memory_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """The translations as the head sees them, ``[B, T, D]``."""
        x_BTD = self.embedding(tokens_BT, positions_BT)
        sight = replace(sight, rotation=None if self.rotary is None else self.rotary(positions_BT))
        for layer, block in enumerate(self.decoder):
            x_BTD = block(x_BTD, sight, layer, memory[layer], memory_mask)
        out: torch.Tensor = self.decoder_norm(x_BTD)
        return out


def _block(config: TransformerConfig) -> BlockConfig:
    return BlockConfig(
        attention=AttentionConfig(d_model=config.d_model, n_heads=config.n_heads, dropout=config.dropout),
        d_ff=config.d_ff,
        activation=config.activation,
        norm_eps=config.norm_eps,
        norm_first=config.norm_first,
        dropout=config.dropout,
    )
