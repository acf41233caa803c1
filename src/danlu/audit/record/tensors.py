"""One digest of a model's tensors that depends neither on their names nor on the files that they lie in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from danlu.core.errors import CorruptError
from danlu.core.merkle import merkle_root

__all__ = ["tensor_digests", "tensor_root"]

_PIECE = 1 << 24
"""Bytes of a tensor that are held at a time."""
_LONGEST_HEADER = 100_000_000
"""Bytes, as the format's own reader allows."""


def tensor_root(folder: Path) -> tuple[str, int]:
    """The Merkle root over all tensors of a folder's safetensors files, in the order of their digests.

    Returns:
        The root in hexadecimal, and how many tensors there are.

    Raises:
        CorruptError: A file is no safetensors file.
    """
    digests = sorted(digest for path in sorted(folder.rglob("*.safetensors")) for digest in tensor_digests(path))
    return merkle_root(digests), len(digests)


def tensor_digests(path: Path) -> Iterator[bytes]:
    """SHA-256 of every tensor of a safetensors file: of its precision, its shape and its bytes, not of its name.

    The file is read piece by piece, whatever its size.

    Raises:
        CorruptError: It is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            yield from _digests(file)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(f"not a safetensors file: {error}", where=str(path)) from error


def _digests(file: IO[bytes]) -> Iterator[bytes]:
    n_bytes = int.from_bytes(file.read(8), "little")
    if n_bytes > _LONGEST_HEADER:
        raise ValueError(f"a header of {n_bytes} bytes")
    header: dict[str, Any] = json.loads(file.read(n_bytes))
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = about["data_offsets"]
        shape = ",".join(str(int(side)) for side in about["shape"])
        digest = hashlib.sha256(f"{about['dtype']};{shape};".encode())
        file.seek(8 + n_bytes + begin)
        left = end - begin
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise ValueError(f"{name} is cut short")
            digest.update(piece)
            left -= len(piece)
        yield digest.digest()
