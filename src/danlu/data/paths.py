"""Which files a recipe's `data.source` stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from danlu.core.errors import UsageError, nearest

__all__ = ["find_files"]


def find_files(specs: Sequence[str], base: Path, reads: Callable[[Path], bool], known: str) -> list[Path]:
    """The files that paths, folders and globs stand for: each once, in the order given, sorted within each.

    Args:
        specs: Paths, folders and globs, relative to `base`.
        base: The recipe's folder.
        reads: Whether a file is of a format that is wanted; in a folder all others are passed over.
        known: What these formats are, for the error.

    Raises:
        UsageError: One stands for nothing, or for a file of an unknown format.
    """
    files: dict[Path, None] = {}
    for spec in specs:
        path = base / Path(spec).expanduser()
        if path.is_dir():
            found = sorted(inner for inner in path.rglob("*") if inner.is_file() and reads(inner))
            if not found:
                advice = f"it may hold {known}"
                raise UsageError("the folder holds no file that danlu reads", where=str(path), advice=advice)
        elif path.exists():
            found = [path]
        else:
            found = _globbed(spec, path)
        for file in found:
            if not reads(file):
                advice = f"known: {known}"
                raise UsageError("the format is not known by the file's name", where=str(file), advice=advice)
            files[file] = None
    return list(files)


def _globbed(spec: str, path: Path) -> list[Path]:
    """The files of a glob, or why there are none."""
    if any(mark in spec for mark in "*?["):
        anchor = Path(path.anchor)
        found = sorted(inner for inner in anchor.glob(str(path.relative_to(anchor))) if inner.is_file())
        if not found:
            raise UsageError("no file matches", where=str(path), advice="paths are relative to the recipe's folder")
        return found
    beside = [inner.name for inner in path.parent.iterdir()] if path.parent.is_dir() else []
    advice = nearest(path.name, beside) if 0 < len(beside) <= 50 else "paths are relative to the recipe's folder"
    raise UsageError("there is no such file or folder", where=str(path), advice=advice)
