"""Feedback in files: JSON Lines, CSV, and what Label Studio reads and writes. A file is taken in whole or not at all.

**JSON Lines**: one :class:`danlu.improve.feedback.Feedback` a line; ``name`` may be left out, and ``id`` (it then
follows from the content, so that the same line comes in once), and ``source`` (the file is the source).

**CSV**: the same in columns, the source as ``source_kind`` and ``source_id``. A spreadsheet takes a cell that begins
with ``=``, ``+``, ``-`` or ``@`` for a formula, which may do harm on the machine that opens it; every such cell is
written with an apostrophe before it, and so is one that begins with an apostrophe. Files with exactly our columns are
read back without it; in others no apostrophe is touched.

**Label Studio**: tasks with the model's answer as a prediction; what users said is a prediction too, never an
annotation, so that it stays theirs. An annotation of an export is the word of a labeller, whoever saw the task before.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from pydantic import ValidationError

from danlu.core.errors import DataError, UsageError, nearest
from danlu.core.files import write_atomic
from danlu.improve.feedback import VALUES, Feedback, answer_to, input_of, writable

__all__ = [
    "Format",
    "as_record",
    "label_config",
    "read_feedback",
    "tasks_of",
    "write_feedback",
    "write_tasks",
]

Format = Literal["jsonl", "csv", "label-studio"]

_COLUMNS = (
    *("id", "name", "request", "index", "input", *VALUES, "comment"),
    *("source_kind", "source_id", "digest", "arm", "experiment"),
)
_FORMULA = re.compile(r"['=+\-@\t\r]")
_IMAGE = "data:image/png;base64,"
_MARK = "danlu"
"""Where a task of Label Studio says what it is about."""


def read_feedback(path: Path, name: str) -> list[Feedback]:
    """The records of a file.

    Args:
        path: ``.jsonl``, ``.csv``, or ``.json`` (an export of Label Studio).
        name: The model that they are about.

    Raises:
        UsageError: There is no such file, or its format is not known.
        DataError: A line is no record; its place is told, and nothing of the file is returned.
    """
    readers: dict[str, Callable[[str, Path], Iterator[tuple[str, dict[str, Any]]]]] = {
        ".jsonl": _json_lines,
        ".csv": _csv_rows,
        ".json": _annotations,
    }
    if path.suffix not in readers:
        advice = f"give a file that ends in {', '.join(readers)} (the last is an export of Label Studio)"
        raise UsageError("the format of the file is not known", where=str(path), advice=advice)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the file: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8", where=f"{path}, byte {error.start}", advice="save it as UTF-8"
        ) from error
    found: dict[str, Feedback] = {}
    for where, values in readers[path.suffix](text, path):
        record = _record(values, where, path, name)
        if found.setdefault(record.id, record).plain() != record.plain():
            what = f"two records have the id {record.id!r} and say different things"
            raise DataError(what, where=where, advice="give each its own id, or leave the ids out")
    if not found:
        raise DataError("the file holds no record", where=str(path), advice="check that it is the right one")
    return list(found.values())


def as_record(event: Mapping[str, Any]) -> Feedback:
    """A feedback event as a record, in characters that can be written."""
    return Feedback(**_whole({key: event[key] for key in Feedback.model_fields if key in event}))


def write_feedback(path: Path, records: Iterable[Mapping[str, Any]], kind: Literal["jsonl", "csv"]) -> int:
    """Write feedback that counts; :func:`read_feedback` reads it back.

    Returns:
        How many cells had to be kept from being taken for a formula.

    Raises:
        DanluError: The file cannot be written.
    """
    rows = [
        Feedback(**_whole({key: row[key] for key in Feedback.model_fields if key in row})).plain() for row in records
    ]
    if kind == "jsonl":
        write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        return 0
    written = io.StringIO(newline="")
    table = csv.writer(written)
    table.writerow(_COLUMNS)
    n_kept = 0
    for row in rows:
        flat = row | {f"source_{key}": value for key, value in row["source"].items()}
        cells = [_cell(flat[column]) for column in _COLUMNS]
        n_kept += sum(bool(_FORMULA.match(cell)) for cell in cells)
        table.writerow([f"'{cell}" if _FORMULA.match(cell) else cell for cell in cells])
    write_atomic(path, b"\xef\xbb\xbf" + written.getvalue().encode())  # by the mark spreadsheets know that it is UTF-8
    return n_kept


def tasks_of(records: Iterable[Mapping[str, Any]], task: str) -> list[dict[str, Any]]:
    """Tasks for Label Studio.

    Args:
        records: Questions (``answer``, ``why``) and feedback, each with ``request``, ``index`` and its input.
        task: What the model does.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        if (content := input_of(record)) is None:
            continue
        record, content = _whole(record), writable(content)
        about = {key: record.get(key) for key in ("name", "request", "index", "digest")}
        key = (about["request"], about["index"]) if about["request"] else (content,)
        data = {"image": _IMAGE + content} if task == "image-classification" else {"text": content}
        entry = found.setdefault(key, {"data": data, "meta": {_MARK: about}, "predictions": []})
        answered = record.get("answer") or {}
        label = answered.get("label", answered.get("translation", answer_to(record)))
        said = [(str(about["digest"] or "model")[:12], label, answered.get("probability"))]
        if (source := record.get("source")) is not None:
            said.append((f"{source['kind']} {source['id']}", record.get("label") or record.get("text"), None))
        known = {each["model_version"] for each in entry["predictions"]}
        for who, what, sure in said:
            if what is not None and who not in known:
                prediction = {"model_version": who, "result": [_result(what, task)]}
                entry["predictions"].append(prediction | ({} if sure is None else {"score": sure}))
    return list(found.values())


def write_tasks(path: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Write tasks as a file that Label Studio imports."""
    write_atomic(path, (json.dumps(tasks, ensure_ascii=False, indent=1) + "\n").encode())


def label_config(task: str, classes: Sequence[str]) -> str:
    """The labelling interface that the tasks are for, to be pasted into the project's settings."""
    if task == "translation":
        what = '<Text name="text" value="$text"/><TextArea name="answer" toName="text" rows="4" maxSubmissions="1"/>'
        return f"<View>{what}</View>"
    shown = '<Image name="image" value="$image"/>' if task == "image-classification" else ""
    shown = shown or '<Text name="text" value="$text"/>'
    choices = "".join(f"<Choice value={quoteattr(name)}/>" for name in classes)
    to = "image" if task == "image-classification" else "text"
    return f'<View>{shown}<Choices name="answer" toName="{to}" choice="single">{choices}</Choices></View>'


def _result(said: str, task: str) -> dict[str, Any]:
    if task == "translation":
        return {"from_name": "answer", "to_name": "text", "type": "textarea", "value": {"text": [said]}}
    to = "image" if task == "image-classification" else "text"
    return {"from_name": "answer", "to_name": to, "type": "choices", "value": {"choices": [said]}}


def _json_lines(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _json(line, f"{path}:{number}", dict, "an object")


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        if unknown := [column for column in columns if column not in _COLUMNS]:
            raise DataError(f"unknown column {unknown[0]!r}", where=f"{path}:1", advice=nearest(unknown[0], _COLUMNS))
        ours = tuple(columns) == _COLUMNS
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError("the row has another number of cells than the header", where=where)
            yield where, _from_cells(row, ours)
    except csv.Error as error:
        raise DataError(f"not CSV: {error}", where=f"{path}:{reader.line_num}") from error


def _from_cells(row: Mapping[str, str], ours: bool) -> dict[str, Any]:
    """The values of a row; an empty cell says nothing."""
    cells = {key: cell[1:] if ours and cell.startswith("'") else cell for key, cell in row.items()}
    source = {key: cells.pop(f"source_{key}", "") for key in ("kind", "id")}
    values: dict[str, Any] = {key: cell for key, cell in cells.items() if cell}
    for name in VALUES:  # what somebody typed into the cell of a class or text is that, whatever it looks like
        if name == "correct" and name in values:
            values[name] = {"true": True, "false": False}.get(values[name].lower(), values[name])
    return values | ({"source": source} if any(source.values()) else {})


def _annotations(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What labellers said in an export of Label Studio, one record an annotation; tasks without any are passed over."""
    for number, task in enumerate(_json(text, str(path), list, "a list of tasks")):
        where = f"{path}, task {number + 1}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict) or "annotations" not in task:
            advice = "export the project as JSON (not JSON-MIN), with its annotations"
            raise DataError("not a task of an export of Label Studio", where=where, advice=advice)
        meta = task.get("meta")
        about = meta.get(_MARK) if isinstance(meta, dict) else None
        about = {key: value for key, value in (about if isinstance(about, dict) else {}).items() if value is not None}
        content = task["data"].get("image", task["data"].get("text"))
        if not isinstance(content, str):
            raise DataError(
                "the task has neither a text nor an image", where=where, advice="name its data text or image"
            )
        for annotation in task["annotations"] or ():
            if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                continue
            said = _said(annotation, where)
            source = {"kind": "labeller", "id": _who(annotation)}
            yield where, {**about, "input": content.removeprefix(_IMAGE), **said, "source": source}


def _said(annotation: Mapping[str, Any], where: str) -> dict[str, str]:
    """The one answer of an annotation."""
    found = []
    for result in annotation.get("result") or ():
        value = result.get("value") if isinstance(result, dict) else None
        if isinstance(value, dict) and result.get("type") in ("choices", "textarea"):
            kind, key = ("label", "choices") if result["type"] == "choices" else ("text", "text")
            given = value.get(key)
            found += [(kind, each) for each in ([given] if isinstance(given, str) else given or ())]
    if len(found) != 1 or not isinstance(found[0][1], str):
        what = f"the annotation has {len(found)} answers, and one choice or one text is due"
        raise DataError(what, where=where, advice="label each task once, with a single choice or one text")
    return dict(found)


def _who(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email", by.get("id"))
    return str(by if by not in (None, "") else "label-studio")


def _json(text: str, where: str, kind: type, what: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", where=where) from error
    if not isinstance(found, kind):
        raise DataError(f"{what} is due here", where=where)
    return found


def _record(values: dict[str, Any], where: str, path: Path, name: str) -> Feedback:
    source = values.get("source")
    known = source if isinstance(source, dict) else None
    whole = {"name": name, **values, "source": known or {"kind": "import", "id": path.name}}
    if source is not None and known is None:
        whole["source"] = source
    try:
        if "id" not in whole:
            whole["id"] = Feedback.key_of(whole, known)
        record = Feedback(**whole)
    except (ValueError, RecursionError) as error:
        raise _explained(error, where) from error
    if record.name != name:
        advice = f"import it as feedback to {record.name}, or leave the name out"
        raise DataError(f"the record is about {record.name!r}, not {name!r}", where=where, advice=advice)
    return record


def _explained(error: ValueError | RecursionError, where: str) -> DataError:
    if isinstance(error, UnicodeEncodeError):
        return DataError("a text holds half of a surrogate pair, which is no character", where=where)
    if not isinstance(error, ValidationError):
        return DataError(f"not a record: {error}", where=where)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return DataError(f"unknown key {key!r}", where=where, advice=nearest(key, Feedback.model_fields))
    said = first["msg"].removeprefix("Value error, ")
    return DataError(f"{key}: {said}" if key else said, where=where, advice="mend the record; nothing was taken in")


def _whole(value: Any) -> Any:
    """What a caller of the service may have sent, as it can be written."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return writable(value) if isinstance(value, str) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
