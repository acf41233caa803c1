"""The exact test of the seed: does a model still show the random start that our record committed to?

Training keeps some of what it started from. The start of a run of ours follows from its seed, to which the run
committed itself before its first step; so do the starts of seeds that were never used. If a suspect has nothing to do
with our run, its own seed is one like all others, and its start resembles the suspect no more than theirs do:

    p = (1 + #{s : phi(start(s), B) >= phi(start(own), B)}) / (n + 1)

is exact for any measure of resemblance, whatever was done to the suspect. Ours looks for each unit of a start the unit
of the suspect that reads most alike, so that no order matters: first in the suspect's own basis, and where that shows
nothing in the one in which its token vectors come nearest to those of the start; p is doubled for having looked twice.
A commitment that is older than the suspect also says who was first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch.nn import functional as F

from danlu.audit.alignment import TOKENS, procrustes, shared_rows
from danlu.audit.units import Parameters, read_units
from danlu.core.seeds import Seeds
from danlu.model.base import Model
from danlu.model.init import standard_rows

__all__ = ["N_SEEDS", "SeedTest", "seed_test"]

N_SEEDS = 4999
"""Seeds that were never used, to compare with."""
_MOST_BLOCKS = 2
"""Blocks of a start that are looked for,"""
_MOST_UNITS = 32
"""and units of each: the first ones, for the others need not be drawn then."""
_MOST_TOKENS = 2048
"""Shared tokens that a rotation rests on: those with the smallest numbers in the start."""
_PER_CHANNEL = 4
"""and so many a channel, where those are fewer."""
_AT_ONCE = 64
"""Starts that are looked at together."""
_CLEAR = 1e-3
"""The p from which on the second basis is not looked at."""


@dataclass(frozen=True, kw_only=True)
class SeedTest:
    """What came of a test.

    Attributes:
        p: Share of seeds, the run's own among them, whose start resembles the suspect as much, twice that; exact.
        z: Standard deviations of the unused seeds by which the own one is above their mean.
        resemblance: Mean cosine of a start's units and those of the suspect most like them: the own seed's,
        unused: and the mean over seeds that were never used.
        basis: In which basis: ``same``, or that of the ``tokens``.
        n_seeds: Unused seeds.
    """

    p: float
    z: float
    resemblance: float
    unused: float
    basis: str
    n_seeds: int


def seed_test(
    suspect: Parameters,
    module: Model,
    seeds: Seeds,
    reference: Parameters,
    drawn_tokens: bool,
    n_seeds: int = N_SEEDS,
) -> SeedTest | str:
    """Test whether a suspect shows the start of a run.

    Args:
        suspect: The model that may be derived.
        module: Has the names and shapes of the run's parameters; its weights do not count.
        seeds: The run's seeds, as opened from its commitment.
        reference: What the run made; only which token is which is asked of it.
        drawn_tokens: Whether the run's token vectors were drawn, not made from its texts.
        n_seeds: Seeds that were never used, to compare with.

    Returns:
        What came of it, or why it cannot be made.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    if "blocks.0.feedforward.up.weight" not in shapes or not suspect.n_blocks:
        return "there are no Transformer blocks in one of the two"
    measure = _Likeness(suspect, shapes, shared_rows(suspect, reference) if drawn_tokens else None)
    if not measure.bases:
        return "the two have sequences of different width or other units, and no tokens by which to compare them"
    best: SeedTest | None = None
    for basis in measure.bases:
        (value,) = measure([seeds], basis)
        unused = measure((Seeds.new(f"unused {number}") for number in range(n_seeds)), basis)
        p = (1 + int((unused >= value).sum())) / (n_seeds + 1)
        found = SeedTest(
            p=min(1.0, p * len(measure.bases)),
            z=float((value - unused.mean()) / unused.std()),
            resemblance=float(value),
            unused=float(unused.mean()),
            basis=basis,
            n_seeds=n_seeds,
        )
        best = found if best is None or found.p < best.p else best
        if best.p <= _CLEAR:
            break
    return best if best is not None else "no basis to compare in"


class _Likeness:
    """How much the start of a seed resembles the suspect, whose units are read once."""

    def __init__(
        self,
        suspect: Parameters,
        shapes: dict[str, tuple[int, ...]],
        shared: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> None:
        prefixes = [f"blocks.{block}.feedforward." for block in range(_MOST_BLOCKS)]
        names = [[f"{prefix}{name}.weight" for name in ("gate", "up")] for prefix in prefixes]
        self._names = [[name for name in of_block if name in shapes] for of_block in names]
        self._names = [of_block for of_block in self._names if of_block]
        n_units, self._width = shapes[self._names[0][0]]
        self._n_units = min(n_units, _MOST_UNITS)
        n_reads = len(self._names[0])
        units = [read_units(suspect, "feed-forward", block).vectors[0] for block in range(suspect.n_blocks)]
        self._theirs = [each[:, :-1] for each in units]  # the last vector is what a unit writes
        self._vectors = None
        if shared is not None:
            first = shared[1].argsort()[: min(_MOST_TOKENS, _PER_CHANNEL * self._width)]
            self._rows, self._n_rows = shared[1][first], int(shared[1][first].max()) + 1
            self._vectors = suspect.read(TOKENS)[shared[0][first]]
        fits = {each.shape[1] for each in self._theirs} == {n_reads}
        able = {"same": self._theirs[0].shape[2] == self._width, "tokens": self._vectors is not None}
        self.bases = [basis for basis, is_able in able.items() if is_able and fits]

    def __call__(self, seeds: Iterable[Seeds], basis: str) -> np.ndarray:
        """How much each start does: float64 ``[n]``."""
        return np.concatenate([self._of(some, basis) for some in _batched(seeds, _AT_ONCE)])

    def _of(self, seeds: Sequence[Seeds], basis: str) -> np.ndarray:
        ours = torch.stack([self._drawn(each, basis) for each in seeds])  # [n, blocks, units, reads * D]
        best = []
        for theirs in self._theirs:
            cosines = ours.flatten(0, 2) @ theirs.flatten(1).T
            best.append(cosines.amax(1).reshape(ours.shape[:3]).mean(2))
        likeness: np.ndarray = torch.stack(best).amax(0).mean(1).double().numpy()
        return likeness / len(self._names[0])

    def _drawn(self, seeds: Seeds, basis: str) -> torch.Tensor:
        """What the first units of a start read, in the suspect's basis."""
        shape = (self._n_units, self._width)
        rows = [[standard_rows(seeds, name, shape) for name in of_block] for of_block in self._names]
        drawn = F.normalize(torch.from_numpy(np.array(rows)).float().transpose(1, 2), dim=-1)
        if basis == "tokens" and self._vectors is not None:
            tokens = torch.from_numpy(standard_rows(seeds, TOKENS, (self._n_rows, self._width))).float()
            drawn = drawn @ procrustes(self._vectors, tokens[self._rows]).T
        return drawn.flatten(2)


def _batched(seeds: Iterable[Seeds], n: int) -> Iterator[list[Seeds]]:
    """Some at a time."""
    left = iter(seeds)
    while some := list(islice(left, n)):
        yield some
