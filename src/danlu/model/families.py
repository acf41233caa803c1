"""What models there are: families of neural modules, and the simple models that they have to beat.

Another package adds a family through the entry-point group ``danlu.families``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from danlu.core.table import Table

if TYPE_CHECKING:
    from danlu.model.decode import DecodeConfig

__all__ = [
    "ENSEMBLE",
    "FAMILIES",
    "MEMORY",
    "NGRAM",
    "PIXELS",
    "TFIDF",
    "Answerer",
    "Classifier",
    "ImageClassifier",
    "LanguageModel",
    "Translator",
    "answerer_class",
]

TFIDF = "tfidf-lr"
ENSEMBLE = "ensemble"
NGRAM = "5-gram"
MEMORY = "translation-memory"
PIXELS = "pixels-lr"

FAMILIES = Table(
    "model family",
    "danlu.families",
    {
        "bert": "danlu.model.bert:Bert",
        "cnn": "danlu.model.cnn:Cnn",
        "gpt": "danlu.model.gpt:Gpt",
        "gru": "danlu.model.gru:Gru",
        "mlp": "danlu.model.mlp:Mlp",
        "transformer": "danlu.model.transformer:Transformer",
        "vit": "danlu.model.vit:Vit",
    },
)

_FITTED = Table(
    "model",
    "danlu.models",
    {
        TFIDF: "danlu.model.tfidf:TfidfLogisticRegression",
        ENSEMBLE: "danlu.model.ensemble:Ensemble",
        NGRAM: "danlu.model.ngram:NgramModel",
        MEMORY: "danlu.model.translation_memory:TranslationMemory",
        PIXELS: "danlu.model.pixels:PixelLogisticRegression",
    },
)

_NEURAL = Table(
    "task",
    "danlu.answerers",
    {
        "text-classification": "danlu.model.classifier:NeuralClassifier",
        "image-classification": "danlu.model.image_classifier:NeuralImageClassifier",
        "language-modelling": "danlu.model.language:NeuralLanguageModel",
        "translation": "danlu.model.translator:NeuralTranslator",
    },
)


class Answerer(Protocol):
    """Anything that was trained and answers raw records."""

    @property
    def n_parameters(self) -> int:
        """Numbers that were learnt."""
        ...

    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs into a folder."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; CorruptError where it is not that."""
        ...


class Classifier(Answerer, Protocol):
    """Gives every text a probability for every class."""

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        ...


class ImageClassifier(Answerer, Protocol):
    """Gives every picture a probability for every class."""

    def predict_proba(self, images_nCYX: np.ndarray) -> np.ndarray:
        """uint8 pictures to float32 ``[n, N]``; each row sums to 1."""
        ...


class LanguageModel(Answerer, Protocol):
    """Says how likely a text is."""

    def nats(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [n]: minus the log-likelihood of each text and its end."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: tokens of each text as the model cuts it, its end included."""
        ...

    def write(self, prompts: Sequence[str], config: DecodeConfig) -> list[str]:
        """What comes after each prompt."""
        ...


class Translator(Answerer, Protocol):
    """Says a text in another language."""

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text."""
        ...


def answerer_class(task: str, family: str) -> type[Answerer]:
    """The class that reads and asks the models of a family."""
    found: type[Answerer] = _FITTED[family] if family in _FITTED.names() else _NEURAL[task]
    return found
