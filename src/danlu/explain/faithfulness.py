"""Is it so? What happens to an answer when the parts that are said to have moved it are taken away.

A text is cut into at most ten stretches, and the model is asked about every text that is left when some of them are
taken away: at most 1,024. From these answers everything is exact, and nothing is drawn:

- **comprehensiveness**: stretches are taken away one by one, those first that are said to have moved the answer most;
  the mean fall of the label's probability (the area over the perturbation curve). It should be large.
- **sufficiency**: those first that are said to have moved it least, or against it. It should be small.
- **random**: the mean over all orders.

Each is put on a scale from 0, the least that any order of this text gives, to 1, the most: how far an answer can fall
at all differs between models, and scores on other scales cannot be compared (DeYoung et al., 2020; Edin et al., 2024).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.stats import t

from danlu.core.errors import DataError
from danlu.explain.attribution import Attribution, Span, explain
from danlu.model.predictor import Predictor

__all__ = ["Faithfulness", "measure_faithfulness"]

_STRETCHES = 10
_LEAST_RANGE = 1e-3
"""Of the mean fall between the worst and the best order: with less, no order says anything."""


@dataclass(frozen=True)
class Faithfulness:
    """How faithful explanations of some texts are.

    Attributes:
        comprehensiveness_B: From 0 to 1, one a text; and
        sufficiency_B: likewise; and
        random_B: what an order at random gives.
        n_left_out: Texts that are left out, for their answer is the same whatever is taken away.
    """

    comprehensiveness_B: np.ndarray
    sufficiency_B: np.ndarray
    random_B: np.ndarray
    n_left_out: int

    def plain(self, confidence: float = 0.95) -> dict[str, Any]:
        """As JSON: the means, and how much better than random they are, with Student's t interval over the texts.

        Raises:
            DataError: There are fewer than two texts.
        """
        n = len(self.random_B)
        if n < 2:
            raise DataError(f"{n} texts tell nothing of how faithful explanations are", advice="bring some more texts")
        gains = {
            "comprehensiveness": (self.comprehensiveness_B, self.comprehensiveness_B - self.random_B),
            "sufficiency": (self.sufficiency_B, self.random_B - self.sufficiency_B),
        }
        facts: dict[str, Any] = {"n": n, "n_left_out": self.n_left_out, "random": float(self.random_B.mean())}
        for name, (value_B, gain_B) in gains.items():
            gain = float(gain_B.mean())
            half = float(t.ppf((1 + confidence) / 2, n - 1) * gain_B.std(ddof=1)) / math.sqrt(n)
            facts[name] = {"value": float(value_B.mean()), "gain": gain, "low": gain - half, "high": gain + half}
        return facts


def measure_faithfulness(predictor: Predictor, texts: Sequence[str]) -> Faithfulness:
    """Explain texts and see whether it is so.

    Args:
        predictor: A classifier of texts.
        texts: Raw texts that it was not trained on.

    Raises:
        UsageError: The model is not one that can be explained.
    """
    scores = [_scores(predictor, explain(predictor, text)) for text in texts]
    kept = np.array([score for score in scores if score is not None], np.float64).reshape(-1, 3)
    return Faithfulness(kept[:, 0], kept[:, 1], kept[:, 2], len(scores) - len(kept))


def _scores(predictor: Predictor, found: Attribution) -> tuple[float, float, float] | None:
    """Comprehensiveness, sufficiency and random of one text, each from 0 to 1; None where all orders are alike."""
    stretches = _stretches(found.spans)
    if not (n := len(stretches)):
        return None
    fall_S = _falls(predictor, found, stretches)
    lowest, highest = _limits(fall_S, n)
    if highest - lowest < _LEAST_RANGE:
        return None
    weights = [sum(span.weight for span in stretch) for stretch in stretches]
    order = sorted(range(n), key=lambda number: -weights[number])
    taken_S = np.array([subset.bit_count() for subset in range(2**n)])
    at_random = float(np.mean([fall_S[taken_S == k].mean() for k in range(1, n + 1)]))
    values = (_area(fall_S, order), _area(fall_S, order[::-1]), at_random)
    comprehensiveness, sufficiency, random = ((value - lowest) / (highest - lowest) for value in values)
    return comprehensiveness, sufficiency, random


def _stretches(spans: Sequence[Span]) -> list[Sequence[Span]]:
    """Neighbouring spans put together, about as many in each."""
    n = min(_STRETCHES, len(spans))
    return [spans[len(spans) * number // n : len(spans) * (number + 1) // n] for number in range(n)]


def _falls(predictor: Predictor, found: Attribution, stretches: Sequence[Sequence[Span]]) -> np.ndarray:
    """How far the label's probability falls when stretches are taken away; bit k of the place stands for stretch k."""
    left = []
    for subset in range(2 ** len(stretches)):
        gone = [stretch for number, stretch in enumerate(stretches) if subset >> number & 1]
        text, done = "", 0
        for span in (span for stretch in gone for span in stretch):
            text, done = text + found.text[done : span.start], span.end
        left.append(text + found.text[done:])
    probability_S = predictor.predict_proba(left)[:, list(predictor.classes).index(found.label)].astype(np.float64)
    fall_S: np.ndarray = probability_S[0] - probability_S
    return fall_S


def _area(fall_S: np.ndarray, order: Sequence[int]) -> float:
    """The mean fall over the steps of an order."""
    return float(np.mean([fall_S[subset] for subset in accumulate(1 << number for number in order)]))


def _limits(fall_S: np.ndarray, n: int) -> tuple[float, float]:
    """The least and the most that any order gives: what a subset comes to by its best and its worst last step."""
    least_S, most_S = np.zeros(len(fall_S)), np.zeros(len(fall_S))
    for subset in range(1, len(fall_S)):
        before = [subset & ~(1 << number) for number in range(n) if subset >> number & 1]
        least_S[subset] = least_S[before].min() + fall_S[subset]
        most_S[subset] = most_S[before].max() + fall_S[subset]
    return float(least_S[-1]) / n, float(most_S[-1]) / n
