"""A parameter as a part of a stored tensor: some of its rows, one of its experts, or transposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from danlu.audit.packed import Matrix

__all__ = ["Part", "Tail", "Traits", "setting"]


@dataclass(frozen=True)
class Part:
    """A parameter under our name.

    Attributes:
        source: The tensor that it is in.
        expert: Its number along the first dimension, where experts are stacked.
        transposed: Whether it lies the other way round.
        rows: Picks its rows, of a tensor that lies as ours do.
        plus_one: Whether 1 is to be added: a norm that multiplies by 1 + g.
        sure: Whether it was found by its name, not by its shape alone.
    """

    source: Matrix
    expert: int | None = None
    transposed: bool = False
    rows: Callable[[torch.Tensor], torch.Tensor] | None = None
    plus_one: bool = False
    sure: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, without a look at its numbers."""
        return tuple(self._of(torch.empty(self.source.shape, device="meta")).shape)

    def read(self) -> torch.Tensor:
        """The parameter as the file stores its numbers; nothing is copied where that can be helped."""
        return self._of(self.source.read())

    def _of(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.expert is not None:
            tensor = tensor[self.expert]
        if self.transposed and tensor.ndim == 2:
            tensor = tensor.T
        if self.rows is not None:
            tensor = self.rows(tensor)
        return tensor + 1 if self.plus_one else tensor


class Tail(NamedTuple):
    """A tensor of a block.

    Attributes:
        path: The name of its module within the block, in lower case: ``self_attn.q_proj``.
        matrix: The tensor.
    """

    path: str
    matrix: Matrix

    @property
    def last(self) -> str:
        """The last word of the path."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What the tests must know of an architecture.

    Attributes:
        d_value: Channels of a head's values; None: nobody knows how many heads there are.
        rms: Whether its norms leave the mean of the sequence's channels alone.
        norm_first: Whether blocks read from norms, not norms from blocks.
    """

    d_value: int | None
    rms: bool
    norm_first: bool


def setting(settings: Mapping[str, Any], *names: str) -> int | None:
    """The first of some whole numbers of a ``config.json`` that there is."""
    found = (settings.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)
