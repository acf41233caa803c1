"""One model's predictions on one split, on disk: written as they come, read as compact columns.

Everything that evaluation and comparison say is computed from this file, so it can be said again later without the
model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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

__all__ = ["PredictionWriter", "Predictions", "read_predictions"]

ROW_GROUP = 8192
"""Records held before they are written."""


class PredictionWriter:
    """Writes a predictions file batch by batch; a context manager.

    Its columns: ``id`` (string), ``label`` and ``n_chars`` (int32), ``milliseconds`` (float32) and ``probabilities``
    (N float32).

    Args:
        path: The parquet file to make.
        class_names: N names, in the order of the model's outputs; kept in the file.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self.n_classes = len(class_names)
        self._schema = pa.schema(
            {
                "id": pa.string(),
                "label": pa.int32(),
                "n_chars": pa.int32(),
                "milliseconds": pa.float32(),
                "probabilities": pa.list_(pa.float32(), self.n_classes),
            },
            metadata={"class_names": json.dumps(list(class_names), ensure_ascii=False)},
        )
        self._file = pq.ParquetWriter(path, self._schema)
        self._waiting: list[pa.RecordBatch] = []

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
        columns = [
            pa.array(ids, pa.string()),
            pa.array(label_B.astype(np.int32)),
            pa.array(n_chars_B.astype(np.int32)),
            pa.array(milliseconds_B.astype(np.float32)),
            pa.FixedSizeListArray.from_arrays(flat, self.n_classes),
        ]
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        if sum(len(batch) for batch in self._waiting) >= ROW_GROUP:
            self._flush()

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

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
            self._waiting.clear()


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
    """Read a predictions file.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    if not path.is_file():
        raise UsageError("no such predictions file", where=str(path), advice="run `danlu eval` first")
    try:
        table = pq.read_table(path).combine_chunks()
        class_names = json.loads(table.schema.metadata[b"class_names"])
        if table.num_rows == 0:
            raise DataError("there is nothing to evaluate: no predictions", where=str(path))
        column = {name: table[name].chunk(0) for name in table.column_names}
        probabilities_BN = column["probabilities"].flatten().to_numpy().reshape(-1, len(class_names))
        return Predictions(
            class_names,
            column["id"],
            column["label"].to_numpy().astype(np.int64),
            probabilities_BN,
            column["n_chars"].to_numpy(),
            column["milliseconds"].to_numpy(),
        )
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"not a predictions file: {error}", where=str(path)) from error
