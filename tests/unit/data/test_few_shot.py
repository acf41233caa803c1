"""A dataset with a few examples of each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from danlu.core.errors import DataError
from danlu.data.few_shot import few_shot_dataset
from danlu.data.stage import read_split
from small import make_dataset


def ids(dataset, split: str) -> list[str]:
    return read_split(dataset, split, ["id"]).column("id").to_pylist()


def test_so_many_of_each_class_and_the_whole_test_split(tmp_path: Path) -> None:
    workspace, dataset = make_dataset(tmp_path)
    few = few_shot_dataset(workspace, dataset, 5, 0)
    for split in ("train", "valid"):
        assert Counter(read_split(few, split, ["label"]).column("label").to_pylist()) == {"good": 5, "bad": 5}
        assert set(ids(few, split)) < set(ids(dataset, split))
    assert (few.path / "test.parquet").read_bytes() == (dataset.path / "test.parquet").read_bytes()
    assert few.json("summary.json")["splits"]["train"] == {"n": 10, "labels": {"bad": 5, "good": 5}}
    assert few.manifest["parents"] == {"dataset": dataset.digest}


def test_the_same_draw_is_found_again_another_is_other_and_more_shots_hold_the_fewer(tmp_path: Path) -> None:
    workspace, dataset = make_dataset(tmp_path)
    few = few_shot_dataset(workspace, dataset, 5, 0)
    assert few_shot_dataset(workspace, dataset, 5, 0).path == few.path
    assert set(ids(few_shot_dataset(workspace, dataset, 5, 1), "train")) != set(ids(few, "train"))
    assert set(ids(few, "train")) < set(ids(few_shot_dataset(workspace, dataset, 9, 0), "train"))


def test_a_class_with_too_few_records_is_named(tmp_path: Path) -> None:
    workspace, dataset = make_dataset(tmp_path)
    with pytest.raises(DataError, match=r"the class '(bad|good)' has \d+ training records, and 1000 are wanted"):
        few_shot_dataset(workspace, dataset, 1000, 0)
    assert len(list(workspace.all("dataset"))) == 1
