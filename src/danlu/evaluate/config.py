"""What can be chosen about an evaluation."""

from __future__ import annotations

from pydantic import Field

from danlu.core.config import Config

__all__ = ["EvaluateConfig"]


class EvaluateConfig(Config):
    """How models are evaluated and compared."""

    baselines: tuple[str, ...] = Field(default=("tfidf-lr",), min_length=1)
    """The models to beat, trained and evaluated on the same splits; the first is the one compared with."""

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
