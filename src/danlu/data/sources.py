"""Turns a recipe's `data.source` into Arrow record batches, one after the other, in bounded memory.

A source is a file, a folder, a glob or a list of these, or a named sample. Every record comes out, in a stable order,
with where it stands and, if something is wrong with it, the problem, so that later steps can count what they drop and
show it: `missing_value` where a wanted value is absent, null or white space, and those of `danlu.data.formats`.

Labels without a column: every record of a file also has the columns `file` (the file's name without suffixes) and
`folder`. So `columns: {text: text, label: file}` reads `pos.txt` and `neg.txt`, and `{text: text, label: folder}`
reads `pos/1.txt`, `neg/7.txt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from danlu.core.errors import DataError, UsageError, nearest
from danlu.data.formats import SUFFIXES, format_of, read_records
from danlu.data.paths import find_files
from danlu.data.samples import find_sample, sample_folder

__all__ = ["read_source", "source_files"]

MAX_BATCH_CHARS = 1 << 24
"""A batch of long records is cut here, so that its size does not follow the number of rows alone."""

Row = tuple[str, Sequence[str | None], str | None]
"""Where it stands, its values in the order of the roles, its problem."""


def read_source(
    spec: str | Sequence[str], columns: Mapping[str, str], *, base: Path, samples: Path, batch_rows: int = 8192
) -> Iterator[pa.RecordBatch]:
    """The records of a source.

    Args:
        spec: A path, a glob, a folder, a list of these, or `sample:NAME`. Paths are relative to `base`.
        columns: Role -> column of the file, such as `{"text": "review", "label": "stars"}`. The role `text` (where
            there is none, the first) keeps what can be read of a broken record.
        base: The recipe's folder.
        samples: The cache of fetched samples.
        batch_rows: The most records of a batch.

    Yields:
        Batches of string columns: `source` (`reviews.csv:12`, the line or row counted from 1), one a role with `text`
        first, and `problem` (null where the record is fine).

    Raises:
        UsageError: No file or sample is there under this name, or its format is not known.
        DataError: A file is empty, cannot be read, or has not these columns; or the sample is not fetched yet.
    """
    if not columns:
        raise UsageError("no column is named", where="data.columns", advice="for example columns: {text: text}")
    if "text" in columns:
        columns = {"text": columns["text"], **columns}
    if isinstance(spec, str) and spec.startswith("sample:"):
        rows = _sample_rows(spec, columns, samples)
    else:
        files = source_files([spec] if isinstance(spec, str) else spec, base)
        rows = chain.from_iterable(_file_rows(path, columns, base) for path in files)
    return _batches(rows, list(columns), batch_rows)


def source_files(specs: Sequence[str], base: Path) -> list[Path]:
    """The files of records that paths, folders and globs stand for; see :func:`find_files`."""
    known = f"{', '.join('.' + suffix for suffix in SUFFIXES)}, and .gz, .zst of the text ones"
    return find_files(specs, base, lambda path: format_of(path) is not None, known)


def _file_rows(path: Path, columns: Mapping[str, str], base: Path) -> Iterator[Row]:
    name = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
    n_records = 0
    for number, values, problem in read_records(path, list(columns.values())):
        n_records += 1
        yield f"{name}:{number}", values, problem
    if not n_records:
        raise DataError("the file holds no record", where=str(path), advice="fill it or leave it out of data.source")


def _sample_rows(spec: str, columns: Mapping[str, str], samples: Path) -> Iterator[Row]:
    sample = find_sample(spec)
    if sample.read is None:
        advice = "danlu reads no text from it; name another, or, of pictures, columns: {image: image, label: label}"
        raise UsageError(f"the sample {sample.name} is files, not records", where="data.source", advice=advice)
    for column in columns.values():
        if column not in sample.columns:
            what = f"no column is called {column!r}; the sample has {', '.join(sample.columns)}"
            raise DataError(what, where=sample.name, advice=nearest(column, sample.columns))
    places = [sample.columns.index(column) for column in columns.values()]
    for where, record in sample.read(sample_folder(sample.name, samples)):
        yield f"{sample.name}/{where}", [record[place] for place in places], None


def _batches(rows: Iterable[Row], roles: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([(name, pa.string()) for name in ("source", *roles, "problem")])
    batch: list[tuple[str | None, ...]] = []
    n_chars = 0
    for where, values, problem in rows:
        batch.append((where, *values, problem))
        for value in values:
            if value:
                n_chars += len(value)
        if len(batch) == batch_rows or n_chars > MAX_BATCH_CHARS:
            yield _batch(batch, schema)
            batch = []
            n_chars = 0
    if batch:
        yield _batch(batch, schema)


def _batch(rows: list[tuple[str | None, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """One batch; a record that is fine so far and lacks a value, or has white space for one, gets its problem."""
    source, *values, problem = (pa.array(column, pa.string()) for column in zip(*rows, strict=True))
    for value in values:
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(value), ""), fill_value=True)
        problem = pc.if_else(pc.and_(blank, pc.is_null(problem)), "missing_value", problem)
    return pa.RecordBatch.from_arrays([source, *values, problem], schema=schema)
