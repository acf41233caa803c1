"""What a model's head sees of each record: the vectors by which records are near to each other or far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from danlu.model.base import Model
from danlu.model.layers.pooling import masked_mean

__all__ = ["with_vectors"]


def with_vectors(module: Model, n: int, answer: Callable[[], np.ndarray]) -> tuple[np.ndarray, NDArray[np.float32]]:
    """Answer records, and keep what the head saw of each on the way.

    Args:
        module: The module that answers.
        n: Records, one or more.
        answer: Answers all of them, in batches whose ``rows_B`` are their places.

    Returns:
        What ``answer`` returned, and float32 (n, D): the mean over a record's tokens or places of the sequence that
        the head is given, at length 1.
    """
    seen: list[tuple[np.ndarray, NDArray[np.float32]]] = []

    def look(_: nn.Module, given: tuple[Any, ...]) -> None:
        x_BTD, batch = given
        mask_BT = batch.mask_BT
        if mask_BT is None:  # a picture has no padding
            mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        vectors_BD = nn.functional.normalize(masked_mean(x_BTD, mask_BT).float(), dim=1)
        seen.append((batch.rows_B.numpy(force=True), vectors_BD.numpy(force=True)))

    handle = module.head.register_forward_pre_hook(look)
    try:
        answered = answer()
    finally:
        handle.remove()
    vectors_nD = np.empty((n, seen[0][1].shape[1]), np.float32)
    for rows_B, vectors_BD in seen:
        vectors_nD[rows_B] = vectors_BD
    return answered, vectors_nD
