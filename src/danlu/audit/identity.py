"""The exact test of identity: a matrix of interchangeable units that is the same to the last bit in both models.

Training from a random start treats all orders of interchangeable units alike: the hidden units of a feed-forward part,
those of a recurrent layer, the channels of a convolution, the channels of a sequence to which nothing fixed is added.
If a suspect has nothing to do with the reference, each order of the n units of one of the reference's matrices is as
likely as the one it has, and only one of the n! orders is the one in which the suspect has them. Over all pairs of
matrices that were looked at,

    p <= pairs / n!

Units count by how many of them hold different numbers, whatever the order of those, so that it does not matter what
else changes places with them. What cannot convict: tables that are calculated and not drawn, matrices of a few numbers
over and over, and any tensor that it is not known what it is for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from danlu.audit.checkpoint import Checkpoint
from danlu.audit.content import Content, rounded
from danlu.audit.verdict import SMALLEST_P
from danlu.model.pretrained.architectures import ARCHITECTURES
from danlu.model.pretrained.config import is_ours, read_stored

__all__ = ["IdentityTest", "identity_test"]

_FEW_NUMBERS = 8
"""A matrix of fewer different sizes of numbers is a pattern, such as ones on a diagonal, and no trace of chance."""
_SORTED = 6.0
"""Standard deviations of a rank correlation of place and length beyond which units were put into an order."""

_AT_ONCE = 256
"""Units that are read together."""
_MIXED_BY = -7046029254386353131
"""An odd number of 64 bits: 2 ** 64 divided by the golden ratio (Knuth, 1973), less 2 ** 64."""

_Units = Callable[[torch.Tensor], torch.Tensor]
"""Takes the units of a matrix: ``[n, numbers]``."""


def _rows(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.flatten(1)


def _columns(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.T


def _gates(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.reshape(3, -1, matrix.shape[1]).transpose(0, 1).flatten(1)


_IN_BLOCKS: dict[str, _Units] = {
    r"(blocks|encoder|decoder)\.\d+\.feedforward\.((experts\.\d+|shared)\.)?(gate|up)\.weight": _rows,
    r"(blocks|encoder|decoder)\.\d+\.feedforward\.((experts\.\d+|shared)\.)?down\.weight": _columns,
}
_TOKENS: dict[str, _Units] = {r"embedding\.tokens\.weight": _columns}
_CONVOLUTIONS = r"stem\.0\.weight|stages\.\d+(\.\d+)*\.(0|first|second)\.weight"
_OF_FAMILY: dict[str, dict[str, _Units]] = {
    "bert": _IN_BLOCKS,
    "gpt": _IN_BLOCKS,
    "transformer": _IN_BLOCKS,
    "vit": _IN_BLOCKS,
    "gru": {r"gru\.weight_(ih|hh)_l\d+(_reverse)?": _gates},
    "mlp": {r"layers\.\d+\.0\.weight": _rows},
    "cnn": {_CONVOLUTIONS: _rows},
}
"""Parameters of known roles, and how their interchangeable units lie in them."""


@dataclass(frozen=True, kw_only=True)
class IdentityTest:
    """What came of a test.

    Attributes:
        p: The chance that a model which has nothing to do with the reference has one of its matrices, at the most; 1:
            it has none. Not told below :data:`danlu.audit.verdict.SMALLEST_P`.
        same: Parameters of the suspect that are the same to the last bit, of those that can convict,
        n_tested: of so many of the reference that can.
        n_units: Different units of the matrix that says most; 0: there is none.
    """

    p: float
    same: tuple[str, ...]
    n_tested: int
    n_units: int


def identity_test(suspect: Checkpoint, reference: Checkpoint, content: Content) -> IdentityTest | str:
    """Test whether a suspect has a matrix of the reference.

    Args:
        suspect: The model that may be derived.
        reference: The model that it may be derived from.
        content: What they share, as :func:`danlu.audit.content.compare_content` found.

    Returns:
        What came of it, or why it cannot be made.
    """
    roles = _roles(reference)
    units = {name: take for name in reference.names for role, take in roles.items() if re.fullmatch(role, name)}
    units = {name: take for name, take in units.items() if reference.is_sure(name)}
    if not units:
        return "the reference has no matrix of units that are known to be interchangeable"
    same, n_units = [], 0
    for theirs, ours in content.origins.items():
        if ours not in units:
            continue
        n_different = _n_different(units[ours](rounded(reference.read(ours), content.precision)))
        if n_different:
            same.append(theirs)
            n_units = max(n_units, n_different)
    pairs = len(units) * sum(1 for _ in suspect.names)
    logarithm = math.log(pairs) - math.lgamma(n_units + 1)
    return IdentityTest(
        p=max(SMALLEST_P, math.exp(min(0.0, logarithm))) if same else 1.0,
        same=tuple(same),
        n_tested=len(units),
        n_units=n_units,
    )


def _roles(reference: Checkpoint) -> dict[str, _Units]:
    """By what is known of the reference's make; nothing of one that is not known."""
    stored = read_stored(reference.folder)
    if not is_ours(reference.folder):
        known = stored.get("model_type") in ARCHITECTURES
        return _IN_BLOCKS | (_TOKENS if known else {})
    found = _OF_FAMILY.get(str(stored.get("family")), {})
    # Vectors made from texts, and positions that are calculated, tell channels apart before training begins.
    drawn = stored.get("embedding_from") == "random" and stored.get("positions") != "sinusoidal"
    return found | (_TOKENS if drawn and found else {})


def _n_different(units: torch.Tensor) -> int:
    """How many units differ in what numbers they hold; 0 where their order is none of chance."""
    n, lengths = len(units), units.norm(dim=1)
    if all(len(np.unique(units[:rows].abs().numpy())) < _FEW_NUMBERS for rows in (16, 4096)):
        return 0
    if len(np.unique(lengths.numpy())) < 2:
        return 0
    if abs(stats.spearmanr(np.arange(n), lengths.numpy())[0]) * math.sqrt(n - 1) > _SORTED:
        return 0
    return len(np.unique(torch.cat([_held(some) for some in torch.split(units, _AT_ONCE)]).numpy()))


def _held(units: torch.Tensor) -> torch.Tensor:
    """A number for what numbers each holds, whatever their order: int64 ``[n]``.

    Units that hold the same have the same one. Two that differ may by chance have the same one, too: then they count as
    one, and p is the larger.
    """
    bits = (units + 0.0).contiguous().view(torch.int32).long()  # no zero has a sign
    for shift in (33, 29, 32):
        bits = bits * _MIXED_BY
        bits = bits ^ (bits >> shift)
    return bits.sum(1)
