"""What can be chosen about an evaluation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from danlu.core.config import Config

__all__ = ["EvaluateConfig", "FewShotConfig"]


class FewShotConfig(Config):
    """Training again and again on a few examples of each class, to see how much examples buy."""

    shots: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """How many examples of each class, smallest first; none leaves this out."""
    repeats: int = Field(default=1, ge=1)
    """How many draws of examples for each number."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the few examples."""
    batch_tokens: int = Field(default=512, ge=1)
    """The most tokens in a batch."""


class EvaluateConfig(Config):
    """How models are evaluated and compared."""

    baselines: tuple[str, ...] = Field(default=(), min_length=1)
    """The models to beat, trained and evaluated on the same splits; the first is the one compared with. A recipe that
    names none has the simple model of its task."""

    few_shot: FewShotConfig = FewShotConfig()
    """How good the model and the first baseline are with a few examples of each class."""

    bootstrap: int = Field(default=2000, ge=100)
    """Resamples for each bootstrap interval."""

    permutations: int = Field(default=20_000, ge=1000)
    """Permutations for each permutation test: enough that a p-value near 0.01 is known to about 0.001."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """The confidence of every interval."""

    calibration_bins: int = Field(default=15, ge=2)
    """Bins, of equally many records, for the calibration error and its picture."""

    examples: int = Field(default=20, ge=0)
    """How many records to show of each kind: the most confident wrong, the slowest, where models disagree."""
