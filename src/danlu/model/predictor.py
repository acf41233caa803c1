"""A finished model, ready to answer raw text: what evaluation, explanation and serving hold.

A model's folder holds ``model.json`` (task, family, classes, how text is prepared) beside what the family itself
writes (config, weights, tokenizer or vocabulary); nothing else is needed to answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json
from danlu.data.clean import CleanConfig, standard_texts
from danlu.model.families import Classifier, classifier_class

__all__ = ["Predictor", "load_predictor"]


class Predictor:
    """A classifier that takes raw text and knows the names of its classes.

    Args:
        classifier: What answers.
        family: Its family, ``tfidf-lr`` or ``ensemble``.
        classes: Names of the classes, in the order of the probabilities.
        clean: How the training texts were normalised and masked; the same is done to every text that is asked.
    """

    def __init__(self, classifier: Classifier, family: str, classes: list[str], clean: CleanConfig) -> None:
        self.classifier = classifier
        self.family = family
        self.classes = classes
        self.clean = clean

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        return self.classifier.predict_proba(standard_texts(texts, self.clean))

    def save(self, folder: Path) -> None:
        """Write the whole model into a folder."""
        self.classifier.save(folder)
        facts = {"task": "text-classification", "family": self.family, "classes": self.classes}
        write_json(folder / "model.json", {**facts, "clean": self.clean.plain()})


def load_predictor(model: Artifact) -> Predictor:
    """Load a model artifact.

    Raises:
        CorruptError: A file of it is missing or not what was written.
    """
    facts = read_json(model.path / "model.json")
    try:
        classifier = classifier_class(facts["family"]).load(model.path)
        return Predictor(classifier, facts["family"], facts["classes"], CleanConfig(**facts["clean"]))
    except (KeyError, TypeError, ValidationError) as error:
        raise CorruptError(f"not a model: {error}", where=str(model.path / "model.json")) from error
