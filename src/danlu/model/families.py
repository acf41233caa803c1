"""What models there are: families of neural modules, and the classifiers that are no module of ours.

Another package adds a family through the entry-point group ``danlu.families``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from danlu.core.table import Table

__all__ = ["ENSEMBLE", "FAMILIES", "TFIDF", "Classifier", "classifier_class"]

TFIDF = "tfidf-lr"
ENSEMBLE = "ensemble"

FAMILIES = Table(
    "model family",
    "danlu.families",
    {
        "bert": "danlu.model.bert:Bert",
        "gru": "danlu.model.gru:Gru",
    },
)

_CLASSIFIERS = Table(
    "kind of classifier",
    "danlu.classifiers",
    {
        TFIDF: "danlu.model.tfidf:TfidfLogisticRegression",
        ENSEMBLE: "danlu.model.ensemble:Ensemble",
        "neural": "danlu.model.classifier:NeuralClassifier",
    },
)


class Classifier(Protocol):
    """Anything that gives every text a probability for every class."""

    @property
    def n_parameters(self) -> int:
        """Numbers that were learnt."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        ...

    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs into a folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; CorruptError where it is not that."""
        ...


def classifier_class(family: str) -> type[Classifier]:
    """The class that reads and asks the models of a family."""
    found: type[Classifier] = _CLASSIFIERS[family if family in (TFIDF, ENSEMBLE) else "neural"]
    return found
