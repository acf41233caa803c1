from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig
from danlu.data.image_sources import Picture
from danlu.data.prepare_images import prepare_images
from danlu.data.split import SplitConfig

NAMES = ("train", "valid", "test", "dropped")
SPLIT = SplitConfig(valid=0.2, test=0.2)
NONE = SplitConfig(valid=0, test=0)


def distinct(n: int, shape: tuple[int, int, int] = (1, 3, 4)) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(n)]


def pictures(images: list[np.ndarray | None], *columns: list[str | None]) -> list[Picture]:
    values = list(zip(*columns, strict=True)) if columns else [()] * len(images)
    return [
        Picture(f"f:{i + 1}", values[i], image, "cut short" if image is None else None)
        for i, image in enumerate(images)
    ]


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in NAMES}


def reasons(folder: Path) -> dict[str, str]:
    return {row["source"]: f"{row['reason']}: {row['detail']}" for row in read(folder)["dropped"]}


def test_every_picture_is_in_one_file_as_it_was(tmp_path: Path) -> None:
    images = distinct(60)
    labels: list[str | None] = [str(i % 3) for i in range(60)]
    summary = prepare_images(pictures(images, labels), ["label"], CleanConfig(), SPLIT, tmp_path)
    files = read(tmp_path)
    every = {row["source"]: row for name in NAMES for row in files[name]}
    assert len(every) == 60
    for i, image in enumerate(images):
        row = every[f"f:{i + 1}"]
        assert row["image"] == image.tobytes()
        assert row["label"] == str(i % 3)
        assert row["id"] == hashlib.sha256(image.tobytes()).hexdigest()[:16]
    assert pq.read_schema(tmp_path / "train.parquet").names == ["id", "source", "image", "label"]
    assert {pq.read_schema(tmp_path / f"{name}.parquet").field("image").type for name in NAMES} == {pa.binary(12)}
    assert summary["image_size"] == [1, 3, 4]
    assert (summary["n_read"], summary["n_kept"], summary["dropped"]) == (60, 60, {})
    for name in NAMES[:3]:
        assert summary["splits"][name]["n"] == len(files[name]) > 0
        assert summary["splits"][name]["labels"] == Counter(row["label"] for row in files[name])
    assert summary["leak"]["n_leaks"] == 0
    steps = ["clean", "label_conflicts", "exact_duplicates", "split", "leak_check", "write"]
    assert [step["step"] for step in summary["steps"]] == steps
    assert json.loads(json.dumps(summary)) == summary


def test_a_split_follows_from_the_pixels_alone(tmp_path: Path) -> None:
    images = distinct(50)
    for name, order in (("a", range(50)), ("b", range(49, -1, -1))):
        prepare_images(pictures([images[i] for i in order]), [], CleanConfig(), SPLIT, tmp_path / name)
    first, second = ({row["image"]: n for n in NAMES for row in read(tmp_path / name)[n]} for name in ("a", "b"))
    assert first == second


def test_every_reason(tmp_path: Path) -> None:
    a, b, c, d = distinct(4)
    images = [a, b, a.copy(), None, c, np.zeros((1, 4, 3), np.uint8), c, np.zeros((3, 3, 4), np.uint8), d]
    labels: list[str | None] = ["0", "1", "0", "1", "0", "0", "1", "0", "1"]
    given: list[np.ndarray | None] = [*images]
    summary = prepare_images(pictures(given, labels), ["label"], CleanConfig(), NONE, tmp_path)
    assert reasons(tmp_path) == {
        "f:3": "exact_duplicate: repeats f:1",
        "f:4": "broken_image: cut short",
        "f:5": "label_conflict: 0: 1, 1: 1",
        "f:6": "other_size: it is 4 x 3 grey, most are 3 x 4 grey",
        "f:7": "label_conflict: 0: 1, 1: 1",
        "f:8": "other_size: it is 3 x 4 coloured, most are 3 x 4 grey",
    }
    assert summary["dropped"] == {"label_conflict": 2, "other_size": 2, "exact_duplicate": 1, "broken_image": 1}
    assert [row["image"] is None for row in read(tmp_path)["dropped"]] == [False, True, False, True, False, True]
    kept = CleanConfig(conflicts="keep", dedup="none")
    assert prepare_images(pictures([a, b, a, c], ["0", "1", "1", "0"]), ["label"], kept, NONE, tmp_path)["n_kept"] == 4


def test_sizes_and_channels_are_made_alike_on_request(tmp_path: Path) -> None:
    images = [np.full(shape, 9 * i, np.uint8) for i, shape in enumerate([(1, 3, 4), (3, 8, 8), (1, 5, 5), (3, 2, 9)])]
    with pytest.raises(DataError, match="the pictures have 4 sizes") as found:
        prepare_images(pictures([*images]), [], CleanConfig(), NONE, tmp_path)
    assert found.value.where == "f:1 is 3 x 4 grey and f:2 is 8 x 8 coloured"
    clean = CleanConfig(image_size=(6, 5), channels=3)
    summary = prepare_images(pictures([*images]), [], clean, NONE, tmp_path)
    assert summary["image_size"] == [3, 6, 5]
    assert [set(row["image"]) for row in read(tmp_path)["train"]] == [{0}, {9}, {18}, {27}]
    assert {len(row["image"]) for row in read(tmp_path)["train"]} == {90}


def test_the_given_test_set_stays_and_valid_is_taken_from_train(tmp_path: Path) -> None:
    images = [*distinct(300)]
    parts: list[str | None] = ["train"] * 200 + ["test"] * 100
    images[7] = images[250]  # in train and in test, with one label
    images[8] = images[251]  # with two
    labels: list[str | None] = [str(i % 2) for i in range(300)]
    labels[7] = labels[250]
    labels[8] = "1" if labels[251] == "0" else "0"
    split = SplitConfig(column="split", valid=0.25, test=0.5)
    given = pictures([*images], labels, parts)
    summary = prepare_images(given, ["label", "split"], CleanConfig(conflicts="keep"), split, tmp_path)
    files = read(tmp_path)
    assert [row["source"] for row in files["test"]] == [f"f:{i}" for i in range(201, 301)]
    assert reasons(tmp_path) == {
        "f:8": "exact_duplicate: repeats f:251",
        "f:9": "leak: the same pixels as f:252 in test",
    }
    n_train, n_valid = len(files["train"]), len(files["valid"])
    assert n_train + n_valid == 198
    assert 0.15 < n_valid / 198 < 0.35  # 25%, more than three standard deviations either way
    assert summary["leak"] == {"n_pairs": 100 * 198 + n_train * n_valid, "n_moved": 1, "n_leaks": 0}
    pixels = [{row["image"] for row in files[name]} for name in NAMES[:3]]
    assert not pixels[0] & pixels[1]
    assert not (pixels[0] | pixels[1]) & pixels[2]


def test_data_that_cannot_train_is_refused(tmp_path: Path) -> None:
    def refused(match: str, given: list[Picture], roles: list[str], split: SplitConfig = NONE) -> None:
        with pytest.raises(DataError, match="(?s)" + match):
            prepare_images(given, roles, CleanConfig(), split, tmp_path)

    images: list[np.ndarray | None] = [*distinct(40)]
    refused("there are no pictures", [], [])
    refused(r"none of the 2 pictures can be read.*f:1: cut short", pictures([None, None]), [])
    refused("every record left has the label 'a'", pictures(images, ["a"] * 40), ["label"])
    refused("split is empty: 1 records", pictures(images[:1]), [], SPLIT)
    refused("a column 'id'.*rename", pictures(images, ["a"] * 40), ["id"])
    refused("'part' says 'dev'.*f:1", pictures(images, ["dev"] * 40), ["part"], SplitConfig(column="part"))
