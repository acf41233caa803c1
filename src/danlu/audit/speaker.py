"""What can be asked by the tests by behaviour: a model on disk, or one behind an endpoint.

A speaker is known by its answers alone: to a beginning of a text, the text of the token that it takes to come next; or,
of a classifier, the name of the class; and, where it can tell, how many nats a text costs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.files import read_json
from danlu.model.base import Task
from danlu.model.classifier import NeuralClassifier
from danlu.model.decode import DecodeConfig
from danlu.model.families import NGRAM, Classifier, LanguageModel
from danlu.model.language import NeuralLanguageModel
from danlu.model.module import build_module
from danlu.model.predictor import Predictor, load_predictor
from danlu.model.pretrained.config import architecture_in, is_ours, read_config, read_stored
from danlu.model.pretrained.load import load_weights
from danlu.model.pretrained.tokenizers import read_signature, read_tokenizer

__all__ = ["NEXT_TOKEN", "LocalSpeaker", "Speaker", "SpeakerTask", "open_speaker"]

SpeakerTask = Literal["language-modelling", "text-classification"]

NEXT_TOKEN = DecodeConfig(max_new_tokens=1)
_AT_ONCE = 64
"""Prompts that are read at a time."""


class Speaker(Protocol):
    """Something that answers."""

    @property
    def name(self) -> str:
        """What it is called, for messages."""
        ...

    @property
    def task(self) -> SpeakerTask:
        """What it does."""
        ...

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The text of the most likely next token after each beginning of a text, or the class of each text."""
        ...

    def losses(self, texts: Sequence[str], labels: Sequence[str] | None = None) -> npt.NDArray[np.float64] | str:
        """float64 [n]: the nats that each text costs, or each text's label; or why it cannot tell.

        NaN: the text is longer than what it reads.
        """
        ...


@dataclass(frozen=True)
class LocalSpeaker:
    """A model on disk; it is read when it is asked, so that no two are held at a time.

    Attributes:
        name: See :class:`Speaker`.
        task: See :class:`Speaker`.
        read: Reads it; a :class:`danlu.model.predictor.Predictor` cleans texts as its training texts were.
        classes: Names of the classes, where it names classes.
    """

    name: str
    task: SpeakerTask
    read: Callable[[], Any]
    classes: tuple[str, ...] = ()

    def answers(self, questions: Sequence[str]) -> list[str]:
        """See :class:`Speaker`. Errors as of :func:`open_speaker`."""
        if self.task == "text-classification":
            classifier: Classifier = self.read()
            return [self.classes[number] for number in classifier.predict_proba(questions).argmax(1)]
        language: LanguageModel = self.read()
        found: list[str] = []
        for start in range(0, len(questions), _AT_ONCE):
            prompts = [_seen(language, each) for each in questions[start : start + _AT_ONCE]]
            found += language.write(prompts, NEXT_TOKEN)
        return found

    def losses(self, texts: Sequence[str], labels: Sequence[str] | None = None) -> npt.NDArray[np.float64] | str:
        """See :class:`Speaker`. Errors as of :func:`open_speaker`."""
        if self.task == "text-classification":
            if labels is None or not set(labels) <= set(self.classes):
                return "its classes are not those of the reference"
            number = {name: place for place, name in enumerate(self.classes)}
            found = self.read().predict_proba(texts)[np.arange(len(texts)), [number[label] for label in labels]]
            return np.asarray(-np.log(np.maximum(found.astype(np.float64), np.finfo(np.float32).tiny)))
        return np.asarray(self.read().nats(texts), np.float64)


def open_speaker(folder: Path) -> LocalSpeaker | str:
    """A model of ours, or a checkpoint in Hugging Face layout.

    Returns:
        It; or why it cannot be asked.

    Raises:
        CorruptError: A file is damaged.
    """
    if (folder / "model.json").is_file():
        facts = read_json(folder / "model.json")
        if facts.get("family") == NGRAM:
            return "an n-gram model draws what it writes"
        classes = tuple(facts.get("classes", ()))
        return _speaker_of(folder, str(facts.get("task")), lambda: load_predictor(Artifact(folder, {})), classes)
    if is_ours(folder):
        task = str(read_json(folder / "signature.json").get("task"))
        if task != "language-modelling":
            return f"a folder without model.json does not say how its model for {task} is asked"
        return _speaker_of(folder, task, lambda: NeuralLanguageModel.load(folder))
    try:
        return _open_theirs(folder)
    except UsageError as error:  # the tests of weights read more architectures than danlu can run
        return error.what


def _open_theirs(folder: Path) -> LocalSpeaker | str:
    """A checkpoint in Hugging Face layout."""
    stored = read_stored(folder)
    classes: tuple[str, ...] = ()
    task: Task = "language-modelling"
    if architecture_in(folder).family == "bert":
        if not any("SequenceClassification" in str(name) for name in stored.get("architectures") or []):
            return "it names hidden tokens, and answers nothing by itself"
        task, names = "text-classification", stored.get("id2label")
        if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
            return "its config.json does not name the classes (id2label)"
        classes = tuple(str(names[str(number)]) for number in range(len(names)))

    tokenizer, config = read_tokenizer(folder), read_config(folder, task)
    signature = read_signature(folder, tokenizer, task, len(classes))

    def read() -> NeuralClassifier | NeuralLanguageModel:
        module = build_module(config, signature)
        if missing := load_weights(module, folder).new:
            raise UsageError(f"the weights of {missing[0]} are not in this checkpoint", where=str(folder))
        return NeuralClassifier(module, tokenizer) if classes else NeuralLanguageModel(module, tokenizer)

    return _speaker_of(folder, task, read, classes)


def _speaker_of(folder: Path, task: str, read: Callable[[], Any], classes: tuple[str, ...] = ()) -> LocalSpeaker | str:
    if task not in ("language-modelling", "text-classification"):
        return f"models for {task} are not compared by their answers"
    return LocalSpeaker(folder.name, cast("SpeakerTask", task), read, classes)


def _seen(model: LanguageModel, prompt: str) -> str:
    """The end of a prompt that fits into what a model sees, with room for the token that begins a text."""
    answerer = model.answerer if isinstance(model, Predictor) else model
    max_len = answerer.config.max_len if isinstance(answerer, NeuralLanguageModel) else None
    while max_len is not None and len(prompt) > 1 and model.count_tokens([prompt])[0] >= max_len:
        prompt = prompt[1 + len(prompt) // 8 :]
    return prompt
