"""Turns a recipe's `data.source` into pictures, one after the other: picture files, IDX files, or a named sample.

Every picture comes out, in a stable order, with where it stands, the values of its columns and, where it cannot be
read, the reason. Columns of a picture:

    folder   the name of the folder that its file is in
    file     the file's name without suffixes
    label    of an IDX file: the number in the file of labels beside it
    split    `train`, `valid` or `test`, as one of its folders or, of an IDX file, its name says: `t10k` is the test;
             none where nothing says so, or two things say different ones
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from danlu.core.errors import DataError, nearest
from danlu.core.files import digest_of, sha256_file
from danlu.data.idx import is_idx, is_labels, labels_beside, read_idx
from danlu.data.images import SUFFIXES, Pixels, read_image
from danlu.data.paths import find_files
from danlu.data.samples import find_sample, sample_folder

__all__ = ["Picture", "digest_pictures", "read_pictures"]

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
"""What people call the splits."""


_KNOWN = f"{', '.join(SUFFIXES)} pictures, and pairs of IDX files such as train-images-idx3-ubyte"


class Picture(NamedTuple):
    """One picture of a source."""

    source: str
    """The file; of an IDX file also its place there, counted from 1."""
    values: tuple[str | None, ...]
    """In the order of the wanted columns."""
    pixels: Pixels | None
    """uint8 [C, Y, X]; None where it cannot be read."""
    problem: str | None
    """Why it cannot be read."""


def read_pictures(spec: str | Sequence[str], columns: Sequence[str], *, base: Path, samples: Path) -> Iterator[Picture]:
    """The pictures of a source.

    Args:
        spec: A path, a glob, a folder, a list of these, or `sample:NAME`. Paths are relative to `base`.
        columns: The wanted columns besides the picture itself.
        base: The recipe's folder.
        samples: The cache of fetched samples.

    Raises:
        UsageError: No picture or sample is there under this name.
        DataError: A picture has not these columns, an IDX file cannot be read, or the sample is not fetched yet.
    """
    specs = [spec] if isinstance(spec, str) else list(spec)
    if isinstance(spec, str) and spec.startswith("sample:"):
        specs, base = [str(sample_folder(find_sample(spec).name, samples))], samples
    for path in _picture_files(specs, base):
        if not is_idx(path):
            yield _read_file(path, _name(path, base), columns)
        elif not is_labels(path):
            yield from _read_idx(path, _name(path, base), columns)


def _picture_files(specs: Sequence[str], base: Path) -> list[Path]:
    """The files that paths, folders and globs stand for, those of labels beside IDX files of pictures among them.

    Raises:
        UsageError: One stands for nothing, or for a file of an unknown format.
    """
    found = find_files(specs, base, lambda path: is_idx(path) or path.suffix.lower() in SUFFIXES, _KNOWN)
    labels = [labels_beside(path) for path in found if is_idx(path)]
    return list(dict.fromkeys([*found, *(path for path in labels if path.is_file())]))


def digest_pictures(specs: Sequence[str], base: Path) -> dict[str, str]:
    """For each part of a source one digest, of the names and contents of all its files."""
    return {
        spec: digest_of({_name(path, base): sha256_file(path) for path in _picture_files([spec], base)})
        for spec in specs
    }


def _name(path: Path, base: Path) -> str:
    """A file as it is called in a dataset: from the recipe's folder on, elsewhere by its last two folders."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else "/".join(path.parts[-3:])


def _values(values: dict[str, str | None], columns: Sequence[str], path: Path) -> tuple[str | None, ...]:
    for column in columns:
        if column not in values:
            what = f"no column is called {column!r}; the picture has {', '.join(sorted(values))}"
            advice = nearest(column, values) if column != "label" else "the name of its folder: label: folder"
            raise DataError(what, where=str(path), advice=advice)
    return tuple(values[column] for column in columns)


def _constants(path: Path, words: Sequence[str]) -> dict[str, str | None]:
    """The columns that every picture of a file shares; ``words`` are those that may name a split."""
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    split = splits.pop() if len(splits) == 1 else None
    return {"file": path.name.split(".")[0], "folder": path.parent.name, "split": split}


def _read_file(path: Path, name: str, columns: Sequence[str]) -> Picture:
    values = _values(_constants(path, name.lower().split("/")[:-1]), columns, path)
    try:
        return Picture(name, values, read_image(path), None)
    except DataError as error:
        return Picture(name, values, None, error.what)


def _read_idx(path: Path, name: str, columns: Sequence[str]) -> Iterator[Picture]:
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError("the file holds labels, not pictures", where=str(path), advice="have labels in its name")
    constants = _constants(path, name.lower().replace("/", "-").split("-"))
    labels = _labels(path, len(images)) if "label" in columns else None
    for number, pixels in enumerate(images):
        own = constants if labels is None else constants | {"label": labels[number]}
        yield Picture(f"{name}:{number + 1}", _values(own, columns, path), pixels[None], None)


def _labels(path: Path, n_images: int) -> list[str]:
    """The labels of the pictures of an IDX file."""
    beside = labels_beside(path)
    if beside == path or not beside.is_file():
        advice = "name the files ...images-idx3-ubyte and ...labels-idx1-ubyte and keep them in one folder"
        raise DataError("there are no labels beside the pictures", where=str(path), advice=advice)
    labels = read_idx(beside)
    if labels.shape != (n_images,):
        what = f"{len(labels):,} labels do not fit {n_images:,} pictures"
        raise DataError(what, where=str(beside), advice="take both files from the same place")
    return [str(label) for label in labels.tolist()]
