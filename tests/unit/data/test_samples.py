"""The table of samples, and their readers on files made here."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from danlu.core.errors import DataError
from danlu.data.samples import RECORD, SAMPLES, find_sample
from danlu.data.sources import read_source


def put(cache: Path, name: str, files: dict[str, str]) -> Path:
    """A sample's folder as fetch leaves it, with other content."""
    sample = find_sample(name)
    digests = {}
    for path, content in files.items():
        (cache / name / path).parent.mkdir(parents=True, exist_ok=True)
        (cache / name / path).write_bytes(content.encode())
        digests[path] = hashlib.sha256(content.encode()).hexdigest()
    archives = {archive.filename: archive.sha256 for archive in sample.archives}
    (cache / name / RECORD).write_text(json.dumps({"archives": archives, "files": digests}))
    return cache


def rows(cache: Path, name: str, columns: dict[str, str]) -> list[dict[str, str]]:
    batches = read_source(f"sample:{name}", columns, base=cache, samples=cache)
    return [row for batch in batches for row in batch.to_pylist()]


def test_every_archive_is_pinned_and_no_address_is_written() -> None:
    archives = [archive for sample in SAMPLES.values() for archive in sample.archives]
    assert len({archive.filename for archive in archives}) == len(archives)
    for archive in archives:
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
        assert archive.version in archive.filename
        assert archive.licence
        assert "/" not in archive.filename
    assert all(bool(sample.columns) == bool(sample.read) for sample in SAMPLES.values())


def test_reviews(tmp_path: Path) -> None:
    put(tmp_path, "zh-reviews", {"neg.txt": "\ufeff很差\r\n退货\u2028了\n", "pos.txt": "很好\n\n"})
    assert rows(tmp_path, "zh-reviews", {"text": "text", "label": "label"}) == [
        {"source": "zh-reviews/neg.txt:1", "text": "很差", "label": "negative", "problem": None},
        {"source": "zh-reviews/neg.txt:2", "text": "退货\u2028了", "label": "negative", "problem": None},
        {"source": "zh-reviews/pos.txt:1", "text": "很好", "label": "positive", "problem": None},
        {"source": "zh-reviews/pos.txt:2", "text": "", "label": "positive", "problem": "missing_value"},
    ]


def test_poetry_comes_by_dynasty_and_number(tmp_path: Path) -> None:
    poem = {"title": "靜夜思", "author": "李白", "paragraphs": ["牀前明月光，", "疑是地上霜。"], "id": "1"}
    empty = {**poem, "paragraphs": []}
    files = {f"poet.{name}.json": json.dumps([poem]) for name in ("song.0", "tang.10000", "tang.2000")}
    put(tmp_path, "zh-poetry", {**files, "poet.song.1000.json": json.dumps([empty])})
    found = rows(tmp_path, "zh-poetry", {"text": "text", "author": "author", "label": "dynasty"})
    assert [(row["source"], row["label"], row["problem"]) for row in found] == [
        ("zh-poetry/poet.tang.2000.json:1", "tang", None),
        ("zh-poetry/poet.tang.10000.json:1", "tang", None),
        ("zh-poetry/poet.song.0.json:1", "song", None),
        ("zh-poetry/poet.song.1000.json:1", "song", "missing_value"),
    ]
    assert found[0]["text"] == "牀前明月光，\n疑是地上霜。"


def test_a_column_that_a_sample_has_not(tmp_path: Path) -> None:
    put(tmp_path, "zh-reviews", {"neg.txt": "a\n", "pos.txt": "b\n"})
    with pytest.raises(DataError, match="the sample has text, label") as caught:
        rows(tmp_path, "zh-reviews", {"text": "texts"})
    assert caught.value.advice == "did you mean 'text'?"


def test_a_sample_of_another_pin_is_fetched_again(tmp_path: Path) -> None:
    put(tmp_path, "zh-reviews", {"neg.txt": "a\n", "pos.txt": "b\n"})
    record = tmp_path / "zh-reviews" / RECORD
    record.write_text(record.read_text().replace(SAMPLES["zh-reviews"].archives[0].sha256, "0" * 64))
    with pytest.raises(DataError, match="of another version"):
        rows(tmp_path, "zh-reviews", {"text": "text"})
