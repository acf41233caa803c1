"""The files of a checkpoint that hold tensors: safetensors, one or several, opened but not read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import read_json

__all__ = ["COPY_AGAIN", "INDEX", "WEIGHTS", "StoredTensor", "TensorFiles"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
COPY_AGAIN = "copy the checkpoint again from where it came from"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file that is open.

    Attributes:
        name: What it is called there.
        path: The file.
        file: Its handle.
    """

    name: str
    path: Path
    file: Any

    @property
    def shape(self) -> list[int]:
        """Its shape."""
        shape: list[int] = self.file.get_slice(self.name).get_shape()
        return shape

    @property
    def kind(self) -> str:
        """What numbers it holds: ``F32``, ``BF16``, ..."""
        kind: str = self.file.get_slice(self.name).get_dtype()
        return kind

    def read(self) -> torch.Tensor:
        """The tensor itself."""
        tensor: torch.Tensor = self.file.get_tensor(self.name)
        return tensor

    def wrong(self, what: str) -> CorruptError:
        """The error that it is not as it should be."""
        return CorruptError(f"{self.name} {what}", where=str(self.path), advice=COPY_AGAIN)


class TensorFiles(contextlib.ExitStack):
    """The tensors of a folder; a context, at whose end the files are closed.

    Args:
        folder: A checkpoint.

    Attributes:
        found: Every tensor.

    Raises:
        UsageError: There are no safetensors.
        CorruptError: A file is damaged, missing or lacks a tensor.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.found: list[StoredTensor] = []
        for path, listed in _files(folder).items():
            try:
                file = self.enter_context(safe_open(path, framework="pt"))
                names = sorted(file.keys())
            except (SafetensorError, OSError) as error:
                raise CorruptError(f"not a safetensors file: {error}", where=str(path), advice=COPY_AGAIN) from error
            if absent := sorted(listed - set(names)):
                raise CorruptError(f"{absent[0]} is missing", where=str(path), advice=COPY_AGAIN)
            self.found += [StoredTensor(name, path, file) for name in names]


def _files(folder: Path) -> dict[Path, set[str]]:
    """The files with weights, and the tensors that an index says are in each."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: set()}
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise CorruptError("the index names no tensors", where=str(folder / INDEX), advice=COPY_AGAIN)
    files: dict[Path, set[str]] = {}
    for tensor, name in places.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise CorruptError(f"{name!r} is not the name of a file beside it", where=str(folder / INDEX))
        if not (folder / name).is_file():
            raise CorruptError("the file is missing", where=str(folder / name), advice=COPY_AGAIN)
        files.setdefault(folder / name, set()).add(tensor)
    return files


def _no_weights(folder: Path) -> UsageError:
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if not pickles:
        return UsageError(f"there is no {WEIGHTS} in this folder", where=str(folder), advice=COPY_AGAIN)
    what = f"{pickles[0]} is a pickle, which danlu does not read: a pickle can run any code"
    advice = "where you trust it, load it with transformers and save_pretrained it: that writes safetensors"
    return UsageError(what, where=str(folder), advice=advice)
