"""Masked language modelling: hide some tokens of a batch and ask for them (Devlin et al., 2019)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from danlu.core.batch import NOT_PREDICTED, Batch

__all__ = ["hide_tokens"]

_LEFT_AS_IT_IS = 0.1
"""Share of the asked-for tokens that stay in sight, so that the model also looks at tokens that it can see."""


def hide_tokens(batch: Batch, share: float, mask_token: int, generator: np.random.Generator) -> Batch:
    """The batch with tokens hidden, and what they were as its targets.

    Args:
        batch: Token ids on the CPU.
        share: How many of the tokens are asked for.
        mask_token: The id that stands for a hidden token.
        generator: Chooses them.
    """
    chance_BT = torch.from_numpy(generator.random(tuple(batch.tokens_BT.shape)))
    asked_BT = (chance_BT < share) & batch.mask_BT
    hidden_BT = asked_BT & (chance_BT >= share * _LEFT_AS_IT_IS)
    return replace(
        batch,
        tokens_BT=batch.tokens_BT.masked_fill(hidden_BT, mask_token),
        targets_BT=batch.tokens_BT.masked_fill(~asked_BT, NOT_PREDICTED),
    )
