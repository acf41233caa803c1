"""A model's answers to a test split, written as they come: one way of asking a task."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.progress import Progress
from danlu.data.stage import iterate_split
from danlu.evaluate.language import LanguageWriter
from danlu.evaluate.predictions import PredictionWriter
from danlu.evaluate.translation import TranslationWriter
from danlu.model.predictor import Predictor

__all__ = ["predict_split"]

_ROWS = 1024
"""Records in memory at a time."""
_TIMED_TOGETHER = 64
"""Records of like length that are answered, and timed, together."""
_TIMED_ALONE = 200
"""Records that are answered one by one, for the latency that one user would see."""

_Rows = Sequence[dict[str, Any]]


class _Asking(ABC):
    """How records of a task are asked, and their answers written.

    Args:
        predictor: The model.
        path: The predictions file to make.
    """

    columns: ClassVar[Sequence[str]]
    writer: Any
    """A :class:`danlu.evaluate.predictions.RowWriter`."""

    @abstractmethod
    def __init__(self, predictor: Predictor, path: Path) -> None: ...

    @abstractmethod
    def ask(self, rows: _Rows) -> Any:
        """The answers to some records."""

    @abstractmethod
    def write(self, rows: _Rows, answers: Any, milliseconds_B: np.ndarray) -> None:
        """Put the answers into the file."""


class _Classifying(_Asking):
    columns = ("id", "text", "label")

    def __init__(self, predictor: Predictor, path: Path) -> None:
        self.predictor = predictor
        self.writer = PredictionWriter(path, predictor.classes)
        self.number = {name: index for index, name in enumerate(predictor.classes)}

    def ask(self, rows: _Rows) -> np.ndarray:
        return self.predictor.predict_proba([row["text"] for row in rows])

    def write(self, rows: _Rows, answers: np.ndarray, milliseconds_B: np.ndarray) -> None:
        if unknown := sorted({row["label"] for row in rows} - self.number.keys()):
            raise UsageError(
                f"the test split has a label that the model does not know: {unknown[0]!r}",
                where=f"record {next(row['id'] for row in rows if row['label'] == unknown[0])}",
                advice=f"the model's classes are {', '.join(self.predictor.classes)}",
            )
        label_B = np.array([self.number[row["label"]] for row in rows])
        n_chars_B = np.array([_length(row) for row in rows])
        self.writer.write([row["id"] for row in rows], label_B, answers, n_chars_B, milliseconds_B)


class _Seeing(_Classifying):
    columns = ("id", "image", "label")

    def ask(self, rows: _Rows) -> np.ndarray:
        assert self.predictor.image_size is not None
        pixels = [np.frombuffer(row["image"], np.uint8) for row in rows]
        return self.predictor.image_proba(np.stack(pixels).reshape(-1, *self.predictor.image_size))


class _Reading(_Asking):
    columns = ("id", "text")

    def __init__(self, predictor: Predictor, path: Path) -> None:
        self.predictor = predictor
        self.writer = LanguageWriter(path)

    def ask(self, rows: _Rows) -> np.ndarray:
        return self.predictor.nats([row["text"] for row in rows])

    def write(self, rows: _Rows, answers: np.ndarray, milliseconds_B: np.ndarray) -> None:
        texts = [row["text"] for row in rows]
        n_chars_B, n_tokens_B = np.array([len(text) for text in texts]), self.predictor.count_tokens(texts)
        self.writer.write([row["id"] for row in rows], answers, n_chars_B, n_tokens_B, milliseconds_B)


class _Translating(_Asking):
    columns = ("id", "text", "target")

    def __init__(self, predictor: Predictor, path: Path) -> None:
        self.predictor = predictor
        self.writer = TranslationWriter(path)

    def ask(self, rows: _Rows) -> list[str]:
        return self.predictor.translate([row["text"] for row in rows])

    def write(self, rows: _Rows, answers: list[str], milliseconds_B: np.ndarray) -> None:
        ids, sources, references = ([row[column] for row in rows] for column in self.columns)
        self.writer.write(ids, sources, references, answers, milliseconds_B)


_ASKING: dict[str, type[_Asking]] = {
    "text-classification": _Classifying,
    "image-classification": _Seeing,
    "language-modelling": _Reading,
    "translation": _Translating,
}


def predict_split(predictor: Predictor, dataset: Artifact, path: Path, progress: Progress) -> dict[str, float]:
    """Answer the test split, a few records at a time, into a predictions file.

    Args:
        predictor: The model.
        dataset: Whose test split.
        path: The parquet file to make.
        progress: Told how many records are done.

    Returns:
        Milliseconds from one record to its answer, asked alone: ``n``, ``p50``, ``p95``.
    """
    asking = _ASKING[predictor.task](predictor, path)
    n_done = 0
    with asking.writer:
        for batch in iterate_split(dataset, "test", asking.columns, _ROWS):
            rows = sorted(batch.to_pylist(), key=_length)
            for start in range(0, len(rows), _TIMED_TOGETHER):
                part = rows[start : start + _TIMED_TOGETHER]
                answers, milliseconds = _timed(asking, part)
                asking.write(part, answers, np.full(len(part), milliseconds / len(part)))
            n_done += len(rows)
            progress.update(n_done, None, "records")
    return _alone(asking, dataset)


def _alone(asking: _Asking, dataset: Artifact) -> dict[str, float]:
    """Milliseconds from record to answer, one record at a time."""
    rows = next(iterate_split(dataset, "test", asking.columns, _TIMED_ALONE)).to_pylist()
    _timed(asking, rows[:1])  # the first call sets things up
    taken = np.array([_timed(asking, [row])[1] for row in rows])
    return {"n": len(taken), "p50": float(np.median(taken)), "p95": float(np.quantile(taken, 0.95))}


def _length(row: dict[str, Any]) -> int:
    """Characters of a text; a picture has none."""
    return len(row.get("text", ""))


def _timed(asking: _Asking, rows: _Rows) -> tuple[Any, float]:
    """The answers, and the milliseconds they took."""
    started = time.perf_counter()
    answers = asking.ask(rows)
    return answers, (time.perf_counter() - started) * 1000
