"""Which answered requests are worth a label: chosen with the champion's help, and written down as questions."""

from __future__ import annotations

import base64
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.core.artifact import Artifact
from danlu.core.errors import DataError, UsageError
from danlu.core.events import EventLog
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.images import png_address
from danlu.data.stage import Split, read_split
from danlu.improve.feedback import content_keys, input_of
from danlu.improve.selection import By, choose, drawn
from danlu.labelling import EVERY, current_index
from danlu.model.classifier import NeuralClassifier
from danlu.model.image_classifier import NeuralImageClassifier
from danlu.model.predictor import Predictor, load_predictor
from danlu.model.vectors import with_vectors
from danlu.monitor.records import Record, n_without_input, records_of

__all__ = ["Asked", "ask"]

_CENTRES = 2000
"""Training records that count as labelled where a core-set is chosen; more would change little."""


@dataclass(frozen=True)
class Asked:
    """What was asked.

    Attributes:
        questions: The questions, the most wanted first.
        n_candidates: Inputs among which they were chosen.
        n_left_out: Inputs that were not candidates, by the reason.
    """

    questions: list[dict[str, Any]]
    n_candidates: int
    n_left_out: dict[str, int]


def ask(workspace: Workspace, name: str, n: int, by: By, progress: Progress, seed: int = 0) -> Asked:
    """Choose answered requests that are worth a label, and write them down as questions.

    Args:
        workspace: Where they are.
        name: The model's name; the champion is asked again what it makes of them.
        n: How many at most.
        by: How they are chosen; see :mod:`danlu.improve.selection`.
        progress: Told of every step.
        seed: Of what is drawn at random.

    Raises:
        UsageError: The model names no classes, or has no vectors.
        DataError: There is nothing to choose from.
    """
    champion = workspace.target(name, "model")
    predictor = load_predictor(champion)
    if not predictor.classes:
        what = f"labels are asked for where a model names classes; this one is for {predictor.task}"
        raise UsageError(what, where=name, advice=f"let users correct it, then danlu feedback {name}")
    neural = isinstance(predictor.answerer, NeuralClassifier | NeuralImageClassifier)
    if by == "core-set" and not neural:
        what = f"a {predictor.family} has no vectors that a core-set could be chosen by"
        raise UsageError(what, where="by", advice="use by=margin, by=entropy or by=random")
    progress.stage(f"choose {n} by {by}")
    dataset = workspace.with_digest(champion.manifest["parents"]["dataset"])
    found, left_out = _candidates(workspace, name, dataset, predictor)
    if not found:
        told = ", ".join(f"{why} {k}" for why, k in left_out.items() if k) or "no request was answered"
        advice = "serve it with keep_inputs=true, the default, and ask again when there was traffic"
        raise DataError(f"there is nothing to be labelled ({told})", where=name, advice=advice)
    contents = [each.input for each in found]
    probabilities_BN, vectors_BD = _answered(predictor, contents, by == "core-set")
    labelled_MD = _labelled(predictor, dataset) if by == "core-set" else None
    places = [f"{each.request} {each.index}" for each in found]
    rows, values = choose(by, n, probabilities_BN, vectors_BD, labelled_MD, drawn(places, seed))
    log = EventLog(workspace.events, "feedback")
    questions = []
    for row, value in zip(rows.tolist(), values.tolist(), strict=True):
        p_N = probabilities_BN[row]
        answer = {"label": predictor.classes[int(p_N.argmax())], "probability": round(float(p_N.max()), 6)}
        question = {
            "id": f"question-{uuid.uuid4().hex[:16]}",
            "name": name,
            "digest": champion.digest,
            "request": found[row].request,
            "index": found[row].index,
            "input": found[row].input,
            "answer": answer,
            "why": {"by": by, "value": round(value, 6)},
        }
        log.write("question", **question)
        questions.append(question)
    return Asked(questions, len(found), left_out)


def _candidates(
    workspace: Workspace, name: str, dataset: Artifact, predictor: Predictor
) -> tuple[list[Record], dict[str, int]]:
    """The inputs that may be asked about, and how many others there are, by the reason."""
    texts = predictor.task == "text-classification"
    left_out = dict.fromkeys(("not kept", "labelled", "asked", "in the data", "repeated"), 0)
    with current_index(workspace) as index:
        said = [each for each in index.feedback(name) if each.get("label") is not None]
        asked = {(each["request"], each["index"]) for each in index.open_questions(name, EVERY)}
        answered: list[Record] = []
        for event in index.events("request", name=name):
            answered += records_of(event)
            left_out["not kept"] += n_without_input(event)

    def keys(contents: list[str]) -> list[str]:
        return content_keys(contents) if texts else contents

    labelled = {(each["request"], each["index"]) for each in said}
    labelled_keys = set(keys([content for each in said if (content := input_of(each)) is not None]))
    known = _known_keys(dataset) if texts else set()
    found: dict[str, Record] = {}
    for record, key in zip(answered, keys([each.input for each in answered]), strict=True):
        place = (record.request, record.index)
        reasons = {
            "labelled": place in labelled or key in labelled_keys,
            "asked": place in asked,
            "in the data": key in known,
            "repeated": key in found,
        }
        if (why := next((reason for reason, holds in reasons.items() if holds), None)) is None:
            found[key] = record
        else:
            left_out[why] += 1
    return list(found.values()), left_out


def _known_keys(dataset: Artifact) -> set[str]:
    splits: tuple[Split, ...] = ("train", "valid", "test")
    tables = [read_split(dataset, split, ["text"]) for split in splits]
    return {key for table in tables for key in content_keys(table.column("text").to_pylist())}


def _answered(
    predictor: Predictor, contents: Sequence[str], with_vector: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Probabilities of texts or of pictures in base64, and what the model's head saw of them."""
    if predictor.task == "text-classification":

        def answer() -> np.ndarray:
            return predictor.predict_proba(contents)
    else:
        images = _opened(predictor, contents)

        def answer() -> np.ndarray:
            return predictor.image_proba(images)

    if not with_vector:
        return answer(), None
    assert isinstance(predictor.answerer, NeuralClassifier | NeuralImageClassifier)
    return with_vectors(predictor.answerer.module, len(contents), answer)


def _labelled(predictor: Predictor, dataset: Artifact) -> NDArray[np.float32]:
    """The vectors of what is labelled already: the training records, or some of them, evenly."""
    column = "text" if predictor.task == "text-classification" else "image"
    table = read_split(dataset, "train", [column])
    step = max(1, table.num_rows // _CENTRES)
    contents = table.column(column).to_pylist()[::step]
    if column == "image":
        assert predictor.image_size is not None
        written = [png_address(each, predictor.image_size).partition(",")[2] for each in contents]
        contents = written
    _, vectors_MD = _answered(predictor, contents, True)
    assert vectors_MD is not None
    return vectors_MD


def _opened(predictor: Predictor, contents: Sequence[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(base64.b64decode(content))
        return predictor.open_images(paths)
