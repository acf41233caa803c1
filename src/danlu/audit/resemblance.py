"""How much of one model can be found in another, wherever it stands there."""

from __future__ import annotations

import numpy as np
import torch

from danlu.audit.alignment import TOKENS, procrustes, shared_rows
from danlu.audit.units import COMPONENTS, Component, Parameters, Units, read_units

__all__ = ["Resemblance"]

_MOST_BLOCKS = 3
"""Blocks that are looked for."""
_MOST_UNITS = 128
"""Units of each that are."""


class Resemblance:
    """The mean over a model's units of the cosine to the unit of the suspect that is most like it.

    Every unit may have any place in the suspect, so that no order matters; and the suspect is taken as it is as well as
    in the basis in which its token vectors come nearest to the model's: whichever gives more.

    Args:
        suspect: Whose units are searched; they are read once.
        like: A model with the sizes and the tokenizer of those that will be looked for.
        by_tokens: Whether token vectors are worth comparing.

    Attributes:
        bases: In which bases it can be taken.
    """

    def __init__(self, suspect: Parameters, like: Parameters, by_tokens: bool = True) -> None:
        self._units = {
            component: [_flat(read_units(suspect, component, block)) for block in range(suspect.n_blocks)]
            for component in COMPONENTS
        }
        self._rows = shared_rows(suspect, like) if by_tokens else None
        self._vectors = None if self._rows is None else suspect.read(TOKENS)[self._rows[0]]
        width = self._units["feed-forward"][0].vectors.shape[-1]
        our_width = like.read("blocks.0.attention.v.weight").shape[1]
        self.bases = [name for name, able in (("same", width == our_width), ("tokens", self._rows is not None)) if able]

    def __call__(self, model: Parameters) -> float:
        """From about 0 to 1; unrelated models come out well above 0, for there are many units to choose from."""
        rotation = None
        if self._rows is not None and self._vectors is not None:
            rotation = procrustes(self._vectors, model.read(TOKENS)[self._rows[1]])
        blocks = range(min(model.n_blocks, _MOST_BLOCKS))
        found = {
            component: [_flat(read_units(model, component, block)) for block in blocks] for component in COMPONENTS
        }
        return max(self._mean(found, None if basis == "same" else rotation) for basis in self.bases)

    def _mean(self, model: dict[Component, list[Units]], rotation: torch.Tensor | None) -> float:
        best = []
        for component, blocks in model.items():
            theirs = [units.turned(rotation) for units in self._units[component]]
            if theirs[0].vectors.shape[2] == blocks[0].vectors.shape[2]:
                best += [max(_likeness(ours.part(0, _MOST_UNITS), other) for other in theirs) for ours in blocks]
        return float(np.mean(best))


def _flat(units: Units) -> Units:
    """All strata as one: heads, too, may have changed places."""
    return Units(units.vectors.flatten(0, 1)[None])


def _likeness(ours: Units, theirs: Units) -> float:
    """The mean over units of the cosine to the one most like it."""
    n_vectors = ours.vectors.shape[2]
    return float((ours.vectors[0].flatten(1) @ theirs.vectors[0].flatten(1).T).amax(1).mean()) / n_vectors
