"""All records of a data stage while it is decided which are kept: their columns, and a reason for each that is not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.data.split import SPLITS

__all__ = ["Records", "check_names"]

_OWN = ("id", "reason", "detail")
"""Columns that danlu adds; those that begin with ``_`` are its own too."""

_Rows = NDArray[np.int64]


def check_names(names: Iterable[str]) -> None:
    """Refuses columns of the data that have names of our own.

    Raises:
        DataError: One has.
    """
    for name in names:
        if name in _OWN or name.startswith("_"):
            raise DataError(f"the data has a column {name!r}, a name kept for danlu's own", advice="rename the column")


class Records:
    """Cleaned records in the order in which they came, and what has become of each.

    Args:
        content: The column that the records are about: ``text`` or ``image``.

    Attributes:
        table: The cleaned batches, one after the other. Its columns are those that came in; ``_digest``, the SHA-256 of
            each content; and others that begin with ``_`` and are not written.
        steps: What each step has dropped, how long it took and how fast it was.
    """

    def __init__(self, content: str) -> None:
        self._content = content
        self.table = pa.table({})
        self.steps: list[dict[str, Any]] = []
        self._reasons = np.zeros(0, dtype=object)
        self._details = np.zeros(0, dtype=object)

    def fill(self, batches: list[pa.RecordBatch]) -> None:
        """Takes the cleaned batches, and the reasons that came with them."""
        table = pa.Table.from_batches(batches)
        self._reasons = np.array([reason or "" for reason in table.column("reason").to_pylist()], dtype=object)
        self._details = np.array(table.column("detail").to_pylist(), dtype=object)
        self.table = table.drop_columns(["reason", "detail"])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def has_labels(self) -> bool:
        """Whether the records have labels."""
        return "label" in self.table.schema.names

    @property
    def has_targets(self) -> bool:
        """Whether the texts have translations."""
        return "target" in self.table.schema.names

    @property
    def user_columns(self) -> list[str]:
        """The names of the columns that came in."""
        return [name for name in self.table.schema.names if not name.startswith("_")]

    @property
    def contents(self) -> pa.ChunkedArray:
        """What all records are about, null for those that had nothing."""
        return self.table.column(self._content)

    @property
    def reasons(self) -> dict[str, int]:
        """How many records were dropped for each reason."""
        return dict(Counter(reason for reason in self._reasons.tolist() if reason).most_common())

    def kept(self) -> _Rows:
        """int64: the numbers of the records still kept, ascending."""
        return np.flatnonzero(self._reasons == "")

    def is_kept(self, rows: _Rows) -> NDArray[np.bool_]:
        """bool: whether each of these records is still kept."""
        return np.asarray(self._reasons[rows] == "", dtype=bool)

    def drop(self, rows: _Rows, reason: str, details: list[str]) -> None:
        """Drops records for one reason, each with its detail."""
        self._reasons[rows] = reason
        self._details[rows] = details

    def reasons_of(self, rows: _Rows) -> list[tuple[str, str | None]]:
        """The reason and the detail of each of these records; an empty reason for those still kept."""
        return list(zip(self._reasons[rows].tolist(), self._details[rows].tolist(), strict=True))

    def sources(self, rows: _Rows) -> list[str]:
        """Where these records come from."""
        return [str(source) for source in self.table.column("source").take(pa.array(rows)).to_pylist()]

    def labels(self, rows: _Rows) -> list[str]:
        """The labels of these records."""
        return [str(label) for label in self.table.column("label").take(pa.array(rows)).to_pylist()]

    def digests(self, rows: _Rows) -> list[bytes]:
        """The SHA-256 of these records' contents."""
        return list(self.table.column("_digest").take(pa.array(rows)).to_pylist())

    def same(self, digest: str = "_digest") -> _Rows:
        """int64 [N]: the first record whose digest is the same; a record that is the first is its own."""
        codes = self.table.column(digest).combine_chunks().dictionary_encode().indices.to_numpy()
        _, first = np.unique(codes, return_index=True)
        return np.asarray(first[codes], dtype=np.int64)

    @contextmanager
    def step(self, name: str, report: Callable[[str, int], None]) -> Iterator[None]:
        """Times a step and notes what it dropped."""
        n_before, began = len(self.kept()), time.perf_counter()
        report(name, n_before)
        yield
        seconds = time.perf_counter() - began
        n_before = n_before or len(self)  # the first step reads the records
        megabytes = self.contents.nbytes / 1e6
        self.steps.append(
            {
                "step": name,
                "n_in": n_before,
                "n_out": len(self.kept()),
                "seconds": round(seconds, 3),
                "megabytes_per_second": round(megabytes / max(seconds, 1e-9), 3),
            }
        )

    def write(self, folder: Path, splits: _Rows) -> None:
        """Writes the records of each split, and the dropped ones with their reasons, in the order they came."""
        table = self.table.select(self.user_columns).add_column(0, "id", pa.array(self._ids(), pa.string()))
        kept = self.kept()
        for rank, name in enumerate(SPLITS):
            _write(table.take(pa.array(kept[splits[kept] == rank])), folder / f"{name}.parquet")
        dropped = np.flatnonzero(self._reasons != "")
        rest = table.take(pa.array(dropped))
        rest = rest.append_column("reason", pa.array(self._reasons[dropped], pa.string()))
        rest = rest.append_column("detail", pa.array(self._details[dropped], pa.string()))
        _write(rest, folder / "dropped.parquet")

    def _ids(self) -> list[str]:
        """The first 16 hexadecimal digits of each digest; repeats are numbered, kept records first."""
        seen: Counter[str] = Counter()
        ids = [""] * len(self)
        digests = self.table.column("_digest").to_pylist()
        for row in np.argsort(self._reasons != "", kind="stable").tolist():
            name = digests[row][:8].hex()
            seen[name] += 1
            ids[row] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        return ids


def _write(table: pa.Table, path: Path) -> None:
    large = [field.name for field in table.schema if field.type == pa.large_string()]
    for name in large:  # Arrow's matter while it works; a file needs no such type
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pc.cast(table.column(name), pa.string()))
    pq.write_table(table, path, compression="zstd")
