"""The data stage on pictures, on pairs, and what a recipe's columns allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from danlu.core.artifact import Artifact
from danlu.core.errors import DataError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.clean import ROLES, CleanConfig
from danlu.data.stage import DataConfig, build_dataset, class_names, image_size, read_images, read_split

IMAGES = {"image": "image", "label": "folder"}


def build(folder: Path, source: str | list[str], **values: Any) -> Artifact:
    config = DataConfig(source=source, **values)
    return build_dataset(Workspace(folder / "workspace"), "tiny", config, folder, Silent())


def put_pictures(folder: Path, n: int, shape: tuple[int, ...] = (4, 5)) -> np.ndarray:
    """n pictures of two classes; every one in a file of its own."""
    images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    for i, image in enumerate(images):
        path = folder / ("cat" if i % 2 else "dog") / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return images


def test_pictures_are_read_back_as_they_are(tmp_path: Path) -> None:
    images = put_pictures(tmp_path / "pets", 60, (4, 5, 3))
    dataset = build(tmp_path, "pets", columns=IMAGES, split={"valid": 0.2, "test": 0.2})
    assert class_names(dataset) == ["cat", "dog"]
    assert image_size(dataset) == (3, 4, 5)
    n = 0
    for split in ("train", "valid", "test"):
        images_nCYX, labels = read_images(dataset, split)
        assert images_nCYX.dtype == np.uint8
        sources = read_split(dataset, split, ["source"]).column("source").to_pylist()
        for pixels, label, source in zip(images_nCYX, labels, sources, strict=True):
            number = int(source[-7:-4])
            assert (pixels == images[number].transpose(2, 0, 1)).all()
            assert source == f"pets/{label}/{number:03}.png"
        n += len(labels)
    assert n == 60


def test_an_empty_split_has_no_pictures(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pets", 10)
    dataset = build(tmp_path, "pets", columns=IMAGES, split={"valid": 0, "test": 0})
    images_nCYX, labels = read_images(dataset, "test")
    assert (images_nCYX.shape, labels) == ((0, 1, 4, 5), [])


def test_a_dataset_is_made_once_and_again_when_a_picture_changes(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pets", 20)
    values: dict[str, Any] = {"columns": IMAGES, "split": {"valid": 0.2, "test": 0}}
    first = build(tmp_path, "pets", **values)
    assert list(first.manifest["parents"]) == ["pets"]
    assert build(tmp_path, "pets", **values).path == first.path
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "pets" / "cat" / "001.png")
    second = build(tmp_path, "pets", **values)
    assert second.path != first.path
    resized = build(tmp_path, "pets", clean={"image_size": [8, 8]}, **values)
    assert image_size(resized) == (1, 8, 8)
    assert CleanConfig(**resized.config["clean"]).image_size == (8, 8)


def test_the_column_of_the_splits_is_read_without_being_named(tmp_path: Path) -> None:
    put_pictures(tmp_path / "pets" / "train", 30)
    for part, name in (("test", "dog"), ("test", "cat")):
        path = tmp_path / "pets" / part / name / "x.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((4, 5), len(name) + ord(name[0]), np.uint8)).save(path)
    dataset = build(tmp_path, "pets", columns=IMAGES, split={"column": "split", "valid": 0.3})
    n = {part: pq.read_metadata(dataset.path / f"{part}.parquet").num_rows for part in ("train", "valid", "test")}
    assert n["test"] == 2
    assert n["train"] + n["valid"] == 30
    assert n["valid"] > 0
    put_pictures(tmp_path / "pets", 2)
    with pytest.raises(DataError, match="column 'split' says None"):
        build(tmp_path, "pets", columns=IMAGES, split={"column": "split"})


def test_pairs_go_through_the_stage(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["text\ttarget"]
    for i in range(60):
        word = "".join(chr(97 + c) for c in rng.integers(0, 26, 8))
        lines.append(f"Open {word}\t打开{chr(0x4E00 + i)}")
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    columns = {"text": "text", "target": "target"}
    clean = {"normalize": "nfc", "whitespace": "keep", "dedup": "exact", "max_length_ratio": 9}
    dataset = build(tmp_path, "pairs.tsv", columns=columns, clean=clean, split={"valid": 0.2, "test": 0.2})
    n = sum(len(read_split(dataset, split, ["text", "target"])) for split in ("train", "valid", "test"))
    assert n == 60
    with pytest.raises(DataError, match="no column 'image'"):
        read_images(dataset, "train")


@pytest.mark.parametrize(
    ("columns", "clean", "what"),
    [
        ({"label": "label"}, {}, "either a text or an image"),
        ({"text": "text", "image": "image"}, {}, "either a text or an image"),
        ({"image": "file"}, {}, "image: image"),
        ({"text": "text"}, {"image_size": [8, 8]}, "clean.image_size is for a column image"),
        ({"text": "text"}, {"channels": 1}, "clean.channels is for a column image"),
        ({"image": "image"}, {"script": "simplified"}, "clean.script is for a column text"),
        ({"image": "image"}, {"min_chars": 3}, "clean.min_chars is for a column text"),
        ({"text": "text", "label": "label"}, {"max_length_ratio": 3}, "clean.max_length_ratio is for a column target"),
    ],
)
def test_options_that_would_do_nothing_are_refused(columns: dict[str, str], clean: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        DataConfig(source="a", columns=columns, clean=clean)


def test_a_config_that_was_written_down_is_valid_again() -> None:
    config = DataConfig(source="a", columns=IMAGES, clean={"image_size": [8, 9], "channels": 3, "dedup": "exact"})
    assert DataConfig(**config.plain()) == config
    assert set(ROLES) | {"conflicts", "dedup"} == set(CleanConfig.model_fields)


@pytest.mark.parametrize("size", [[8], [0, 8], [8, 5000], 8])
def test_an_impossible_size_is_refused(size: Any) -> None:
    with pytest.raises(ValidationError, match="image_size"):
        CleanConfig(image_size=size)
