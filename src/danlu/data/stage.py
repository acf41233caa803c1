"""The data stage: raw sources in, one dataset artifact out.

A dataset holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` and ``dropped.parquet`` (every record is in
exactly one), and ``summary.json``: what was done, how much was dropped and why, and the proof that nothing leaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.errors import DataError
from danlu.core.files import digest_of, sha256_file, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.prepare import CleanConfig, SplitConfig, prepare
from danlu.data.samples import find_sample
from danlu.data.sources import read_source, source_files

__all__ = ["DataConfig", "Split", "build_dataset", "class_names", "iterate_split", "read_split", "require_split"]

Split = Literal["train", "valid", "test"]


class DataConfig(Config):
    """Where the records come from, and how they are cleaned and split."""

    source: str | list[str]
    """A file, a folder, a glob or a list of them, from the recipe's folder on; or ``sample:NAME``."""
    columns: Mapping[str, str] = {"text": "text", "label": "label"}
    """Role -> the column of the source that plays it."""
    clean: CleanConfig = CleanConfig()
    """What is repaired, masked and dropped."""
    split: SplitConfig = SplitConfig()
    """How the records are divided."""


def build_dataset(workspace: Workspace, name: str, config: DataConfig, base: Path, progress: Progress) -> Artifact:
    """Make a dataset, or find the one that the same sources and config made before.

    Args:
        workspace: Where the artifact goes.
        name: Its name.
        config: What to read and how to clean it.
        base: The folder that relative paths start from.
        progress: Told of every step.

    Raises:
        DataError: A source cannot be read, or what is left cannot train.
        UsageError: A source does not exist.
    """
    progress.stage(f"data: {config.source if isinstance(config.source, str) else ', '.join(config.source)}")
    parents = _source_digests(config.source, base)
    key = digest_of({"config": config.plain(), "parents": parents})
    if found := workspace.with_key("dataset", key):
        progress.note(f"{found.path.name} is there already")
        return found
    with workspace.create("dataset", name, key=key, config=config.plain(), parents=parents) as draft:
        batches = read_source(config.source, config.columns, base=base, samples=workspace.samples)
        summary = prepare(
            batches,
            config.clean,
            config.split,
            draft.folder,
            progress=lambda step, n_records: progress.update(n_records, None, step),
        )
        write_json(draft.folder / "summary.json", summary)
    return draft.artifact


def read_split(dataset: Artifact, split: Split, columns: Sequence[str]) -> pa.Table:
    """Some columns of a whole split.

    Raises:
        DataError: The dataset has no such column.
    """
    path = dataset.path / f"{split}.parquet"
    known = pq.read_schema(path).names
    if missing := [column for column in columns if column not in known]:
        raise DataError(f"the dataset has no column {missing[0]!r}", where=str(path), advice=f"it has {known}")
    return pq.read_table(path, columns=list(columns))


def iterate_split(dataset: Artifact, split: Split, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a split, a few rows at a time: a large split is never held whole."""
    with pq.ParquetFile(dataset.path / f"{split}.parquet") as file:
        yield from file.iter_batches(batch_size=batch_rows, columns=list(columns))


def require_split(dataset: Artifact, split: Split) -> None:
    """Refuse a dataset without records in a split.

    Raises:
        DataError: It has none.
    """
    if not pq.read_metadata(dataset.path / f"{split}.parquet").num_rows:
        what, key = f"the {split} split is empty", f"data.split.{split}"
        raise DataError(what, where=str(dataset.path), advice=f"set {key} above 0, then run the recipe again")


def class_names(dataset: Artifact) -> list[str]:
    """The labels of the training split, sorted: class 0, 1, ...

    Raises:
        DataError: The records have no label, or all the same.
    """
    labels = read_split(dataset, "train", ["label"]).column("label")
    names = sorted(labels.unique().to_pylist())
    if len(names) < 2:
        raise DataError(f"every training record has the label {names[0]!r}", advice="classification needs two or more")
    return names


def _source_digests(source: str | list[str], base: Path) -> dict[str, str]:
    """SHA-256 of every file that a source is made of."""
    if isinstance(source, str) and source.startswith("sample:"):
        return {archive.filename: archive.sha256 for archive in find_sample(source).archives}
    files = source_files([source] if isinstance(source, str) else source, base)
    return {str(path): sha256_file(path) for path in files}
