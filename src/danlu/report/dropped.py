"""Examples of dropped records, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

__all__ = ["Dropped", "dropped_examples"]


@dataclass(frozen=True)
class Dropped:
    """A record that was dropped."""

    source: str
    text: str
    label: str
    detail: str


def dropped_examples(path: Path, n_dropped: Mapping[str, int], n_examples: int) -> dict[str, list[Dropped]]:
    """The first records dropped for each reason.

    Args:
        path: ``dropped.parquet``.
        n_dropped: How many there are for each reason; reading stops when enough of each were seen.
        n_examples: How many of each to return.
    """
    wanted = {reason: min(n, n_examples) for reason, n in n_dropped.items()}
    found: dict[str, list[Dropped]] = {reason: [] for reason in wanted}
    with pq.ParquetFile(path) as file:
        columns = [name for name in ("source", "text", "label", "reason", "detail") if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            for row in batch.to_pylist():
                examples = found[row["reason"]]
                if len(examples) < wanted[row["reason"]]:
                    values = (row.get(name) for name in ("source", "text", "label", "detail"))
                    examples.append(Dropped(*("" if value is None else str(value) for value in values)))
            if all(len(found[reason]) >= n for reason, n in wanted.items()):
                break
    return found
