"""The data stage: raw sources in, one dataset artifact out.

A dataset holds ``train.parquet``, ``valid.parquet``, ``test.parquet`` and ``dropped.parquet`` (every record is in
exactly one), and ``summary.json``: what was done, how much was dropped and why, and the proof that nothing leaks. Its
records are texts, texts with a translation (``target``), or pictures (``image``); each may have a ``label``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import model_validator

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.errors import DataError, UsageError
from danlu.core.files import digest_of, sha256_file, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.clean import ROLES, CleanConfig
from danlu.data.engine import LOCAL, Engine, EngineName
from danlu.data.image_sources import digest_pictures, read_pictures
from danlu.data.prepare import prepare
from danlu.data.prepare_images import prepare_images
from danlu.data.samples import find_sample
from danlu.data.sources import read_source, source_files
from danlu.data.split import SplitConfig
from danlu.data.summary import take_speeds

__all__ = [
    "DataConfig",
    "Split",
    "build_dataset",
    "class_names",
    "image_size",
    "iterate_split",
    "read_images",
    "read_split",
    "require_split",
]

Split = Literal["train", "valid", "test"]


class DataConfig(Config):
    """Where the records come from, and how they are cleaned and split."""

    source: str | list[str]
    """A file, a folder, a glob or a list of them, from the recipe's folder on; or ``sample:NAME``."""
    columns: Mapping[str, str] = {"text": "text", "label": "label"}
    """Role -> the column of the source that plays it: ``text`` (with or without a ``target``) or ``image``, ``label``,
    and any more to be kept."""
    clean: CleanConfig = CleanConfig()
    """What is repaired, masked and dropped."""
    split: SplitConfig = SplitConfig()
    """How the records are divided."""

    @model_validator(mode="after")
    def _clean_fits_the_columns(self) -> DataConfig:
        if ("text" in self.columns) == ("image" in self.columns):
            raise ValueError("columns must name either a text or an image")
        if self.columns.get("image", "image") != "image":
            raise ValueError("a picture is no column of its source: write image: image")
        for name, role in ROLES.items():
            if role not in self.columns and getattr(self.clean, name) != CleanConfig.model_fields[name].default:
                raise ValueError(f"clean.{name} is for a column {role}, and columns names none")
        return self

    @property
    def wanted(self) -> dict[str, str]:
        """The columns to be read: those that were named, and the one that gives the splits."""
        given = self.split.column
        return {**self.columns} if given is None else {**self.columns, given: self.columns.get(given, given)}


def build_dataset(
    workspace: Workspace, name: str, config: DataConfig, base: Path, progress: Progress, engine: EngineName = "local"
) -> Artifact:
    """Make a dataset, or find the one that the same sources and config made before.

    Args:
        workspace: Where the artifact goes.
        name: Its name.
        config: What to read and how to clean it.
        base: The folder that relative paths start from.
        progress: Told of every step.
        engine: Where the work that goes record by record is done; the dataset is the same.

    Raises:
        DanluError: Ray cannot be started or reached, or fails at work.
        DataError: A source cannot be read, or what is left cannot train.
        UsageError: A source does not exist, the package ray is not installed, or it is asked to prepare pictures.
    """
    if engine != "local" and "image" in config.columns:
        what = "pictures are prepared by this process alone"
        raise UsageError(what, where="--engine", advice=f"leave out --engine {engine}")
    progress.stage(f"data: {config.source if isinstance(config.source, str) else ', '.join(config.source)}")
    parents = _source_digests(config, base)
    key = digest_of({"config": config.plain(), "parents": parents})
    if found := workspace.with_key("dataset", key):
        progress.note(f"{found.path.name} is there already")
        return found
    with workspace.create("dataset", name, key=key, config=config.plain(), parents=parents) as draft:
        if "image" in config.columns:
            summary = _make_images(config, draft.folder, base, workspace.samples, progress)
        else:
            with _opened(engine, progress) as opened:
                summary = _make_texts(config, draft.folder, base, workspace.samples, progress, opened)
        draft.measured["steps"] = take_speeds(summary)
        write_json(draft.folder / "summary.json", summary)
    return draft.artifact


@contextmanager
def _opened(name: EngineName, progress: Progress) -> Iterator[Engine]:
    if name == "local":
        yield LOCAL
        return
    from danlu.data.ray_engine import open_ray

    with open_ray(progress) as engine:
        yield engine


def _make_texts(
    config: DataConfig, folder: Path, base: Path, samples: Path, progress: Progress, engine: Engine
) -> dict[str, Any]:
    return prepare(
        read_source(config.source, config.wanted, base=base, samples=samples),
        config.clean,
        config.split,
        folder,
        engine=engine,
        progress=lambda step, n_records: progress.update(n_records, None, step),
    )


def _make_images(config: DataConfig, folder: Path, base: Path, samples: Path, progress: Progress) -> dict[str, Any]:
    columns = {role: column for role, column in config.wanted.items() if role != "image"}
    return prepare_images(
        read_pictures(config.source, list(columns.values()), base=base, samples=samples),
        list(columns),
        config.clean,
        config.split,
        folder,
        progress=lambda step, n_pictures: progress.update(n_pictures, None, step),
    )


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


def read_images(dataset: Artifact, split: Split) -> tuple[np.ndarray, list[str]]:
    """The pictures of a whole split and the names of their classes.

    Returns:
        uint8 ``[n, C, Y, X]``, and n labels.

    Raises:
        DataError: The dataset has no pictures, or they have no label.
    """
    table = read_split(dataset, split, ["image", "label"])
    shape = image_size(dataset)
    n_bytes = math.prod(shape)
    parts = [np.empty(0, np.uint8)]
    for chunk in table.column("image").chunks:
        parts.append(np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * n_bytes, chunk.offset * n_bytes))
    return np.concatenate(parts).reshape(-1, *shape), table.column("label").to_pylist()


def image_size(dataset: Artifact) -> tuple[int, int, int]:
    """Channels, height and width of every picture of a dataset."""
    channels, height, width = dataset.json("summary.json")["image_size"]
    return channels, height, width


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


def _source_digests(config: DataConfig, base: Path) -> dict[str, str]:
    """SHA-256 of what a source is made of: its files one by one, or a folder of pictures as a whole."""
    if isinstance(config.source, str) and config.source.startswith("sample:"):
        return {archive.filename: archive.sha256 for archive in find_sample(config.source).archives}
    specs = [config.source] if isinstance(config.source, str) else config.source
    if "image" in config.columns:
        return digest_pictures(specs, base)
    return {str(path): sha256_file(path) for path in source_files(specs, base)}
