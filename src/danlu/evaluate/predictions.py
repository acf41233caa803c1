"""One model's predictions on one split, on disk: written as they come, read as compact columns.

Everything that evaluation and comparison say is computed from this file, so it can be said again later without the
model. How the file is written and read is the same for every task; the columns of classifiers are here too, those of
language models and translation stand with their metrics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.evaluate.metrics import Ints

__all__ = [
    "PredictionWriter",
    "Predictions",
    "RowWriter",
    "columns_of",
    "latency",
    "open_predictions",
    "read_predictions",
]

ROW_GROUP = 8192
"""Records held before they are written."""


class RowWriter:
    """Writes a parquet file batch by batch; a context manager, base of every task's writer.

    Args:
        path: The file to make.
        schema: Its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = pq.ParquetWriter(path, schema)
        self._waiting: list[pa.RecordBatch] = []

    def close(self) -> None:
        """Write what is left and end the file."""
        self._flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, *columns: Any) -> None:
        """Add a batch: sequences or arrays, in the order of the schema, each as its type there."""
        arrays = [pa.array(column, kind) for column, kind in zip(columns, self._schema.types, strict=True)]
        self._waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if sum(len(batch) for batch in self._waiting) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
            self._waiting.clear()


class PredictionWriter(RowWriter):
    """Writes a classifier's predictions.

    The columns: ``id`` (string), ``label`` and ``n_chars`` (int32), ``milliseconds`` (float32) and ``probabilities``
    (N float32).

    Args:
        path: The parquet file to make.
        class_names: N names, in the order of the model's outputs; kept in the file.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.n_classes = len(class_names)
        columns = {
            "id": pa.string(),
            "label": pa.int32(),
            "n_chars": pa.int32(),
            "milliseconds": pa.float32(),
            "probabilities": pa.list_(pa.float32(), self.n_classes),
        }
        names = json.dumps(list(class_names), ensure_ascii=False)
        super().__init__(path, pa.schema(columns, metadata={"class_names": names}))

    def write(
        self,
        ids: Sequence[str],
        label_B: NDArray[np.integer],
        probabilities_BN: NDArray[np.floating],
        n_chars_B: NDArray[np.integer],
        milliseconds_B: NDArray[np.floating],
    ) -> None:
        """Add a batch.

        Args:
            ids: B record ids, unique within the split.
            label_B: Class indices, 0 to N - 1.
            probabilities_BN: Softmax outputs; kept as float32.
            n_chars_B: Length of each text in characters.
            milliseconds_B: Time spent on each text.

        Raises:
            DataError: A label is not one of the model's classes, or a probability is not a number from 0 to 1.
        """
        if probabilities_BN.shape != (len(ids), self.n_classes):
            raise ValueError(f"probabilities of shape {probabilities_BN.shape}, not ({len(ids)}, {self.n_classes})")
        unknown = (label_B < 0) | (label_B >= self.n_classes)
        if unknown.any():
            raise DataError(
                "a record has a label that the model has no class for",
                where=f"record {ids[int(unknown.argmax())]}",
                advice="train on data with all labels, or leave these records out of the split",
            )
        # Written so that NaN is refused too.
        off = ~((probabilities_BN >= 0) & (probabilities_BN <= 1 + 1e-5)).all(1)
        off |= ~(np.abs(probabilities_BN.sum(1) - 1) < 1e-3)
        if off.any():
            raise DataError(
                "the model's outputs are not probabilities",
                where=f"record {ids[int(off.argmax())]}",
                advice="its training has probably diverged: look at the loss, and train with a lower learning rate",
            )
        flat = pa.array(probabilities_BN.astype(np.float32).ravel())
        rows = pa.FixedSizeListArray.from_arrays(flat, self.n_classes)
        self._add(ids, label_B, n_chars_B, milliseconds_B, rows)


@dataclass(frozen=True)
class Predictions:
    """The columns of a predictions file: 32 + 4 N bytes a record, and its id.

    Attributes:
        class_names: N names.
        ids: Record ids.
        label_B: Class indices (int64).
        probabilities_BN: float32.
        n_chars_B: Characters (int32).
        milliseconds_B: float32.
    """

    class_names: list[str]
    ids: pa.Array
    label_B: Ints
    probabilities_BN: NDArray[np.float32]
    n_chars_B: NDArray[np.int32]
    milliseconds_B: NDArray[np.float32]

    @property
    def n_classes(self) -> int:
        """N."""
        return len(self.class_names)

    @cached_property
    def predicted(self) -> Ints:
        """The likeliest class (B,); of equally likely ones, the first."""
        predicted_B: Ints = self.probabilities_BN.argmax(1)
        return predicted_B

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the predicted class (B,)."""
        confidence_B: NDArray[np.float32] = self.probabilities_BN.max(1)
        return confidence_B

    def take(self, row_B: Ints) -> Predictions:
        """These records, in this order."""
        return Predictions(
            self.class_names,
            self.ids.take(pa.array(row_B)),
            self.label_B[row_B],
            self.probabilities_BN[row_B],
            self.n_chars_B[row_B],
            self.milliseconds_B[row_B],
        )

    def examples(self, rows: Ints) -> list[dict[str, Any]]:
        """Records as plain JSON, to be looked at."""
        return [
            {
                "id": self.ids[row].as_py(),
                "label": self.class_names[self.label_B[row]],
                "predicted": self.class_names[self.predicted[row]],
                "confidence": float(self.confidence[row]),
                "n_chars": int(self.n_chars_B[row]),
                "milliseconds": float(self.milliseconds_B[row]),
            }
            for row in rows.tolist()
        ]


def read_predictions(path: Path) -> Predictions:
    """Read a classifier's predictions file.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    with open_predictions(path) as table:
        class_names = json.loads(table.schema.metadata[b"class_names"])
        column = columns_of(table, ("id", "label", "probabilities", "n_chars", "milliseconds"))
        found = Predictions(
            class_names,
            column["id"],
            column["label"].to_numpy().astype(np.int64),
            column["probabilities"].flatten().to_numpy().reshape(-1, len(class_names)),
            column["n_chars"].to_numpy(),
            column["milliseconds"].to_numpy(),
        )
    return found


@contextmanager
def open_predictions(path: Path) -> Iterator[pa.Table]:
    """The table of a predictions file; whatever its reader stumbles over in it is told as damage to the file.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    if not path.is_file():
        raise UsageError("no such predictions file", where=str(path), advice="run `danlu eval` first")
    try:
        table = pq.read_table(path).combine_chunks()
        if table.num_rows == 0:
            raise DataError("there is nothing to evaluate: no predictions", where=str(path))
        yield table
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"not a predictions file: {error}", where=str(path)) from error


def columns_of(table: pa.Table, names: Sequence[str]) -> dict[str, pa.Array]:
    """Columns of a table in one piece each; a KeyError where one is missing, a ValueError where a value is."""
    columns = {name: table[name].chunk(0) for name in names}
    if empty := [name for name, column in columns.items() if column.null_count]:
        raise ValueError(f"the column {empty[0]} has empty places")
    return columns


def latency(milliseconds_B: NDArray[np.floating]) -> dict[str, float]:
    """The milliseconds a record: ``mean``, ``p50``, ``p90``, ``p99`` and ``max``."""
    taken_B = milliseconds_B.astype(np.float64)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        "mean": float(taken_B.mean()),
        **{name: float(np.quantile(taken_B, share)) for name, share in shares.items()},
    }
