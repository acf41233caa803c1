"""Tokenizers and token ids kept in the workspace, so that texts are cut once however many runs read them.

<root>/tokens/<key>/   tokenizer.json, or arrays as .npy files, which are mapped into memory; manifest.json (digests)

All of it follows from what the key is made of: any of it may be deleted at any time, and is made again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from danlu.core.errors import CorruptError
from danlu.core.files import digest_of, explained, publish, read_json, scratch_folder, sha256_file, write_json
from danlu.data.tokenizer import load_tokenizer, save_tokenizer

__all__ = ["TokenStore"]


class TokenStore:
    """What was cut before.

    Args:
        folder: Where it is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def arrays(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Named arrays, mapped into memory and not to be written to.

        Args:
            key: Everything that they follow from.
            make: Makes them, where they are not there.

        Raises:
            DanluError: The disk is full or may not be written to.
        """
        if self.folder is None:
            return dict(make())

        def write(folder: Path) -> None:
            for name, array in make().items():
                _save(folder / f"{name}.npy", array)

        folder = self._kept(self.folder, {"arrays": dict(key)}, write)
        return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in folder.glob("*.npy")}

    def tokenizer(self, key: Mapping[str, Any], make: Callable[[], Tokenizer]) -> Tokenizer:
        """A tokenizer; arguments and errors as of :meth:`arrays`."""
        if self.folder is None:
            return make()
        folder = self._kept(
            self.folder,
            {"tokenizer": dict(key)},
            lambda folder: save_tokenizer(folder / "tokenizer.json", make()),
        )
        return load_tokenizer(folder / "tokenizer.json")

    @staticmethod
    def _kept(root: Path, key: Mapping[str, Any], write: Callable[[Path], None]) -> Path:
        """The folder of a key, filled if it is not there, or no longer what was written."""
        target = root / digest_of(key)[:32]
        if target.exists():
            if _whole(target):
                return target
            shutil.rmtree(target)
        with scratch_folder(root) as folder, explained(root):
            write(folder)
            write_json(folder / "manifest.json", {path.name: sha256_file(path) for path in folder.iterdir()})
            with contextlib.suppress(FileExistsError):  # another process was quicker
                publish(folder, target)
        return target


def _save(path: Path, array: np.ndarray) -> None:
    """As ``np.save``, which does not say why a file could not be written."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def _whole(folder: Path) -> bool:
    try:
        digests = read_json(folder / "manifest.json")
        return all(sha256_file(folder / name) == digest for name, digest in digests.items())
    except (CorruptError, FileNotFoundError):
        return False
