"""A score that says why there is none, and how a measure of two checkpoints becomes a function of two folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from danlu.audit.alignment import TOKENS
from danlu.audit.checkpoint import Checkpoint
from danlu.core.errors import UsageError

__all__ = ["Measure", "Score", "Scorer", "UndefinedError", "n_tokens", "of_folders", "read", "shared_ids"]


class UndefinedError(Exception):
    """A measure says nothing about this pair; the text says why."""


class Score(float):
    """How alike two models are, higher is more; NaN where the measure says nothing about them.

    Attributes:
        reason: Why it is NaN; empty where it is not.
    """

    reason: str

    def __new__(cls, value: float, reason: str = "") -> Score:
        """A number, and the reason if it is none."""
        made = super().__new__(cls, value)
        made.reason = reason
        return made


Measure = Callable[[Checkpoint, Checkpoint], float]
"""Compares a suspect with a reference; raises :class:`UndefinedError` where it cannot."""
Scorer = Callable[[Path, Path], Score]
"""Compares the model in a suspect's folder with that in a reference's."""


def of_folders(measure: Measure) -> Scorer:
    """A measure that opens the folders of the models itself; a model that danlu cannot read has no score either."""

    def scorer(suspect: Path, reference: Path) -> Score:
        try:
            with Checkpoint(suspect) as theirs, Checkpoint(reference) as ours:
                return Score(measure(theirs, ours))
        except (UndefinedError, UsageError) as error:
            return Score(float("nan"), str(error))

    scorer.__doc__ = measure.__doc__
    return scorer


def read(model: Checkpoint, name: str) -> torch.Tensor:
    """A parameter in float64.

    Raises:
        UndefinedError: The model has none of this name.
    """
    if name not in model:
        raise UndefinedError(f"{model.folder.name} has no {name}")
    return model.read(name).double()


def n_tokens(model: Checkpoint) -> int:
    """How many token vectors a model has.

    Raises:
        UndefinedError: It has none.
    """
    if TOKENS not in model:
        raise UndefinedError(f"{model.folder.name} has no {TOKENS}")
    return model.shape(TOKENS)[0]


def shared_ids(suspect: Checkpoint, reference: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids of the tokens that both know, by their strings; by their numbers where there are no two tokenizers.

    They come in the order of the reference's ids.

    Raises:
        UndefinedError: They share none, or nobody can tell.
    """
    sizes = [n_tokens(model) for model in (suspect, reference)]
    theirs, ours = suspect.tokens(), reference.tokens()
    if theirs is None or ours is None:
        if sizes[0] != sizes[1]:
            raise UndefinedError("vocabularies of two sizes, and not both have a tokenizer")
        return torch.arange(sizes[0]), torch.arange(sizes[1])
    both = [
        (theirs[token], number) for token, number in sorted(ours.items(), key=lambda item: item[1]) if token in theirs
    ]
    pairs = [(their_id, our_id) for their_id, our_id in both if their_id < sizes[0] and our_id < sizes[1]]
    if not pairs:
        raise UndefinedError("the vocabularies share no token")
    their_ids, our_ids = torch.tensor(pairs).T
    return their_ids, our_ids
