"""How much of one model can be found in another, wherever it stands there."""

from __future__ import annotations

import numpy as np
import torch

from danlu.audit.alignment import from_tokens, shared_rows
from danlu.audit.units import COMPONENTS, Component, DrawnUnits, Parameters, Units

__all__ = ["Resemblance"]

_MOST_BLOCKS = 3
"""Blocks that are looked for."""
_MOST_UNITS = 128
"""Units of each that are."""
_MOST_SEARCHED = 2**16
"""Units of a suspect's block that are searched; of a large model as many as memory should hold."""


class Resemblance:
    """The mean over a model's units of the cosine to the unit of the suspect that is most like it.

    Every unit may have any place in the suspect, so that no order matters; and the suspect is taken as it is as well as
    in the basis in which its token vectors come nearest to the model's: whichever gives more.

    Args:
        suspect: Whose units are searched; they are read once.
        like: A model with the sizes and the tokenizer of those that will be looked for.

    Attributes:
        bases: In which bases it can be taken; none: it cannot be compared.
    """

    def __init__(self, suspect: Parameters, like: Parameters) -> None:
        self._suspect = suspect
        drawn, searched = DrawnUnits(like, _MOST_UNITS), DrawnUnits(suspect, _MOST_SEARCHED)
        self._units: dict[Component, list[Units]] = {}
        widths = set()
        for component in COMPONENTS:
            if drawn.blocks(component) and searched.blocks(component):
                theirs, ours = searched.units(component), drawn.units(component)
                if theirs[0].vectors.shape[2] == ours[0].vectors.shape[2]:
                    self._units[component] = [_flat(units) for units in theirs]
                    widths |= {theirs[0].vectors.shape[-1], ours[0].vectors.shape[-1]}
        self.bases = ["same"] if len(widths) == 1 else []
        self.bases += ["tokens"] if widths and shared_rows(suspect, like) is not None else []

    def __call__(self, model: Parameters) -> float:
        """From about 0 to 1; unrelated models come out well above 0, for there are many units to choose from."""
        drawn = DrawnUnits(model, _MOST_UNITS)
        found = {
            component: [_flat(units) for units in drawn.units(component)[:_MOST_BLOCKS]] for component in self._units
        }
        rotation = from_tokens(self._suspect, model) if "tokens" in self.bases else None
        return max(self._mean(found, None if basis == "same" else rotation) for basis in self.bases)

    def _mean(self, model: dict[Component, list[Units]], rotation: torch.Tensor | None) -> float:
        best = []
        for component, blocks in model.items():
            turned = (units.turned(rotation) for units in self._units[component])  # one block at a time
            best.append(np.array([[_likeness(ours, theirs) for ours in blocks] for theirs in turned]).max(0))
        return float(np.mean(np.concatenate(best)))


def _flat(units: Units) -> Units:
    """All strata as one: heads, too, may have changed places."""
    return Units(units.vectors.flatten(0, 1)[None])


def _likeness(ours: Units, theirs: Units) -> float:
    """The mean over units of the cosine to the one most like it."""
    n_vectors = ours.vectors.shape[2]
    return float((ours.vectors[0].flatten(1) @ theirs.vectors[0].flatten(1).T).amax(1).mean()) / n_vectors
