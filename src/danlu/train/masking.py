"""Masked language modelling: hide some tokens of a batch and ask for them (Devlin et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from danlu.core.batch import NOT_PREDICTED, Batch

__all__ = ["hide_tokens"]

_LEFT_AS_IT_IS = 0.1
"""Share of the asked-for tokens that stay in sight, so that the model also looks at tokens that it can see."""


def hide_tokens(
    batch: Batch, share: float, mask_token: int, generator: np.random.Generator, special: Sequence[int] = ()
) -> Batch:
    """The batch with tokens hidden, and what they were as its targets.

    Args:
        batch: Token ids on the CPU.
        share: How many of the tokens are asked for.
        mask_token: The id that stands for a hidden token.
        generator: Chooses them.
        special: Tokens that are never asked for.
    """
    tokens_BT, mask_BT, _ = batch.text
    chance_BT = torch.from_numpy(generator.random(tuple(tokens_BT.shape)))
    asked_BT = (chance_BT < share) & mask_BT & ~torch.isin(tokens_BT, torch.tensor(special))
    hidden_BT = asked_BT & (chance_BT >= share * _LEFT_AS_IT_IS)
    return replace(
        batch,
        tokens_BT=tokens_BT.masked_fill(hidden_BT, mask_token),
        targets_BT=tokens_BT.masked_fill(~asked_BT, NOT_PREDICTED),
    )
