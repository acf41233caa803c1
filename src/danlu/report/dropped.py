"""Examples of dropped records, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from danlu.report.thumbnails import rows_at_once, thumbnail

__all__ = ["Dropped", "dropped_examples"]

_COLUMNS = ("source", "text", "target", "label", "detail")


@dataclass(frozen=True)
class Dropped:
    """A record that was dropped; ``image`` is an address that holds it whole. What it lacks is empty."""

    source: str
    text: str
    target: str
    label: str
    detail: str
    image: str


def dropped_examples(
    path: Path, n_dropped: Mapping[str, int], n_examples: int, image_size: Sequence[int] | None
) -> dict[str, list[Dropped]]:
    """The first records dropped for each reason.

    Args:
        path: ``dropped.parquet``.
        n_dropped: How many there are for each reason; reading stops when enough of each were seen.
        n_examples: How many of each to return.
        image_size: Channels, height and width, where the records are pictures.
    """
    wanted = {reason: min(n, n_examples) for reason, n in n_dropped.items()}
    found: dict[str, list[Dropped]] = {reason: [] for reason in wanted}
    with pq.ParquetFile(path) as file:
        columns = [name for name in (*_COLUMNS, "image", "reason") if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=rows_at_once(image_size), columns=columns):
            for row in batch.to_pylist():
                examples = found[row["reason"]]
                if len(examples) < wanted[row["reason"]]:
                    examples.append(_shown(row, image_size))
            if all(len(found[reason]) >= n for reason, n in wanted.items()):
                break
    return found


def _shown(row: Mapping[str, Any], image_size: Sequence[int] | None) -> Dropped:
    values = {name: "" if row.get(name) is None else str(row[name]) for name in _COLUMNS}
    pixels = row.get("image")
    return Dropped(**values, image=thumbnail(pixels, image_size) if pixels is not None and image_size else "")
