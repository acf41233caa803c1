"""The exact test of the seed: does a model still show the random start that our record committed to?

Training keeps some of what it started from. The start of a run of ours follows from a key of 256 bits, to which the run
committed itself before its first step: to whoever does not have that key its numbers W are independent standard normal
ones. If a suspect has nothing to do with our run, then whatever its numbers B are and whatever was done to them,

    z = <W, B> / |B|

is a standard normal deviate, so that no other starts are needed to compare with, and p is exact however small it is.
B may be anything that was made without a look at these W. So it can first be looked for with other numbers of the same
start: by three of every four channels that a unit of the start reads, which unit of the suspect it has become; by the
vectors of the tokens, how the suspect's sequence was turned. The fourth channels are then tested; or of the tokens
themselves those by which nothing was found. A commitment that is older than the suspect also says who was first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

from danlu.audit.alignment import TOKENS, procrustes, shared_rows
from danlu.audit.units import Parameters, blocks_of, read_units
from danlu.audit.verdict import SMALLEST_P
from danlu.core.seeds import Seeds
from danlu.model.base import Model
from danlu.model.init import standard_rows

__all__ = ["SeedTest", "seed_test"]

_MOST_NUMBERS = 2**22
"""Numbers of a parameter that are looked at: those of its first rows."""
_MOST_BLOCKS = 4
"""Blocks of a start whose units are looked for,"""
_MOST_UNITS = 512
"""and units of each, the first ones."""
_TESTED = 4
"""One in so many channels is tested; by the others units are found. With fewer of those, faint traces are lost."""
_AT_ONCE = 2048
"""Units of the suspect that are read together."""
_READS = ("gate", "up")
"""Matrices by which a unit of a feed-forward part reads the sequence."""


Found = Literal["places", "units", "tokens"]
"""Where a start was looked for: see :class:`SeedTest`."""


@dataclass(frozen=True, kw_only=True)
class SeedTest:
    """What came of a test.

    Attributes:
        p: The chance that an unrelated model resembles the start as much, in the way that shows most, times the number
            of ways that were tried; exact, and not told below :data:`danlu.audit.verdict.SMALLEST_P`.
        z: Standard deviations by which it does.
        by: Where the start's numbers were looked for: at their own ``places``, or in the suspect's ``units``, wherever
            those stand, or in its ``tokens``, however they were turned.
        basis: In which basis: ``same``, or that of the ``tokens``.
        n_numbers: Numbers of the start that were tested.
        n_ways: Ways that were tried.
    """

    p: float
    z: float
    by: Found
    basis: Literal["same", "tokens"]
    n_numbers: int
    n_ways: int


@dataclass(frozen=True)
class _Way:
    """One way to look for the start."""

    z: float
    by: Found
    basis: Literal["same", "tokens"]
    n_numbers: int


def seed_test(
    suspect: Parameters, module: Model, seeds: Seeds, reference: Parameters, drawn_tokens: bool
) -> SeedTest | str:
    """Test whether a suspect shows the start of a run.

    Args:
        suspect: The model that may be derived.
        module: Has the names and shapes of the run's parameters; its weights do not count.
        seeds: The run's seeds, as opened from its commitment.
        reference: What the run made; only which token is which is asked of it.
        drawn_tokens: Whether the run's token vectors were drawn, not made from its texts.

    Returns:
        What came of it, or why it cannot be made.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters() if parameter.ndim > 1}
    if not drawn_tokens:
        shapes.pop(TOKENS, None)
    places = _by_places(suspect, shapes, seeds)
    ways = [] if places is None else [places]
    tokens = _tokens(suspect, shapes, seeds, reference)
    ways += [] if tokens is None else [_by_tokens(*tokens)]
    ways += _by_units(suspect, shapes, seeds, None if tokens is None else procrustes(tokens[0], tokens[1].float()))
    if not ways:
        return "the two have sequences of different width or other units, and no tokens by which to compare them"
    best = max(ways, key=lambda way: way.z)
    p = min(1.0, len(ways) * float(stats.norm.sf(best.z)))
    return SeedTest(
        p=max(SMALLEST_P, p),
        z=best.z,
        by=best.by,
        basis=best.basis,
        n_numbers=best.n_numbers,
        n_ways=len(ways),
    )


def _by_places(suspect: Parameters, shapes: Mapping[str, tuple[int, ...]], seeds: Seeds) -> _Way | None:
    """Every number of the start against the one at its own place; rows count alike, however long they are."""
    product = squared = 0.0
    n_numbers = 0
    for name, shape in shapes.items():
        if name not in suspect or suspect.shape(name) != shape:
            continue
        rows = torch.arange(min(shape[0], max(1, _MOST_NUMBERS // int(np.prod(shape[1:])))))
        theirs = F.normalize(suspect.read(name, rows=rows).flatten(1), dim=1).double()
        ours = torch.from_numpy(standard_rows(seeds, name, (len(theirs), *shape[1:]))).flatten(1)
        product += float((ours * theirs).sum())
        squared += float(theirs.square().sum())
        n_numbers += theirs.numel()
    return _Way(product / squared**0.5, "places", "same", n_numbers) if squared else None


def _tokens(
    suspect: Parameters, shapes: Mapping[str, tuple[int, ...]], seeds: Seeds, reference: Parameters
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The vectors of shared tokens: the suspect's, and those of the start; None: too few are shared."""
    shared = shared_rows(suspect, reference) if TOKENS in shapes else None
    if shared is None:
        return None
    width = shapes[TOKENS][1]
    kept = shared[1] < _MOST_NUMBERS // width
    theirs, ours = shared[0][kept], shared[1][kept]
    start = torch.from_numpy(standard_rows(seeds, TOKENS, (int(ours.max()) + 1, width)))
    return suspect.read(TOKENS, rows=theirs), start[ours]


def _by_tokens(theirs: torch.Tensor, start: torch.Tensor) -> _Way:
    """How the sequence was turned is found by every other token, and the rest are tested."""
    turned = theirs[1::2] @ procrustes(theirs[::2], start[::2].float())
    turned = F.normalize(turned, dim=1).double()
    return _Way(float((turned * start[1::2]).sum() / turned.norm()), "tokens", "tokens", turned.numel())


def _by_units(
    suspect: Parameters, shapes: Mapping[str, tuple[int, ...]], seeds: Seeds, rotation: torch.Tensor | None
) -> list[_Way]:
    """Units of the start against those of the suspect that they resemble, in every basis that there is."""
    blocks = [f"blocks.{block}.feedforward." for block in range(_MOST_BLOCKS)]
    names = [[name for read in _READS if (name := f"{block}{read}.weight") in shapes] for block in blocks]
    names = [of_block for of_block in names if of_block]
    if not names or not suspect.n_blocks or "blocks.0.feedforward.down.weight" not in suspect:
        return []
    n_units, width = shapes[names[0][0]]
    shape = (min(n_units, _MOST_UNITS), width)
    ours = torch.from_numpy(
        np.concatenate([np.stack([standard_rows(seeds, each, shape) for each in names_], 1) for names_ in names])
    )  # [units, reads, D]
    if read_units(suspect, "feed-forward", 0, torch.arange(1)).vectors.shape[2] - 1 != ours.shape[1]:
        return []
    their_width = suspect.shape("blocks.0.feedforward.down.weight")[0]
    found = [_matched(ours, suspect, None)] if their_width == width else []
    if rotation is not None:
        found.append(_matched(ours, suspect, rotation))
    return found


def _matched(ours: torch.Tensor, suspect: Parameters, rotation: torch.Tensor | None) -> _Way:
    """Every unit of the start against the one of the suspect that is most like it in the channels that are not tested.

    It counts for more the further that one is ahead of the next.

    Args:
        ours: float64 ``[units, reads, D]``; standard normal.
        suspect: The suspect, of whose units only some are in memory at a time.
        rotation: Brings it into the start's basis; None: it is in it.
    """
    tested = torch.arange(ours.shape[2]) % _TESTED == 0
    looked_for = ours[:, :, ~tested].flatten(1).float()
    ahead = torch.zeros(len(ours), 0)
    found = torch.zeros(len(ours), 0, int(tested.sum()) * ours.shape[1])
    for theirs in _read(suspect, ours.shape[1]):
        turned = theirs if rotation is None else theirs @ rotation
        among = F.normalize(turned[:, :, ~tested].flatten(1), dim=1)
        values, which = (looked_for @ among.T).topk(min(2, len(turned)), dim=1)
        ahead, order = torch.cat([ahead, values], dim=1).sort(dim=1, descending=True)
        found = torch.cat([found, turned[:, :, tested].flatten(1)[which]], dim=1)
        found = found.take_along_dim(order[:, :2, None], dim=1)
        ahead = ahead[:, :2]
    weights = (ahead[:, 0] - ahead[:, -1] + 1e-6).double()
    start, best = ours[:, :, tested].flatten(1), found[:, 0].double()
    product = (weights * (start * best).sum(1)).sum()
    squared = (weights.square() * best.square().sum(1)).sum()
    basis: Literal["same", "tokens"] = "same" if rotation is None else "tokens"
    return _Way(float(product / squared.sqrt()), "units", basis, start.numel())


def _read(suspect: Parameters, n_reads: int) -> Iterator[torch.Tensor]:
    """What the suspect's units read, ``[units, reads, D]``, some at a time."""
    for number, block in enumerate(blocks_of(suspect, "feed-forward")):
        for rows in torch.split(torch.arange(suspect.shape(block.down)[1]), _AT_ONCE):
            vectors = read_units(suspect, "feed-forward", number, rows).vectors[0]
            if vectors.shape[1] == n_reads + 1:  # the last vector is what a unit writes
                yield vectors[:, :-1]
