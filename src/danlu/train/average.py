"""A running mean of the weights, which is often better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from danlu.train.world import assign

__all__ = ["Average"]


class Average:
    """An exponential moving average of the trained weights (Polyak & Juditsky, 1992).

    The first steps decay faster, so that the weights which the run began with do not linger: at step t by
    ``min(decay, (1 + t) / (10 + t))``.

    Args:
        model: Its weights begin the mean.
        decay: From 0 to 1; the larger, the longer the memory.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._decay = decay
        self.tensors = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (0, 1, ...)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._weights.items():
            self.tensors[name].lerp_(weight, 1 - decay)

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a mean that was kept."""
        for name, tensor in self.tensors.items():
            assign(tensor, tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean weights while the block lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():  # in their place, where other processes look for them too
            before = weight.clone()
            weight.copy_(self.tensors[name])
            self.tensors[name].copy_(before)
