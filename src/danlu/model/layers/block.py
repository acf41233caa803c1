"""One Transformer block: attention, attention to another sequence where there is one, feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from danlu.model.layers.attention import Attention, AttentionConfig, Sight
from danlu.model.layers.cache import KeysValues
from danlu.model.layers.feedforward import Activation, FeedForward
from danlu.model.layers.norm import Norm, make_norm

__all__ = ["Block", "BlockConfig"]


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The make of a block.

    Attributes:
        attention: See :class:`danlu.model.layers.attention.AttentionConfig`.
        d_ff: Width F of the feed-forward part.
        activation: What stands between its layers.
        norm: Which normalisation, and
        norm_eps: its epsilon.
        norm_first: Whether each part sees a normalised sequence (pre-norm: Xiong et al., 2020) or the sum is normalised
            after it (post-norm: Vaswani et al., 2017).
        dropout: Share dropped of what each part adds.
        cross: Whether the block looks at another sequence too.
    """

    attention: AttentionConfig
    d_ff: int
    activation: Activation = "gelu"
    norm: Norm = "layer"
    norm_eps: float = 1e-5
    norm_first: bool = True
    dropout: float = 0.0
    cross: bool = False


class Block(nn.Module):
    """A Transformer block.

    Args:
        config: See :class:`BlockConfig`.

    Attributes:
        recompute: Whether, in training, only the block's input is kept for the backward pass, and what was computed
            from it is computed again then (Chen et al., 2016).
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        d_model, bias = config.attention.d_model, config.attention.bias
        self.norm_first = config.norm_first
        self.attention_norm = make_norm(config.norm, d_model, config.norm_eps)
        self.attention = Attention(config.attention)
        self.cross_norm = make_norm(config.norm, d_model, config.norm_eps) if config.cross else None
        self.cross = Attention(config.attention) if config.cross else None
        self.feedforward_norm = make_norm(config.norm, d_model, config.norm_eps)
        self.feedforward = FeedForward(d_model, config.d_ff, config.activation, bias)
        self.dropout = nn.Dropout(config.dropout)
        self.recompute = False

    def forward(
        self,
        x_BTD: torch.Tensor,
        sight: Sight,
        layer: int = 0,
        memory: KeysValues | None = None,
        memory_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mix the sequence.

        Args:
            x_BTD: The sequence.
            sight: What its tokens may look at.
            layer: Which part of the cache is this block's.
            memory: What :meth:`remember` made of another sequence.
            memory_mask: Where that one is no padding.

        Returns:
            ``[B, T, D]``.
        """
        if self.recompute and self.training:
            again: torch.Tensor = checkpoint(self._mix, x_BTD, sight, layer, memory, memory_mask, use_reentrant=False)
            return again
        return self._mix(x_BTD, sight, layer, memory, memory_mask)

    def _mix(
        self,
        x_BTD: torch.Tensor,
        sight: Sight,
        layer: int,
        memory: KeysValues | None,
        memory_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        x_BTD = self._add(x_BTD, self.attention_norm, lambda y_BTD: self.attention(y_BTD, sight, layer))
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            look = self.cross.look
            x_BTD = self._add(x_BTD, self.cross_norm, lambda y_BTD: look(y_BTD, memory, memory_mask))
        return self._add(x_BTD, self.feedforward_norm, self.feedforward)

    def remember(self, other_BSD: torch.Tensor) -> KeysValues:
        """Another sequence as this block looks at it."""
        assert self.cross is not None, "this block looks at no other sequence"
        return self.cross.keys_values(other_BSD)

    def _add(self, x_BTD: torch.Tensor, norm: nn.Module, part: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        out: torch.Tensor = (
            x_BTD + self.dropout(part(norm(x_BTD))) if self.norm_first else norm(x_BTD + self.dropout(part(x_BTD)))
        )
        return out
