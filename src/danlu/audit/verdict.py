"""From the tests to a verdict: only exact tests convict, and all that are made are counted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALPHA", "SMALLEST_P", "Calibrated", "Verdict", "decide", "holm"]

ALPHA = 1e-4
"""Chance that a suspect which has nothing to do with the reference is convicted, over all exact tests made.

A thousandth is not rare enough: of 190 pairs of independent models that were really trained it convicted one, as it may
(docs/log.md). A false accusation is the worst that an audit can do.
"""
SMALLEST_P = 1e-12
"""No p-value is said to be smaller: that two files were mixed up, say, is likelier than that."""

Verdict = Literal["PROVEN", "SHARED START", "STRONG", "CONTEXT ONLY", "NO EVIDENCE", "ABSTAIN"]
"""``PROVEN``: an exact test rejects independence. ``SHARED START``: it does, but the reference began from a seed that
anybody may have chosen, so that two models can have the same start and nothing else in common. ``STRONG``: a test that
is calibrated by unrelated models goes beyond all of them. ``CONTEXT ONLY``: nothing but a likeness that has no weight,
and no unrelated models are at hand that show it, too. ``NO EVIDENCE``: the tests were made and found nothing.
``ABSTAIN``: none could be made."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A test without an exact null: the suspect among models known to be unrelated.

    Attributes:
        value: The suspect's,
        controls: and those of the unrelated models.
        n_spreads: Standard deviations of the controls by which the suspect must be beyond the largest of them,
        lead: and by how much at the least: a few controls may be alike by chance.
    """

    value: float
    controls: tuple[float, ...]
    n_spreads: float = 5.0
    lead: float = 0.0

    @property
    def p(self) -> float:
        """Share of the models, the suspect among them, with a value as large."""
        return (1 + sum(each >= self.value for each in self.controls)) / (len(self.controls) + 1)

    @property
    def beyond(self) -> bool:
        """Whether it is beyond every control by far; never so with fewer than two of them."""
        if len(self.controls) < 2:
            return False
        spread = statistics.stdev(self.controls)
        return self.value > max(self.controls) + max(self.lead, self.n_spreads * spread)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number (Holm, 1979): no larger than alpha where the family's level is alpha."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - place)))
        corrected[name] = largest
    return corrected


def decide(
    exact: Mapping[str, float],
    calibrated: Mapping[str, Calibrated],
    alike: bool,
    alpha: float = ALPHA,
    public_seed: bool = False,
) -> tuple[Verdict, dict[str, float]]:
    """The verdict, and the corrected p-values of the exact tests.

    Args:
        exact: Test -> p-value.
        calibrated: Test -> the suspect among controls.
        alike: Whether context shows a likeness.
        alpha: The level of the family of exact tests.
        public_seed: Whether the reference's seed is one that others may have chosen as well.
    """
    corrected = holm(exact)
    if any(p <= alpha for p in corrected.values()):
        return ("SHARED START" if public_seed else "PROVEN"), corrected
    if not public_seed and any(each.beyond for each in calibrated.values()):
        return "STRONG", corrected
    if not exact.keys() - {"content"} and not calibrated:  # what is not the same to the last bit may still be kin
        return ("CONTEXT ONLY" if alike else "ABSTAIN"), corrected
    return ("CONTEXT ONLY" if alike else "NO EVIDENCE"), corrected
