"""The interchangeable units of a Transformer block, each as the vectors by which it reads and writes the sequence.

The hidden units of a feed-forward part may be put into any order without changing what it computes, if every matrix
that they belong to is; so may the channels of a head's values, and the heads. Training from a random start treats all
orders alike, which is what makes a test of the order exact (Zhu et al., 2025).

Vectors are brought to a form that does not depend on how the same function is written down: the gain of the norm before
a part is multiplied into the matrices that read from it, what a LayerNorm takes away is taken away from them, and every
vector has length 1, so that scaling a unit's input by c and its output by 1/c changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from danlu.model.base import FamilyConfig

__all__ = ["COMPONENTS", "Component", "Parameters", "Units", "n_strata", "read_lengths", "read_units"]

Component = Literal["feed-forward", "values"]
COMPONENTS: tuple[Component, ...] = ("feed-forward", "values")
"""``feed-forward``: hidden units. ``values``: the channels of each head's values."""


class Parameters(Protocol):
    """The parameters of a model, wherever they are.

    Attributes:
        config: The model's config.
        where: Where they are, for messages.
        n_blocks: Its Transformer blocks.
    """

    config: FamilyConfig

    @property
    def where(self) -> str:
        """See above."""
        ...

    @property
    def n_blocks(self) -> int:
        """See above."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def read(self, name: str) -> torch.Tensor:
        """A parameter in float32."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter."""
        ...

    def tokens(self) -> dict[str, int] | None:
        """Token -> id, if there is a tokenizer that says so."""
        ...


@dataclass(frozen=True)
class Units:
    """Units of one block.

    Attributes:
        vectors: ``[n_strata, n, n_vectors, D]``, each of length 1: units change places within a stratum only.
    """

    vectors: torch.Tensor

    def pick(self, rows: np.ndarray) -> Units:
        """Some units of every stratum."""
        return Units(self.vectors[:, torch.from_numpy(rows)])

    def part(self, start: int, end: int) -> Units:
        """Units of every stratum from one number to another."""
        return Units(self.vectors[:, start:end])

    def turned(self, rotation: torch.Tensor | None) -> Units:
        """In another model's basis; ``rotation`` is ``[D, other D]``."""
        return self if rotation is None else Units(F.normalize(self.vectors @ rotation, dim=-1))


def read_units(model: Parameters, component: Component, block: int) -> Units:
    """The units of a block.

    Raises:
        CorruptError: The block lacks a matrix.
    """
    return Units(F.normalize(_READERS[component](model, f"blocks.{block}."), dim=-1))


def read_lengths(model: Parameters, component: Component, block: int) -> torch.Tensor:
    """How long the vectors of units are before they are made 1: ``[n_strata, n, n_vectors]``.

    Raises:
        CorruptError: The block lacks a matrix.
    """
    lengths: torch.Tensor = _READERS[component](model, f"blocks.{block}.").norm(dim=-1)
    return lengths


def n_strata(model: Parameters, component: Component) -> int:
    """Strata of a block: heads that have values of their own, or 1."""
    config: Any = model.config
    return 1 if component == "feed-forward" else getattr(config, "n_kv_heads", None) or config.n_heads


def _feed_forward(model: Parameters, prefix: str) -> torch.Tensor:
    norm = _norm_before(model, prefix + "feedforward_norm")
    names = [f"{prefix}feedforward.{name}.weight" for name in ("gate", "up")]
    reads = [norm(model.read(name)) for name in names if name in model]
    writes = _written(model, model.read(f"{prefix}feedforward.down.weight"))
    return torch.stack([*reads, writes], dim=1)[None]


def _values(model: Parameters, prefix: str) -> torch.Tensor:
    norm = _norm_before(model, prefix + "attention_norm")
    heads = n_strata(model, "values")
    matrix = model.read(f"{prefix}attention.v.weight")
    d_model = matrix.shape[1]
    reads = norm(matrix).reshape(heads, -1, d_model)  # [heads, K, D]
    writes = _written(model, model.read(f"{prefix}attention.out.weight"))
    width = reads.shape[1]
    shared = writes.reshape(heads, -1, width, d_model).transpose(1, 2)  # [heads, K, query heads that share it, D]
    return torch.cat([reads[:, :, None], shared], dim=2)


_READERS: dict[Component, Callable[[Parameters, str], torch.Tensor]] = {
    "feed-forward": _feed_forward,
    "values": _values,
}


def _norm_before(model: Parameters, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes matrices that read from a norm read from the plain sequence; after a post-norm they do already."""
    config: Any = model.config
    if not getattr(config, "norm_first", True) or f"{name}.weight" not in model:
        return lambda matrix: matrix
    gain = model.read(f"{name}.weight")
    return lambda matrix: _centred(model, matrix * gain)


def _written(model: Parameters, matrix: torch.Tensor) -> torch.Tensor:
    """What every unit adds to the sequence, as far as a norm later sees it; ``[units, D]``."""
    return _centred(model, matrix.T)


def _centred(model: Parameters, rows: torch.Tensor) -> torch.Tensor:
    is_rms = getattr(model.config, "norm", "layer") == "rms"
    return rows if is_rms else rows - rows.mean(-1, keepdim=True)
