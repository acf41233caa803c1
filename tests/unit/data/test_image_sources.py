"""Pictures of folders, IDX files and samples: which there are, in which order, with which columns."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danlu.core.errors import DataError, UsageError
from danlu.data.image_sources import Picture, digest_pictures, read_pictures
from danlu.data.samples import RECORD, find_sample

ALL = ["label", "split", "file", "folder"]


def put_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def put_pair(folder: Path, stem: str, labels: list[int], sign: str = "-") -> np.ndarray:
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3, 4), dtype=np.uint8)
    put_idx(folder / f"{stem}-images{sign}idx3-ubyte", images)
    put_idx(folder / f"{stem}-labels{sign}idx1-ubyte", np.array(labels, np.uint8))
    return images


def put_picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(path)
    return path


def read(base: Path, spec: str | list[str], columns: list[str]) -> list[Picture]:
    return list(read_pictures(spec, columns, base=base, samples=base / "cache"))


def test_idx_files_with_their_labels_and_splits(tmp_path: Path) -> None:
    test = put_pair(tmp_path / "digits", "t10k", [3, 1])
    train = put_pair(tmp_path / "digits", "train", [0, 200, 7])
    (tmp_path / "digits" / "README.md").write_text("no picture")
    found = read(tmp_path, "digits", ALL)
    assert [(p.source, p.values) for p in found] == [
        ("digits/t10k-images-idx3-ubyte:1", ("3", "test", "t10k-images-idx3-ubyte", "digits")),
        ("digits/t10k-images-idx3-ubyte:2", ("1", "test", "t10k-images-idx3-ubyte", "digits")),
        ("digits/train-images-idx3-ubyte:1", ("0", "train", "train-images-idx3-ubyte", "digits")),
        ("digits/train-images-idx3-ubyte:2", ("200", "train", "train-images-idx3-ubyte", "digits")),
        ("digits/train-images-idx3-ubyte:3", ("7", "train", "train-images-idx3-ubyte", "digits")),
    ]
    pixels = [p.pixels for p in found]
    assert all(p is not None and p.shape == (1, 3, 4) for p in pixels)
    assert (np.concatenate([test, train])[:, None] == np.stack([p for p in pixels if p is not None])).all()


def test_only_the_pictures_need_be_named_and_a_pair_counts_once(tmp_path: Path) -> None:
    put_pair(tmp_path, "a", [1, 2], sign=".")
    alone = read(tmp_path, "a-images.idx3-ubyte", ["label"])
    both = read(tmp_path, ["a-labels.idx1-ubyte", "a-images.idx3-ubyte"], ["label"])
    assert [p.values for p in alone] == [p.values for p in both] == [("1",), ("2",)]


def test_a_folder_of_pictures_has_classes_and_splits_for_folders(tmp_path: Path) -> None:
    for name in ("data/train/cat/2.png", "data/train/cat/1.png", "data/Test/dog/1.PNG", "data/dog/x.png"):
        put_picture(tmp_path / name)
    found = read(tmp_path, "data", ["folder", "split", "file"])
    assert [(p.source, p.values) for p in found] == [
        ("data/Test/dog/1.PNG", ("dog", "test", "1")),
        ("data/dog/x.png", ("dog", None, "x")),
        ("data/train/cat/1.png", ("cat", "train", "1")),
        ("data/train/cat/2.png", ("cat", "train", "2")),
    ]


def test_a_class_called_like_a_split_is_not_taken_for_one(tmp_path: Path) -> None:
    put_picture(tmp_path / "test" / "train" / "1.png")
    assert read(tmp_path, "test", ["folder", "split"])[0].values == ("train", None)


def test_a_broken_picture_comes_with_its_problem(tmp_path: Path) -> None:
    put_picture(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "2.png").write_bytes(b"no picture")
    good, bad = read(tmp_path, "cat", ["folder"])
    assert (good.problem, bad.pixels) == (None, None)
    assert bad[:2] == ("cat/2.png", ("cat",))
    assert bad.problem == "the picture cannot be read: no format known here"


def test_pictures_from_elsewhere_are_called_by_their_last_folders(tmp_path: Path) -> None:
    put_picture(tmp_path / "far" / "train" / "cat" / "1.png")
    (tmp_path / "here").mkdir()
    (found,) = read(tmp_path / "here", str(tmp_path / "far"), ["split"])
    assert (found.source, found.values) == ("train/cat/1.png", ("train",))


def test_the_digits_come_as_a_sample(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "mnist"
    put_pair(folder, "train", [5])
    put_pair(folder, "t10k", [7, 2])
    sample = find_sample("mnist")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    archives = {archive.filename: archive.sha256 for archive in sample.archives}
    (folder / RECORD).write_text(json.dumps({"archives": archives, "files": files}))
    found = read(tmp_path, "sample:mnist", ["label", "split"])
    assert [(p.source, p.values) for p in found] == [
        ("mnist/t10k-images-idx3-ubyte:1", ("7", "test")),
        ("mnist/t10k-images-idx3-ubyte:2", ("2", "test")),
        ("mnist/train-images-idx3-ubyte:1", ("5", "train")),
    ]
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="not on this machine") as caught:
        read(tmp_path, "sample:mnist", ["label"])
    assert caught.value.advice == "danlu fetch mnist"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    put_pair(tmp_path / "two", "train", [1, 2])
    put_idx(tmp_path / "two" / "train-labels-idx1-ubyte", np.zeros(3, np.uint8))
    put_idx(tmp_path / "one" / "train-images-idx3-ubyte", np.zeros((2, 3, 4), np.uint8))
    put_idx(tmp_path / "wrong" / "a-idx3-ubyte", np.zeros(3, np.uint8))
    put_picture(tmp_path / "cat" / "1.png")
    (tmp_path / "none").mkdir()
    (tmp_path / "a.txt").write_text("text")
    for spec, kind, what, advice in (
        ("two", DataError, "3 labels do not fit 2 pictures", "same place"),
        ("one", DataError, "no labels beside the pictures", "labels-idx1-ubyte"),
        ("wrong", DataError, "holds labels, not pictures", "labels in its name"),
        ("cat", DataError, "no column is called 'label'; the picture has file, folder, split", "label: folder"),
        ("none", UsageError, "no file that danlu reads", ".png"),
        ("a.txt", UsageError, "format is not known", "IDX"),
        ("cats", UsageError, "no such file or folder", "cat"),
    ):
        with pytest.raises(kind, match=what) as found:
            read(tmp_path, spec, ["label"])
        assert advice in str(found.value.advice)
    assert len(read(tmp_path, "one", ["folder"])) == 2


def test_a_digest_tells_of_every_file(tmp_path: Path) -> None:
    put_pair(tmp_path / "idx", "train", [1, 2])
    put_picture(tmp_path / "cat" / "1.png")
    specs = ["cat", "idx/train-images-idx3-ubyte"]
    first = digest_pictures(specs, tmp_path)
    assert list(first) == specs
    assert digest_pictures(specs, tmp_path) == first
    put_idx(tmp_path / "idx" / "train-labels-idx1-ubyte", np.array([1, 3], np.uint8))
    put_picture(tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "2.png")
    second = digest_pictures(specs, tmp_path)
    assert all(first[spec] != second[spec] for spec in specs)
