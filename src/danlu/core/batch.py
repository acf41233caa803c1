"""What passes through a model: one record in, one record out.

The shape letters of the whole project: B batch, T tokens, S source tokens, H heads, K head width, D model width,
F feed-forward width, V vocabulary, C channels, Y height, X width, N classes, M masked positions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

__all__ = ["NOT_PREDICTED", "Batch", "Output"]

NOT_PREDICTED = -100
"""The target where nothing is to be predicted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch of records.

    Attributes:
        rows_B: int64; the number of each record in its split.
        tokens_BT: int64 token ids, padded on the right.
        mask_BT: bool; True where there is a token, False on padding.
        positions_BT: int64; the position of each token in its own text.
        labels_B: int64 class, for classification.
        targets_BT: int64 token to predict, -100 where nothing is to be predicted, for language modelling.
    """

    rows_B: torch.Tensor
    tokens_BT: torch.Tensor
    mask_BT: torch.Tensor
    positions_BT: torch.Tensor
    labels_B: torch.Tensor | None = None
    targets_BT: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        tensors: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a model answers.

    Attributes:
        logits: ``logits_BN`` of a classifier; ``logits_MV`` of a masked language model, only where there is a target,
            because logits elsewhere would be computed to be thrown away.
    """

    logits: torch.Tensor
