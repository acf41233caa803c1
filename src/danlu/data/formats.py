"""Reads one file as records: txt, csv, tsv, jsonl (also `.gz` and `.zst` of them) and parquet.

Every record of the file comes out, in order, with the line or row that it starts at. One that cannot be read as it
should brings a problem and as much of its text as there is:

    undecodable       bytes that are no text in the file's encoding
    line_too_long     a line past `lines.MAX_LINE` bytes, or a value of a parquet file past as many characters
    malformed_row     a csv row with an unclosed quote, or with more or fewer fields than the header
    bad_json          a jsonl line that is no JSON object
    bad_value         a value that is a list or an object where a text is wanted

A value that is absent or null is None in the record; `danlu.data.sources` tells of it.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from danlu.core.errors import DataError, nearest
from danlu.data.lines import CLIP, MAX_LINE, Line, read_lines

__all__ = ["SUFFIXES", "Record", "format_of", "read_records"]

SUFFIXES = ("txt", "csv", "tsv", "jsonl", "parquet")
COMPRESSED = (".gz", ".zst")
EMPTY = "fill it or leave it out of data.source"
N_FIRST_RECORDS = 1000
"""In how many JSON lines a column must show up to be there."""

Values = list[str | None]


class Record(NamedTuple):
    """One record of a file."""

    number: int
    """Its line (of a parquet file its row), counted from 1."""
    values: Values
    """In the order of the wanted columns."""
    problem: str | None


def format_of(path: Path) -> str | None:
    """The format of a file by its suffix, one of `SUFFIXES`; None for any other."""
    name = Path(path.name.removesuffix(path.suffix)) if path.suffix in COMPRESSED else path
    suffix = name.suffix.removeprefix(".")
    return suffix if suffix in SUFFIXES and (suffix != "parquet" or name is path) else None


def read_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """The records of one file.

    Besides the columns of the file (of a txt file: `text`, the line) every record has `file`, the file's name without
    suffixes, and `folder`, the name of the folder that it is in, unless the file has a column of that name.

    Args:
        path: The file.
        columns: The wanted columns, at least one; the first keeps the text of a record that cannot be read.

    Raises:
        DataError: The file is empty, has not these columns, or cannot be read at all.
    """
    kind = format_of(path)
    if kind == "txt":
        return _read_txt(path, columns)
    if kind == "jsonl":
        return _read_jsonl(path, columns)
    if kind == "parquet":
        return _read_parquet(path, columns)
    return _read_csv(path, columns, "\t" if kind == "tsv" else ",")


def _constants(path: Path) -> dict[str, str]:
    """The columns that every record of a file shares."""
    return {"file": path.name.split(".")[0], "folder": path.parent.name}


def _require(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Checks that a file has the wanted columns."""
    for column in wanted:
        if column not in there and column not in _constants(path):
            what = f"no column is called {column!r}; the file has {', '.join(there)}"
            raise DataError(what, where=str(path), advice=nearest(column, there))


def _unreadable(n_columns: int, text: str) -> Values:
    return [text[:CLIP], *[None] * (n_columns - 1)]


def _read_txt(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    _require(path, columns, ["text"])
    constants = _constants(path)
    fixed = [None if column == "text" else constants[column] for column in columns]
    for number, text, problem in read_lines(path):
        values: Values = [text if value is None else value for value in fixed]
        yield Record(number, values, problem)


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    constants = _constants(path)
    seen: set[str] = set()
    n_objects = 0
    for number, text, problem in read_lines(path):
        if not text.strip():
            continue
        try:
            record = None if problem else json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            yield Record(number, _unreadable(len(columns), text), problem or "bad_json")
            continue
        if n_objects < N_FIRST_RECORDS:
            seen.update(record)
            n_objects += 1
            if n_objects == N_FIRST_RECORDS:
                _require(path, columns, sorted(seen))
        found = [record.get(column, constants.get(column)) for column in columns]
        values = [_as_text(value) for value in found]
        if any(isinstance(value, dict | list) for value in found):
            yield Record(number, values, "bad_value")
        elif "\\u" in text and any(value and not _is_unicode(value) for value in values):
            values = [value and value.encode("utf-8", "replace").decode() for value in values]
            yield Record(number, values, "undecodable")
        else:
            yield Record(number, values, None)
    if n_objects:
        _require(path, columns, sorted(seen))


def _as_text(value: Any) -> str | None:
    """A JSON value as text: what a text is, and other values as JSON writes them."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)[:CLIP]


def _is_unicode(text: str) -> bool:
    """Whether a text can be stored; half of a surrogate pair, which JSON can write, cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_csv(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Record]:
    rows = _csv_rows(read_lines(path), delimiter)
    header = next((row for row in rows if row.fields != []), None)
    if header is None or header.fields is None:
        raise DataError("the file has no readable header line", where=str(path), advice=EMPTY)
    names = [name.strip() for name in header.fields]
    if len(set(names)) < len(names):
        raise DataError("two columns have the same name", where=f"{path}:{header.number}: {', '.join(names)}")
    _require(path, columns, names)
    constants = _constants(path)
    places = [names.index(column) if column in names else None for column in columns]
    shared = [None if column in names else constants[column] for column in columns]
    for row in rows:
        fields = row.fields
        if fields is not None and len(fields) == len(names):
            values = [
                constant if place is None else fields[place] for place, constant in zip(places, shared, strict=True)
            ]
            yield Record(row.number, values, row.problem)
        elif fields != [] or row.problem:  # a blank line is no record
            yield Record(row.number, _unreadable(len(columns), row.text), row.problem or "malformed_row")


class _Row(NamedTuple):
    number: int
    fields: list[str] | None
    """None where they cannot be told apart; empty for a blank line."""
    text: str
    """The first line, as it is in the file."""
    problem: str | None


class _Feed:
    """Hands lines to the csv reader and remembers those of the row at hand, so that they can be read again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self._n_chars = 0
        self.taken: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        if len(self.taken) == 1:
            return "\n" if line.problem == "line_too_long" else line.text + "\n"
        self._n_chars += len(line.text)
        if self._n_chars > MAX_LINE or line.problem == "line_too_long":
            raise StopIteration  # inside quotes this is an error of the row, as the end of the file is
        return line.text + "\n"

    def next_row(self, *, give_back: bool) -> None:
        """Begins a row: after the last line taken, or with `give_back` after the first."""
        if give_back:
            self._again.extendleft(reversed(self.taken[1:]))
        self.taken = []
        self._n_chars = 0


def _csv_rows(lines: Iterator[Line], delimiter: str) -> Iterator[_Row]:
    """Rows by RFC 4180, strictly. After a row that breaks the rules, reading goes on at the line after its first.

    So an unclosed quote costs one row, not the rest of the file: at most MAX_LINE characters are searched for its end.
    """
    csv.field_size_limit(MAX_LINE + CLIP)  # of the whole process; its default, 131,072, is too short for documents
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        fields = None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            pass  # the row's problem: fields stays None
        first = feed.taken[0]
        problems = [first] if fields is None else feed.taken
        yield _Row(first.number, fields, first.text, next((line.problem for line in problems if line.problem), None))
        feed.next_row(give_back=fields is None)


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    try:
        if not path.stat().st_size:
            raise DataError("the file is empty", where=str(path), advice=EMPTY)
        with pq.ParquetFile(path) as file:
            _require(path, columns, file.schema_arrow.names)
            own = list(dict.fromkeys(column for column in columns if column in file.schema_arrow.names))
            constants = _constants(path)
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=own):
                lists = {name: batch.column(name).cast(pa.string()).to_pylist() for name in own}
                parts = [lists[name] if name in lists else [constants[name]] * len(batch) for name in columns]
                for row in zip(*parts, strict=True):
                    number += 1
                    values = list(row)
                    if any(value and len(value) > MAX_LINE for value in values):
                        clipped = [value and value[:CLIP] for value in values]
                        yield Record(number, clipped, "line_too_long")
                    else:
                        yield Record(number, values, None)
    except pa.ArrowException as error:
        raise DataError(f"the parquet file cannot be read as text columns: {error}", where=str(path)) from error
    except OSError as error:
        raise DataError(error.strerror or f"the file cannot be read: {error}", where=str(path)) from error
