"""Pictures of a dataset, small enough to stand inside a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

__all__ = ["pictures_by_class", "rows_at_once", "thumbnail"]

_LONGEST = 64
"""Pixels of a thumbnail's longer side."""
_MOST_ROWS, _MOST_BYTES = 4096, 2**24


def rows_at_once(image_size: Sequence[int] | None) -> int:
    """How many records to read at a time: 4,096, or fewer where they are large pictures."""
    return _MOST_ROWS if image_size is None else max(1, min(_MOST_ROWS, _MOST_BYTES // math.prod(image_size)))


def thumbnail(pixels: bytes, image_size: Sequence[int]) -> str:
    """A picture as an address that holds it whole.

    Args:
        pixels: uint8 in the order C, Y, X.
        image_size: Channels, height and width.
    """
    channels, height, width = image_size
    planes = [
        Image.frombytes("L", (width, height), pixels[height * width * channel : height * width * (channel + 1)])
        for channel in range(channels)
    ]
    picture = planes[0] if channels == 1 else Image.merge("RGB", planes)
    picture.thumbnail((_LONGEST, _LONGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def pictures_by_class(
    path: Path, n_pictures: Mapping[str, int], image_size: Sequence[int], n_examples: int
) -> dict[str, list[str]]:
    """The first pictures of each class as thumbnails.

    Args:
        path: A split's file.
        n_pictures: How many pictures of each class it holds; reading stops when enough of each were seen.
        image_size: Channels, height and width.
        n_examples: How many of each to return.
    """
    wanted = {label: min(n, n_examples) for label, n in n_pictures.items()}
    found: dict[str, list[str]] = {label: [] for label in wanted}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows_at_once(image_size), columns=["image", "label"]):
            labels = batch.column("label").to_pylist()
            for row, label in enumerate(labels):
                if len(found.get(label, ())) < wanted.get(label, 0):
                    found[label].append(thumbnail(batch.column("image")[row].as_py(), image_size))
            if all(len(found[label]) >= n for label, n in wanted.items()):
                break
    return found
