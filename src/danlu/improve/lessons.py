"""From what people said to records that can be trained on: cleaned as the training records were, guarded, counted."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.core.artifact import Artifact
from danlu.core.errors import DataError
from danlu.core.workspace import Workspace
from danlu.data.clean import CleanConfig, clean_batch
from danlu.data.image_sources import read_pictures
from danlu.data.images import ImageSize, Pixels, read_image, shown_size, to_standard
from danlu.data.normalize import key_digests, normal_keys
from danlu.data.records import Records
from danlu.data.sources import read_source
from danlu.data.stage import Split, image_size, read_split
from danlu.improve.guards import (
    Known,
    balance_arms,
    drop_contradicted,
    drop_learnt,
    hold_out,
    keep_apart,
    limit_sources,
    row_of,
    rows_of,
    settle_conflicts,
)

__all__ = ["Guards", "Lessons", "clean_rows", "drop_seen", "known_of", "known_rows", "read_gold", "screen", "together"]

_CARRIED = ("kind", "by", "arm", "experiment")


@dataclass(frozen=True, kw_only=True)
class Guards:
    """How much is let through.

    Attributes:
        quota: The largest share of one user of all that is used.
        most: The largest number of records of one user.
        held_out: The share of labelled texts that becomes the gold set.
    """

    quota: float
    most: int
    held_out: float


@dataclass(frozen=True)
class Lessons:
    """What came of the guards.

    Attributes:
        records: All feedback, cleaned; what is kept may be learnt from, the others have a reason.
        gold: The rows that are held out.
        corrected: The training records whose label a labeller's answer takes the place of.
    """

    records: Records
    gold: NDArray[np.int64]
    corrected: Sequence[int]


def screen(
    feedback: Sequence[Mapping[str, Any]],
    dataset: Artifact,
    task: str,
    classes: Sequence[str],
    guards: Guards,
    *,
    seen: Known,
    base: Known,
    named_gold: Known | None,
) -> Lessons:
    """Put feedback through every guard.

    Args:
        feedback: Events that count, each with ``asked``.
        dataset: What the champion was trained on: its cleaning, its held-out splits.
        task: What the model does.
        classes: Its classes, where it has any.
        guards: How much is let through.
        seen: All that the champion was trained on.
        base: The training records that corrections are added to.
        named_gold: The gold set that a file holds; None where there is none.
    """
    records = clean_rows(rows_of(feedback, task, classes), dataset, task)
    answers = _answers(records, task)
    drop_contradicted(records, answers)
    settle_conflicts(records, answers)
    clean = CleanConfig(**dataset.config["clean"])
    gold = hold_out(records, guards.held_out, seen, clean)
    apart = [known_of(dataset, split, task) for split in ("valid", "test")]
    apart += [] if named_gold is None else [named_gold]
    apart.append(known_rows(records, gold, "gold", task))
    keep_apart(records, together(apart), clean)
    corrected = drop_learnt(records, base, answers)
    balance_arms(records)
    limit_sources(records, guards.quota, guards.most)
    # A correction that a later guard stopped takes the place of nothing.
    left = set(records.digests(records.kept()))
    return Lessons(records, gold, [at for at in corrected if base.digests[at] in left])


def clean_rows(rows: Sequence[Mapping[str, Any]], dataset: Artifact, task: str) -> Records:
    """Rows of :func:`danlu.improve.guards.rows_of`, cleaned as a dataset's records were."""
    clean = CleanConfig(**dataset.config["clean"])
    records = Records("image" if task == "image-classification" else "text")
    if task == "image-classification":
        records.fill([_pictures(rows, image_size(dataset), clean)])
        return records
    columns = {"text": "content", ("target" if task == "translation" else "label"): "answer", "problem": "problem"}
    columns = {"source": "source", **columns, **{name: name for name in _CARRIED}}
    values = {name: pa.array([row[given] for row in rows], pa.string()) for name, given in columns.items()}
    records.fill([clean_batch(pa.RecordBatch.from_pydict(values), clean)])
    return records


def read_gold(spec: str, dataset: Artifact, task: str, classes: Sequence[str], workspace: Workspace) -> Records:
    """The gold set that a file holds: read and cleaned as a dataset's source is, each text once.

    Args:
        spec: As ``data.source`` of a recipe, from the working folder on; its columns are those of the dataset's source.
        dataset: What the champion was trained on.
        task: What the model does.
        classes: Its classes.
        workspace: Where samples are.

    Raises:
        UsageError: There is no such file, or its format is not known.
        DataError: It cannot be read, or has not these columns.
    """
    content, answer = _roles(task)
    columns: Mapping[str, str] = dataset.config["columns"]
    told: Iterator[tuple[str, Any, str | None, str | None]]
    if task == "image-classification":
        pictures = read_pictures(spec, [columns[answer]], base=Path.cwd(), samples=workspace.samples)
        told = ((each.source, each.pixels, each.values[0], each.problem and "broken_image") for each in pictures)
    else:
        wanted = {role: columns[role] for role in (content, answer)}
        batches = read_source(spec, wanted, base=Path.cwd(), samples=workspace.samples)
        names = ("source", content, answer, "problem")
        told = (tuple(row[name] for name in names) for batch in batches for row in batch.to_pylist())
    rows = [row_of(source, given, said, problem, task, classes) for source, given, said, problem in told]
    if not rows:
        raise DataError("the gold set holds no record", where=spec, advice="give a file of labelled records")
    records = clean_rows(rows, dataset, task)
    settle_conflicts(records, _answers(records, task))
    return records


def drop_seen(records: Records, seen: Known, clean: CleanConfig) -> NDArray[np.int64]:
    """Drop what a model was trained on, or nearly: it cannot judge that model.

    Returns:
        The rows that are left.
    """
    keep_apart(records, seen, clean)
    return records.kept()


def known_of(dataset: Artifact, split: Split, task: str, rows: NDArray[np.int64] | None = None) -> Known:
    """The records of a split as the guards see them; of all, or of some rows."""
    content, answer = _roles(task)
    table = read_split(dataset, split, [content, answer])
    if rows is not None:
        table = table.take(pa.array(rows))
    contents = table.column(content).combine_chunks()
    answers = table.column(answer).to_pylist()
    n = table.num_rows
    if task == "image-classification":
        digests = [hashlib.sha256(each).digest() for each in contents.to_pylist()]
        return Known(digests, answers, None, [split] * n)
    if task == "translation":
        answers = [key.hex() for key in key_digests(normal_keys(pa.array(answers, pa.large_string()))).to_pylist()]
    contents = pa.array(contents.to_pylist(), pa.large_string())
    return Known(key_digests(normal_keys(contents)).to_pylist(), answers, contents, [split] * n)


def together(known: Sequence[Known]) -> Known:
    """Several sets of known records as one."""
    contents = [each.contents for each in known if each.contents is not None]
    return Known(
        [digest for each in known for digest in each.digests],
        [answer for each in known for answer in each.answers],
        pa.concat_arrays(contents) if contents else None,
        [name for each in known for name in each.names],
    )


def _roles(task: str) -> tuple[str, str]:
    return (
        "image" if task == "image-classification" else "text",
        "target" if task == "translation" else "label",
    )


def _answers(records: Records, task: str) -> list[str]:
    """What each record answers, comparable: its class, or the key of its translation."""
    if task == "translation":
        return [each.hex() for each in records.table.column("_target").to_pylist()]
    return [str(each) for each in records.table.column("label").to_pylist()]


def known_rows(records: Records, rows: NDArray[np.int64], name: str, task: str) -> Known:
    """Some records as the guards see what is known."""
    contents, answers = None, _answers(records, task)
    if task != "image-classification":
        contents = pa.array(records.contents.take(pa.array(rows)).to_pylist(), pa.large_string())
    return Known(records.digests(rows), [answers[row] for row in rows.tolist()], contents, [name] * len(rows))


def _pictures(rows: Sequence[Mapping[str, Any]], size: ImageSize, clean: CleanConfig) -> pa.RecordBatch:
    """Pictures as a dataset holds them, with the reason of each that cannot be one."""
    images: list[bytes | None] = []
    reasons: list[str | None] = []
    details: list[str | None] = []
    for row in rows:
        image, reason, detail = None, row["problem"], None
        if reason is None:
            image, reason, detail = _decoded(row["content"], size, clean)
        images.append(image)
        reasons.append(reason)
        details.append(detail)
    columns = {
        "source": pa.array([row["source"] for row in rows], pa.string()),
        "image": pa.array(images, pa.binary(int(np.prod(size)))),
        "label": pa.array([row["answer"] for row in rows], pa.string()),
        **{name: pa.array([row[name] for row in rows], pa.string()) for name in _CARRIED},
        "reason": pa.array(reasons, pa.string()),
        "detail": pa.array(details, pa.string()),
        "_digest": pa.array([hashlib.sha256(image or b"").digest() for image in images], pa.binary(32)),
    }
    return pa.RecordBatch.from_pydict(columns)


def _decoded(content: str | Pixels, size: ImageSize, clean: CleanConfig) -> tuple[bytes | None, str | None, str | None]:
    """The pixels of a picture, given so or as its file in base64; or why there are none, and more of that."""
    try:
        given = _opened(content) if isinstance(content, str) else content
    except DataError as error:
        return None, "broken_image", error.what
    pixels = to_standard(given, clean.model_copy(update={"channels": size[0]}))
    if pixels.shape != size:
        return None, "other_size", f"it is {shown_size(pixels.shape)}, the model takes {shown_size(size)}"
    return pixels.tobytes(), None, None


def _opened(content: str) -> Pixels:
    try:
        written = base64.b64decode(content, validate=True)
    except ValueError:
        raise DataError("it is not base64") from None
    with tempfile.NamedTemporaryFile() as file:
        file.write(written)
        file.flush()
        return read_image(Path(file.name))
