"""The interchangeable units of a Transformer block, each as the vectors by which it reads and writes the sequence.

The hidden units of a feed-forward part may be put into any order without changing what it computes, if every matrix
that they belong to is; so may the channels of a head's values, and the heads. Training from a random start treats all
orders alike, which is what makes a test of the order exact (Zhu et al., 2025). Where a block has experts, each of them
is a feed-forward part of its own.

Vectors are brought to a form that does not depend on how the same function is written down: the gain of the norm before
a part is multiplied into the matrices that read from it, what a LayerNorm takes away is taken away from them, and every
vector has length 1, so that scaling a unit's input by c and its output by 1/c changes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from danlu.audit.parts import Traits
from danlu.core.errors import CorruptError

__all__ = [
    "COMPONENTS",
    "Block",
    "Component",
    "DrawnUnits",
    "Parameters",
    "Units",
    "blocks_of",
    "drawn_units",
    "read_units",
]

Component = Literal["feed-forward", "values"]
COMPONENTS: tuple[Component, ...] = ("feed-forward", "values")
"""``feed-forward``: hidden units. ``values``: the channels of each head's values."""

_FEED_FORWARD = re.compile(r"blocks\.(\d+)\.feedforward\.((?:experts\.\d+\.|shared\.)?)down\.weight")
_VALUES = re.compile(r"blocks\.(\d+)\.attention\.()v\.weight")
_MOST_UNITS = 512
"""Units of a block that are looked at, drawn at random where there are more;"""
_FEWEST_UNITS = 24
"""fewer where there are many blocks, but so many at the least."""
_MOST_NUMBERS = 2**28
"""Numbers of a model that are kept: 1 GB."""
_MOST_BLOCKS = 512
"""Blocks that are looked at; of more, the first experts of every layer."""
_SORTED = 6.0
"""Standard deviations of a rank correlation of place and length beyond which units were put into an order."""
_SEED = 0


class Parameters(Protocol):
    """The parameters of a model, wherever they are.

    Attributes:
        traits: What the tests must know of its architecture.
        where: Where they are, for messages.
        n_blocks: Its Transformer blocks.
        names: Its parameters.
    """

    traits: Traits

    @property
    def where(self) -> str:
        """See above."""
        ...

    @property
    def n_blocks(self) -> int:
        """See above."""
        ...

    @property
    def names(self) -> Iterable[str]:
        """See above."""
        ...

    def __contains__(self, name: str) -> bool: ...

    def __hash__(self) -> int: ...

    def read(self, name: str, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> torch.Tensor:
        """A parameter in float32, or some of its rows and columns."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter."""
        ...

    def is_sure(self, name: str) -> bool:
        """Whether a parameter was found by its name, not by its shape alone."""
        ...

    def tokens(self) -> dict[str, int] | None:
        """Token -> id, if there is a tokenizer that says so."""
        ...


class Block(NamedTuple):
    """A set of interchangeable units.

    Attributes:
        layer: The Transformer block that it is in.
        owner: ``experts.7.``, ``shared.`` or, where a block has no experts, nothing.
    """

    layer: int
    owner: str = ""

    def __str__(self) -> str:
        """As in ``3``, ``3 expert 7`` or ``3 shared``."""
        return f"{self.layer} {self.owner.replace('experts', 'expert').replace('.', ' ')}".strip()

    @property
    def down(self) -> str:
        """The parameter by which a feed-forward part writes."""
        return f"blocks.{self.layer}.feedforward.{self.owner}down.weight"


@dataclass(frozen=True)
class Units:
    """Units of one block.

    Attributes:
        vectors: ``[n_strata, n, n_vectors, D]``, each of length 1: units change places within a stratum only.
        places: int64 [n]; where they stand in the block; None: in the order that they have here.
        whole: Strata and units of each that the block has; None: there are no others.
    """

    vectors: torch.Tensor
    places: torch.Tensor | None = None
    whole: tuple[int, int] | None = None

    @property
    def at(self) -> torch.Tensor:
        """Places: int64 [n]."""
        return torch.arange(self.vectors.shape[1]) if self.places is None else self.places

    @property
    def of(self) -> tuple[int, int]:
        """Strata and units of each that the block has."""
        return (self.vectors.shape[0], self.vectors.shape[1]) if self.whole is None else self.whole

    def pick(self, rows: np.ndarray) -> Units:
        """Some units of every stratum."""
        chosen = torch.from_numpy(rows)
        return Units(self.vectors[:, chosen], self.at[chosen], self.of)

    def part(self, start: int, end: int) -> Units:
        """Units of every stratum from one number to another."""
        return Units(self.vectors[:, start:end], self.at[start:end], self.of)

    def first(self, n_vectors: int) -> Units:
        """The first vectors of every unit alone."""
        return Units(self.vectors[:, :, :n_vectors], self.places, self.whole)

    def turned(self, rotation: torch.Tensor | None) -> Units:
        """In another model's basis; ``rotation`` is ``[D, other D]``."""
        if rotation is None:
            return self
        return Units(F.normalize(self.vectors @ rotation, dim=-1), self.places, self.whole)


class DrawnUnits:
    """The units of a model that are looked at, drawn without a look at them; every matrix is read once.

    Of two blocks with as many units the same ones are drawn, in the same order.

    Args:
        model: The model.
        most_units: Units of a block that are looked at.
    """

    def __init__(self, model: Parameters, most_units: int = _MOST_UNITS) -> None:
        self.model = model
        self._most = most_units
        self._read: dict[Component, tuple[list[Units], bool]] = {}

    def blocks(self, component: Component) -> list[Block]:
        """The blocks that are looked at."""
        return blocks_of(self.model, component)

    def units(self, component: Component) -> list[Units]:
        """Those of every block.

        Raises:
            CorruptError: A block lacks a matrix.
        """
        return self._of(component)[0]

    def is_sorted(self, component: Component) -> bool:
        """Whether units of a block stand in the order of the length of some vector, as tools that prune leave them."""
        return self._of(component)[1]

    def is_sure(self, component: Component) -> bool:
        """Whether all of their matrices were found by name, not by shape alone."""
        return all(
            self.model.is_sure(name)
            for block in self.blocks(component)
            for name in _matrices(self.model, component, block)
        )

    def _of(self, component: Component) -> tuple[list[Units], bool]:
        if component not in self._read:
            units, in_order = [], False
            for block in self.blocks(component):
                strata, rows = self._drawn(component, block)
                vectors = _READERS[component](self.model, block, strata, rows)
                in_order = in_order or _in_order(vectors.norm(dim=-1), rows)
                units.append(Units(F.normalize(vectors, dim=-1), rows, _sizes(self.model, component, block)))
            self._read[component] = (units, in_order)
        return self._read[component]

    def _drawn(self, component: Component, block: Block) -> tuple[torch.Tensor, torch.Tensor]:
        """Which strata and which units of each."""
        (heads, n), names = _sizes(self.model, component, block), _matrices(self.model, component, block)
        numbers = len(names) * self.model.shape(names[0])[1] * len(self.blocks(component))
        most = min(self._most, max(_FEWEST_UNITS, _MOST_NUMBERS // numbers))
        strata = drawn_units(heads)[: max(1, most // n)]
        return torch.from_numpy(np.sort(strata)), torch.from_numpy(drawn_units(n)[:most])


def drawn_units(n: int) -> np.ndarray:
    """All numbers below n, in the order in which units are drawn: the same for every model."""
    return np.random.default_rng(_SEED).permutation(n)


def blocks_of(model: Parameters, component: Component) -> list[Block]:
    """The blocks of a model that have units of a kind, by layer; of very many, the first experts of every layer."""
    pattern = _FEED_FORWARD if component == "feed-forward" else _VALUES
    found = [Block(int(match[1]), match[2]) for name in model.names if (match := pattern.fullmatch(name))]
    if component == "values" and model.traits.d_value is None:
        return []
    found.sort(key=lambda block: (block.layer, len(block.owner), block.owner))
    most = max(1, _MOST_BLOCKS // max(1, len({block.layer for block in found})))
    by_layer = groupby(found, key=lambda block: block.layer)
    return [block for _, of_layer in by_layer for block in islice(of_layer, most)]


def read_units(model: Parameters, component: Component, block: int, rows: torch.Tensor | None = None) -> Units:
    """The units of a block.

    Args:
        model: The model.
        component: Which units.
        block: Its number in :func:`blocks_of`.
        rows: The numbers of the units to read in every stratum; None: all of them.

    Raises:
        CorruptError: There is no such block, or it lacks a matrix.
    """
    blocks = blocks_of(model, component)
    if block >= len(blocks):
        raise CorruptError(f"there is no block {block} with a part of kind {component}", where=model.where)
    whole = _sizes(model, component, blocks[block])
    at = torch.arange(whole[1]) if rows is None else rows
    vectors = _READERS[component](model, blocks[block], torch.arange(whole[0]), at)
    return Units(F.normalize(vectors, dim=-1), at, whole)


def _sizes(model: Parameters, component: Component, block: Block) -> tuple[int, int]:
    """Strata of a block, and units of each."""
    if component == "feed-forward":
        return 1, model.shape(block.down)[1]
    n, width = model.shape(f"blocks.{block.layer}.attention.v.weight")[0], model.traits.d_value or 1
    if n % width:
        raise CorruptError(f"{n} channels of values are no heads of {width}", where=model.where)
    return n // width, width


def _matrices(model: Parameters, component: Component, block: Block) -> list[str]:
    """The matrices whose rows or columns are the units of a block, first those that read."""
    prefix = f"blocks.{block.layer}."
    if component == "values":
        return [f"{prefix}attention.{name}.weight" for name in ("v", "out")]
    names = [f"{prefix}feedforward.{block.owner}{name}.weight" for name in ("gate", "up", "down")]
    return [name for name in names if name in model]


def _feed_forward(model: Parameters, block: Block, _: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    norm = _norm_before(model, f"blocks.{block.layer}.feedforward_norm")
    *reading, writing = _matrices(model, "feed-forward", block)
    reads = [norm(model.read(name, rows=rows)) for name in reading]
    return torch.stack([*reads, _written(model, model.read(writing, columns=rows))], dim=1)[None]


def _values(model: Parameters, block: Block, strata: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    reading, writing = _matrices(model, "values", block)
    (heads, width), d_model = _sizes(model, "values", block), model.shape(reading)[1]
    norm = _norm_before(model, f"blocks.{block.layer}.attention_norm")
    numbers = (strata[:, None] * width + rows).flatten()
    reads = norm(model.read(reading, rows=numbers)).reshape(len(strata), len(rows), 1, d_model)
    shared = model.shape(writing)[1] // (heads * width)  # query heads that share a head of values
    columns = ((strata[:, None, None] * shared + torch.arange(shared)) * width + rows[:, None]).flatten()
    writes = _written(model, model.read(writing, columns=columns))
    return torch.cat([reads, writes.reshape(len(strata), len(rows), shared, d_model)], dim=2)


_READERS: dict[Component, Callable[[Parameters, Block, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "feed-forward": _feed_forward,
    "values": _values,
}


def _in_order(lengths: torch.Tensor, places: torch.Tensor) -> bool:
    """Whether a vector's length grows or shrinks with the place: ``lengths`` is ``[n_strata, n, n_vectors]``."""
    n = lengths.shape[1]
    ranks = lengths.argsort(dim=1).argsort(dim=1).double()
    at = places.argsort().argsort().double()
    spread = (n * n - 1) / 12
    correlation = ((ranks - ranks.mean(1, keepdim=True)) * (at - at.mean())[:, None]).mean(1) / max(spread, 1e-30)
    return bool((correlation.abs() * math.sqrt(max(n - 1, 0)) > _SORTED).any())


def _norm_before(model: Parameters, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes matrices that read from a norm read from the plain sequence; after a post-norm they do already."""
    if not model.traits.norm_first or f"{name}.weight" not in model:
        return lambda matrix: matrix
    gain = model.read(f"{name}.weight")
    return lambda matrix: _centred(model, matrix * gain)


def _written(model: Parameters, matrix: torch.Tensor) -> torch.Tensor:
    """What every unit adds to the sequence, as far as a norm later sees it; ``[units, D]``."""
    return _centred(model, matrix.T)


def _centred(model: Parameters, rows: torch.Tensor) -> torch.Tensor:
    return rows if model.traits.rms else rows - rows.mean(-1, keepdim=True)
