"""A finished model, ready to answer raw records: what evaluation, explanation and serving hold.

A model's folder holds ``model.json`` (task, family, classes, how text is prepared) beside what the family itself
writes (config, weights, tokenizer or vocabulary); nothing else is needed to answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import read_json, write_json
from danlu.data.clean import CleanConfig, standard_texts
from danlu.data.images import standard_image
from danlu.model.decode import DecodeConfig
from danlu.model.families import Answerer, Classifier, ImageClassifier, LanguageModel, Translator, answerer_class
from danlu.model.pretrained.save import save_pretrained
from danlu.model.text import TextModel

__all__ = ["Predictor", "load_predictor"]


@dataclass(frozen=True)
class Predictor:
    """A model that takes raw records.

    Attributes:
        answerer: What answers.
        task: What it does.
        family: Its family, or the name of a simple model.
        clean: How the training texts were normalised and masked; the same is done to every text that is asked.
        classes: Names of the classes, in the order of the probabilities, where it names classes.
        image_size: Channels, height and width of the pictures that it takes, where it takes pictures.
    """

    answerer: Answerer
    task: str
    family: str
    clean: CleanConfig
    classes: Sequence[str] = ()
    image_size: tuple[int, int, int] | None = None

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        return cast("Classifier", self.answerer).predict_proba(standard_texts(texts, self.clean))

    def image_proba(self, images_nCYX: np.ndarray) -> np.ndarray:
        """uint8 pictures of the right size to float32 ``[n, N]``; each row sums to 1."""
        return cast("ImageClassifier", self.answerer).predict_proba(images_nCYX)

    def open_images(self, paths: Sequence[Path]) -> np.ndarray:
        """Picture files as the model takes them, uint8 ``[n, C, Y, X]``.

        Raises:
            DataError: A file is no picture, or of another size.
        """
        assert self.image_size is not None, "this model takes no pictures"
        return np.stack([standard_image(path, self.image_size, self.clean) for path in paths])

    def nats(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [n]: minus the log-likelihood of each text and its end."""
        return cast("LanguageModel", self.answerer).nats(standard_texts(texts, self.clean))

    def write(self, prompts: Sequence[str], config: DecodeConfig) -> list[str]:
        """What comes after each prompt, prepared as the training texts were."""
        return cast("LanguageModel", self.answerer).write(standard_texts(prompts, self.clean), config)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: what each text is read as, its end included."""
        return cast("LanguageModel", self.answerer).count_tokens(standard_texts(texts, self.clean))

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text."""
        return cast("Translator", self.answerer).translate(standard_texts(texts, self.clean))

    def save(self, folder: Path) -> None:
        """Write the whole model into a folder."""
        self.answerer.save(folder)
        facts: dict[str, Any] = {"task": self.task, "family": self.family, "classes": list(self.classes)}
        facts |= {} if self.image_size is None else {"image_size": list(self.image_size)}
        write_json(folder / "model.json", {**facts, "clean": self.clean.plain()})

    def export(self, folder: Path) -> None:
        """Write the network and its tokenizer as transformers does, whole or not at all.

        How raw text is cleaned before the model sees it (``clean``) has no place in such a folder.

        Raises:
            UsageError: The folder is there already, or transformers has no counterpart of the model.
        """
        if not isinstance(self.answerer, TextModel):
            what = f"a {self.family} for {self.task} has no counterpart in transformers"
            raise UsageError(what, advice="bert and gpt models can be exported")
        save_pretrained(self.answerer.module, self.answerer.tokenizer, folder, classes=self.classes)


def load_predictor(model: Artifact) -> Predictor:
    """Load a model artifact.

    Raises:
        CorruptError: A file of it is missing or not what was written.
    """
    facts = read_json(model.path / "model.json")
    try:
        answerer = answerer_class(facts["task"], facts["family"]).load(model.path)
        size = tuple(facts["image_size"]) if "image_size" in facts else None
        clean = CleanConfig(**facts["clean"])
        return Predictor(answerer, facts["task"], facts["family"], clean, facts["classes"], size)
    except (KeyError, TypeError, ValidationError) as error:
        raise CorruptError(f"not a model: {error}", where=str(model.path / "model.json")) from error
