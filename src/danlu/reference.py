"""What is known of a model before it is asked anything: its own answers to records that were held out of its training.

These are the test split of its data and, where the data hold what was learnt from feedback, the gold set that was held
out of that. Computed once a model, and kept as an artifact of kind ``reference``:

    reference.json         task, classes, the characters that are counted, n
    columns.safetensors    a number a record and signal, counts of characters, vectors, and whether the answer was right

Records lie in the order in which they are dealt: the first third is the base of every watch, whatever its windows. A
model that learnt from feedback is not watched against them, as its traffic is a mixture that nobody has held out: only
how often it is right at which confidence is taken from here (``docs/decisions/0019``).
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.core.files import digest_of, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.clean import standard_texts
from danlu.data.stage import image_size, read_images, read_split, require_split
from danlu.data.tokenizer import encode
from danlu.model.classifier import NeuralClassifier
from danlu.model.ensemble import Ensemble
from danlu.model.image_classifier import NeuralImageClassifier
from danlu.model.predictor import Predictor
from danlu.model.text import TextModel
from danlu.model.vectors import with_vectors
from danlu.monitor.columns import Columns, count_characters, frequent_characters
from danlu.monitor.drift import one_hot
from danlu.monitor.records import Record

__all__ = ["Reader", "Reference", "reference_of"]

VERSION = 1
"""Of what is computed: another version is another reference."""
MOST = 20_000
"""Test records that are looked at, at most; enough for a hundred windows of 130."""
DIGITS = 6
"""Served probabilities are rounded to so many: the reference's have to be, too."""
_AT_ONCE = 1024
_GOLD = "gold"
"""The parent of a dataset with feedback in it: what was held out of that, or a file of labelled records."""
_UNKNOWN = re.compile(r"<unk>|\[UNK\]|<0x[0-9A-Fa-f]{2}>")
"""Tokens that stand for what the vocabulary lacks; a byte of a character is one."""


class Reader:
    """Turns records into columns, in the way of one model.

    Args:
        predictor: The model.

    Raises:
        UsageError: Models of its task are not watched.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._places = {name: number for number, name in enumerate(predictor.classes)}
        if predictor.task == "masked-language-modelling":
            what = "a model that guesses hidden tokens answers nobody, and is not watched"
            raise UsageError(what, advice="fine-tune it for a task, and watch that model")
        self._inside = _inside(predictor)
        self._unknown = None if self._inside is None else _unknown_tokens(self._inside)

    @property
    def task(self) -> str:
        """What the model does."""
        return self._predictor.task

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, where there are some."""
        return self._predictor.classes

    @property
    def written_signals(self) -> tuple[str, ...]:
        """What can be known of requests to a model that writes."""
        unknown = () if self._unknown is None else ("unknown",)
        return ("length", *unknown, "written", "logprob", "characters")

    @property
    def is_writer(self) -> bool:
        """Whether the model goes on with texts: its test texts are no prompts."""
        return self._predictor.task == "language-modelling"

    def counted(self, records: Sequence[Record]) -> str:
        """The characters of records that are counted one by one; none of pictures."""
        is_text = self._predictor.task != "image-classification"
        return frequent_characters(self.texts(records)) if is_text else ""

    def texts(self, records: Sequence[Record]) -> list[str]:
        """The texts of records, as the model sees them."""
        return standard_texts([record.input for record in records], self._predictor.clean)

    def pictures(self, records: Sequence[Record]) -> NDArray[np.uint8]:
        """The pictures of records, as the model sees them."""
        found = []
        for record in records:
            with tempfile.NamedTemporaryFile() as file:
                file.write(base64.b64decode(record.input))
                file.flush()
                found.append(self._predictor.open_images([Path(file.name)])[0])
        return np.stack(found)

    def columns(self, records: Sequence[Record], characters: str) -> Columns:
        """The columns of live records.

        Args:
            records: One or more; every one answered as the task has it.
            characters: What is counted one by one.

        Raises:
            DataError: A record is not one of this model's.
        """
        if self._predictor.task == "image-classification":
            _, found = self.seen(self.pictures(records))
        else:
            _, found = self.read(self.texts(records), characters)
        numbers, counts = dict(found.numbers), dict(found.counts)
        if self._places:
            confidence, labels = [], []
            for record in records:
                if record.confidence is None or record.label not in self._places:
                    what = f"request {record.request} was not answered with a class of this model"
                    raise DataError(what, advice="look at what writes these events")
                confidence.append(record.confidence)
                labels.append(self._places[record.label])
            numbers["confidence"] = np.array(confidence)
            counts["classes"] = one_hot(np.array(labels), len(self._places))
        if self.is_writer:
            for name in ("written", "logprob"):
                values = [getattr(record, name) for record in records]
                if all(value is not None for value in values):
                    numbers[name] = np.array(values, np.float64)
        return Columns(numbers, counts, found.vector_BD)

    def read(self, texts: Sequence[str], characters: str) -> tuple[np.ndarray | None, Columns]:
        """The class probabilities of texts, where there are classes and somebody has to ask; and what they are like."""
        inside = self._inside
        numbers = {"length": np.array([len(text) for text in texts], np.float64)}
        if self._unknown is not None and inside is not None:
            tokens = encode(inside.tokenizer, texts, None, special=False)
            is_unknown = np.append(np.isin(tokens.ids, self._unknown), False).cumsum()
            before = np.concatenate([[0], is_unknown])[tokens.offsets]
            numbers["unknown"] = np.diff(before) / np.maximum(1, tokens.lengths)
        counts = {"characters": count_characters(texts, characters)}
        if isinstance(inside, NeuralClassifier):
            asked, vectors = with_vectors(inside.module, len(texts), lambda: inside.predict_proba(texts))
            return (asked if inside is self._predictor.answerer else None), Columns(numbers, counts, vectors)
        return None, Columns(numbers, counts)

    def seen(self, pictures: NDArray[np.uint8]) -> tuple[np.ndarray | None, Columns]:
        """The class probabilities of pictures, where they come along; and what the pictures are like."""
        answerer = self._predictor.answerer
        flat = pictures.reshape(len(pictures), -1) / 255
        numbers = {"brightness": flat.mean(1), "contrast": flat.std(1)}
        if isinstance(answerer, NeuralImageClassifier):
            asked, vectors = with_vectors(answerer.module, len(pictures), lambda: answerer.predict_proba(pictures))
            return asked, Columns(numbers, {}, vectors)
        return None, Columns(numbers)


@dataclass(frozen=True)
class Reference:
    """A reference.

    Attributes:
        artifact: Where it is kept.
        characters: What is counted one by one.
        columns: Of its records, in the order in which they are dealt.
        correct_B: Whether the model was right about each, where it names classes.
        has_learnt: Whether the model's data hold what was learnt from feedback.
    """

    artifact: Artifact
    characters: str
    columns: Columns
    correct_B: NDArray[np.bool_] | None
    has_learnt: bool

    @classmethod
    def open(cls, artifact: Artifact) -> Reference:
        """Read a reference.

        Raises:
            CorruptError: A file of it is damaged.
        """
        facts = artifact.json("reference.json")
        try:
            stored = load_file(artifact.path / "columns.safetensors")
            numbers = {name: stored[f"number.{name}"] for name in facts["numbers"]}
            counts = {}
            if "characters" in stored:
                counts["characters"] = stored["characters"].astype(np.float64)
            if facts["classes"]:
                counts["classes"] = one_hot(stored["class"].astype(np.int64), len(facts["classes"]))
            correct_B = stored["correct"].astype(bool) if facts["classes"] else None
            columns = Columns(numbers, counts, stored.get("vector"))
        except (OSError, KeyError, SafetensorError) as error:
            raise CorruptError(f"not a reference: {error}", where=str(artifact.path)) from error
        has_learnt = _GOLD in artifact.manifest["parents"]
        return cls(artifact, str(facts["characters"]), columns, correct_B, has_learnt)


def reference_of(workspace: Workspace, model: Artifact, predictor: Predictor, progress: Progress) -> Reference:
    """The reference of a model, computed now or found.

    Raises:
        UsageError: The model has no data.
        DataError: The data has no test split.
        CorruptError: The data is no longer here, or an artifact is damaged.
    """
    digest = model.manifest["parents"].get("dataset")
    if digest is None:
        what = "this model does not say what data it was tested on, so that its traffic cannot be compared with it"
        raise UsageError(what, where=str(model.path), advice="serve a model that danlu run made")
    dataset = workspace.with_digest(str(digest))
    parents = {"model": model.digest, "dataset": dataset.digest}
    if (gold := dataset.manifest["parents"].get(_GOLD)) is not None:
        parents[_GOLD] = str(gold)
    key = digest_of({"parents": parents, "version": VERSION})
    if found := workspace.with_key("reference", key):
        return Reference.open(found)
    require_split(dataset, "test")
    sets = [dataset, *([] if gold is None else [workspace.with_digest(str(gold))])]
    progress.stage(f"reference: what {model.path.name} answers to its test split")
    rng = np.random.default_rng(int(model.digest[:16], 16))
    characters, columns, probabilities_BN, label_B = _asked(Reader(predictor), predictor, sets, rng, progress)
    facts: dict[str, Any] = {"task": predictor.task, "classes": list(predictor.classes), "n": len(columns)}
    facts |= {"characters": characters, "numbers": [*columns.numbers]}
    stored: dict[str, np.ndarray] = {f"number.{name}": column for name, column in columns.numbers.items()}
    if "characters" in columns.counts:
        stored["characters"] = columns.counts["characters"].astype(np.int32)
    if columns.vector_BD is not None:
        stored["vector"] = columns.vector_BD
    if probabilities_BN is not None:
        assert label_B is not None
        confidence_B = np.round(probabilities_BN.max(1).astype(np.float64), DIGITS)
        stored |= {"number.confidence": confidence_B, "class": probabilities_BN.argmax(1).astype(np.int32)}
        stored["correct"] = (stored["class"] == label_B).astype(np.uint8)
        facts["numbers"].append("confidence")
    with workspace.create("reference", model.name, key=key, config={"version": VERSION}, parents=parents) as draft:
        write_json(draft.folder / "reference.json", facts)
        save_file(
            {name: np.ascontiguousarray(array) for name, array in stored.items()}, draft.folder / "columns.safetensors"
        )
    return Reference.open(draft.artifact)


def _asked(
    reader: Reader, predictor: Predictor, sets: Sequence[Artifact], rng: np.random.Generator, progress: Progress
) -> tuple[str, Columns, np.ndarray | None, np.ndarray | None]:
    """The characters to count, the columns, what was answered and what is right, of test splits as they are dealt."""
    names = bool(predictor.classes)
    if predictor.task == "image-classification":
        if image_size(sets[0]) != predictor.image_size:
            raise DataError("the model takes pictures of another size than its data has", where=str(sets[0].path))
        seen = [read_images(each, "test") for each in sets]
        pictures, labels = np.concatenate([each for each, _ in seen]), [label for _, them in seen for label in them]
        row_B = rng.permutation(len(labels))[:MOST]
        texts, characters = None, ""
    else:
        tables = [read_split(each, "test", ["text", "label"] if names else ["text"]) for each in sets]
        given = [text for table in tables for text in table.column("text").to_pylist()]
        labels = [label for table in tables for label in table.column("label").to_pylist()] if names else []
        row_B = rng.permutation(len(given))[:MOST]
        texts = standard_texts([given[row] for row in row_B.tolist()], predictor.clean)
        characters = frequent_characters(texts[: len(texts) // 3])
    place = {name: number for number, name in enumerate(predictor.classes)}
    label_B = np.array([place.get(labels[row], -1) for row in row_B.tolist()]) if names else None
    parts: list[Columns] = []
    answers: list[np.ndarray] = []
    for start in range(0, len(row_B), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(row_B))
        if texts is None:
            some = pictures[row_B[start:stop]]
            asked, columns = reader.seen(some)
            asked = predictor.image_proba(some) if asked is None else asked
        else:
            asked, columns = reader.read(texts[start:stop], characters)
            asked = predictor.predict_proba(texts[start:stop]) if asked is None and names else asked
        parts.append(columns)
        answers += [] if asked is None else [asked]
        progress.update(stop, len(row_B), "records")
    return characters, Columns.joined(parts), np.concatenate(answers) if names else None, label_B


def _inside(predictor: Predictor) -> TextModel | None:
    """The network that reads texts, where there is one: of an ensemble, its first."""
    answerer = predictor.answerer
    among = answerer.members.values() if isinstance(answerer, Ensemble) else [answerer]
    return next((each for each in among if isinstance(each, TextModel)), None)


def _unknown_tokens(model: TextModel) -> NDArray[np.int64] | None:
    """Tokens that stand for what the vocabulary lacks; None where it lacks nothing."""
    vocabulary = model.tokenizer.get_vocab()
    if "<0x00>" not in vocabulary and "[UNK]" not in vocabulary:
        return None
    return np.array([number for token, number in vocabulary.items() if _UNKNOWN.fullmatch(token)], np.int64)
