from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.stage import DataConfig, build_dataset, class_names, iterate_split, read_split
from small import made_up, make_dataset, write_csv


def build(folder, **changes):
    config = DataConfig(**{"source": "texts.csv", "split": {"valid": 0.2, "test": 0.2}} | changes)
    return build_dataset(Workspace(folder / "workspace"), "tiny", config, folder, Silent())


def test_every_record_is_in_exactly_one_file(tmp_path):
    rows = [*made_up(60), ("!!!", "good"), made_up(1)[0]]
    _, dataset = make_dataset(tmp_path, rows)
    names = ("train", "valid", "test", "dropped")
    sources = [s for name in names for s in pq.read_table(dataset.path / f"{name}.parquet")["source"].to_pylist()]
    assert sorted(sources) == sorted(f"texts.csv:{n + 2}" for n in range(62))
    assert dataset.json("summary.json")["n_read"] == 62
    assert dataset.json("summary.json")["leak"]["n_leaks"] == 0
    assert class_names(dataset) == ["bad", "good"]


def test_it_is_made_once_and_again_when_the_file_or_the_config_changes(tmp_path):
    _, first = make_dataset(tmp_path)
    assert build(tmp_path).path == first.path
    others = [build(tmp_path, clean={"dedup": "none"})]
    write_csv(tmp_path / "texts.csv", made_up(seed=2))
    others.append(build(tmp_path))
    assert len({first.digest, *(other.digest for other in others)}) == 3


def test_the_same_work_has_one_identity_wherever_it_is_done(tmp_path):
    write_csv(tmp_path / "texts.csv", made_up())
    here, there = (
        build_dataset(Workspace(tmp_path / name), "tiny", DataConfig(source="texts.csv"), tmp_path, Silent())
        for name in ("a", "b")
    )
    assert here.manifest["files"] == there.manifest["files"]
    assert here.digest == there.digest
    speeds = {step["step"]: step["seconds"] for step in here.manifest["measured"]["steps"]}
    assert [step["step"] for step in here.json("summary.json")["steps"]] == list(speeds)
    assert speeds["clean"] > 0


def test_a_damaged_dataset_is_not_used(tmp_path):
    _, dataset = make_dataset(tmp_path)
    path = dataset.path / "train.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match=r"train\.parquet was changed"):
        build(tmp_path)


def test_columns_are_read_by_name_and_a_large_split_a_few_rows_at_a_time(tmp_path):
    _, dataset = make_dataset(tmp_path)
    table = read_split(dataset, "train", ["label", "text"])
    assert table.column_names == ["label", "text"]
    batches = list(iterate_split(dataset, "train", ["text"], 50))
    assert all(len(batch) <= 50 for batch in batches)
    assert [t for batch in batches for t in batch.column("text").to_pylist()] == table["text"].to_pylist()
    with pytest.raises(DataError, match="no column 'stars'") as found:
        read_split(dataset, "train", ["stars"])
    assert "text" in str(found.value.advice)


def test_data_that_cannot_be_used_leaves_nothing_behind(tmp_path):
    write_csv(tmp_path / "texts.csv", [(text, "good") for text, _ in made_up(60)])
    with pytest.raises(DataError, match="every record left has the label 'good'"):
        build(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        build(tmp_path, source="text.csv")
    left = [path.name for path in (tmp_path / "workspace").rglob("*") if path.is_file()]
    assert left == [".scratch.lock"]


def test_records_without_labels_have_no_classes(tmp_path):
    write_csv(tmp_path / "texts.csv", made_up())
    dataset = build(tmp_path, columns={"text": "text"})
    with pytest.raises(DataError, match="no column 'label'"):
        class_names(dataset)
