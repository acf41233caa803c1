"""Reads IDX files, the format of MNIST: a header of sizes, then the numbers one after the other.

A header is two zero bytes, the type of the numbers, how many dimensions there are, and the size of each as a big-endian
32-bit number. Here: unsigned bytes in three dimensions (pictures, height, width), or in one (labels).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from danlu.core.errors import DataError

__all__ = ["is_idx", "is_labels", "labels_beside", "read_idx"]

_UNSIGNED_BYTE = 0x08


def is_idx(path: Path) -> bool:
    """Whether a file is an IDX file by its name: `train-images-idx3-ubyte`, `images.idx3-ubyte.gz`, `labels.idx`."""
    return any(part.startswith("idx") for part in path.name.lower().replace("-", ".").split(".")[1:])


def is_labels(path: Path) -> bool:
    """Whether an IDX file holds labels by its name."""
    return "labels" in path.name


def labels_beside(images: Path) -> Path:
    """Where the labels of a file of pictures are: in the file whose name has `labels` for `images`."""
    return images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The numbers of one file.

    Args:
        path: The file; `.gz` is read decompressed.

    Returns:
        uint8 ``[n, Y, X]`` of pictures, ``[n]`` of labels.

    Raises:
        DataError: It cannot be read, is cut short, or holds something else.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or f"the compressed file is broken or cut short: {error}"
        raise DataError(what, where=str(path)) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE or data[3] not in (1, 3):
        what = f"no IDX file of pictures or labels: it begins with {data[:4].hex(' ') or 'nothing'}"
        advice = "pictures of bytes begin with 00 00 08 03, labels with 00 00 08 01"
        raise DataError(what, where=str(path), advice=advice)
    n_dimensions = data[3]
    begin = 4 + 4 * n_dimensions
    sizes = struct.unpack(f">{n_dimensions}I", data[4:begin]) if len(data) >= begin else ()
    if not sizes or len(data) - begin != math.prod(sizes):
        says = f"its header says {' x '.join(map(str, sizes))}" if sizes else "its header is cut short"
        raise DataError(f"{says}, and {max(len(data) - begin, 0):,} bytes follow", where=str(path))
    return np.frombuffer(data, np.uint8, offset=begin).reshape(sizes)
