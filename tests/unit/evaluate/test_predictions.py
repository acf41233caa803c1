from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.evaluate import predictions as module
from danlu.evaluate.predictions import PredictionWriter, read_predictions


def batch(rng, start, n, n_classes=3):
    p_BN = rng.dirichlet(np.ones(n_classes), n)
    ids = [f"r{start + i}" for i in range(n)]
    return ids, rng.integers(n_classes, size=n), p_BN, rng.integers(1, 99, size=n), rng.random(n)


def test_what_is_written_in_batches_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP", 16)
    rng, batches = np.random.default_rng(0), []
    with PredictionWriter(tmp_path / "p.parquet", ["差", "中", "好"]) as writer:
        for start in range(0, 50, 5):
            batches.append(batch(rng, start, 5))
            writer.write(*batches[-1])
            assert sum(len(waiting) for waiting in writer._waiting) < 16
    assert pq.ParquetFile(tmp_path / "p.parquet").num_row_groups == 3
    found = read_predictions(tmp_path / "p.parquet")
    assert found.class_names == ["差", "中", "好"]
    assert found.ids.to_pylist() == [f"r{i}" for i in range(50)]
    np.testing.assert_array_equal(found.label_B, np.concatenate([b[1] for b in batches]))
    p_BN = np.concatenate([b[2] for b in batches]).astype(np.float32)
    np.testing.assert_array_equal(found.probabilities_BN, p_BN)
    np.testing.assert_array_equal(found.predicted, p_BN.argmax(1))
    np.testing.assert_array_equal(found.confidence, p_BN.max(1))
    taken = found.take(np.array([7, 3]))
    assert taken.examples(np.array([1]))[0] == found.examples(np.array([3]))[0]
    assert taken.examples(np.array([1]))[0]["id"] == "r3"


@pytest.mark.parametrize(
    ("row", "label", "message"),
    [
        ([0.5, 0.5], 2, "no class for"),
        ([0.5, 0.5], -1, "no class for"),
        ([np.nan, 0.5], 0, "not probabilities"),
        ([3.0, -2.0], 0, "not probabilities"),
        ([0.2, 0.2], 0, "not probabilities"),
    ],
)
def test_bad_batches_are_refused_with_the_record(tmp_path, row, label, message):
    p_BN = np.array([[0.5, 0.5], row])
    with PredictionWriter(tmp_path / "p.parquet", ["a", "b"]) as writer, pytest.raises(DataError, match=message) as e:
        writer.write(["ok", "bad"], np.array([0, label]), p_BN, np.ones(2, int), np.ones(2))
    assert e.value.where == "record bad"


def test_files_that_are_no_predictions(tmp_path):
    with pytest.raises(UsageError, match="no such"):
        read_predictions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(CorruptError):
        read_predictions(tmp_path / "text.parquet")
    PredictionWriter(tmp_path / "empty.parquet", ["a", "b"]).close()
    with pytest.raises(DataError, match="nothing to evaluate"):
        read_predictions(tmp_path / "empty.parquet")
    with PredictionWriter(tmp_path / "p.parquet", ["a", "b"]) as writer:
        writer.write(["x"], np.array([0]), np.array([[0.5, 0.5]]), np.ones(1, int), np.ones(1))
    other = pq.read_table(tmp_path / "p.parquet").replace_schema_metadata({})
    pq.write_table(other, tmp_path / "other.parquet")
    with pytest.raises(CorruptError):
        read_predictions(tmp_path / "other.parquet")
