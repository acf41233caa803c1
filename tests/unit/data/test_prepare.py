from __future__ import annotations

import functools
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import DataError
from danlu.data.engine import Local
from danlu.data.normalize import normal_key
from danlu.data.prepare import CleanConfig, SplitConfig, prepare

NAMES = ("train", "valid", "test", "dropped")
SPLIT = SplitConfig(valid=0.2, test=0.2)


def batches(columns: dict[str, list[str | None]], size: int = 1000) -> list[pa.RecordBatch]:
    n = len(columns["text"])
    columns = {"source": [f"f:{i + 1}" for i in range(n)], **columns}
    schema = pa.schema([(name, pa.string()) for name in columns])
    return list(pa.table(columns, schema=schema).to_batches(max_chunksize=size))


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in NAMES}


def corpus(n: int = 400, seed: int = 0) -> dict[str, list[str | None]]:
    """Reviews-like records: random sentences, copies, near-copies, conflicting labels, bad ones."""
    rng = np.random.default_rng(seed)
    texts: list[str | None] = []
    labels: list[str | None] = []
    problems: list[str | None] = []
    for _ in range(n):
        kind = rng.random()
        earlier = texts[rng.integers(len(texts))] if texts else None
        if earlier and kind < 0.2:
            text = earlier + rng.choice(["", " ", "。", "!"])
        elif earlier and kind < 0.4:
            at = int(rng.integers(len(earlier) + 1))
            text = earlier[:at] + chr(rng.integers(0x4E00, 0x5000)) + earlier[at:]
        else:
            text = "".join(chr(c) for c in rng.integers(0x4E00, 0x5000, rng.integers(0, 40)))
        texts.append(text if rng.random() > 0.02 else None)
        labels.append(str(rng.choice(["neg", "pos"])) if rng.random() > 0.02 else None)
        problems.append("undecodable" if rng.random() < 0.02 else None)
    return {"text": texts, "label": labels, "problem": problems, "extra": [str(i) for i in range(n)]}


@functools.cache
def grams(text: str) -> set[str]:
    bare = re.sub(r"[\W_]", "", normal_key(text))
    return {bare[i : i + 3] for i in range(max(len(bare) - 2, 1))}


CLEAN = [
    CleanConfig(),
    CleanConfig(dedup="none", conflicts="keep"),
    CleanConfig(dedup="exact", conflicts="majority"),
    CleanConfig(conflicts_within="near", near_threshold=0.5),
]


@pytest.mark.parametrize("clean", CLEAN, ids=["default", "none", "exact", "within-near"])
def test_every_record_is_in_one_file_and_nothing_leaks(clean: CleanConfig, tmp_path: Path) -> None:
    data = corpus()
    summary = prepare(batches(data), clean, SPLIT, tmp_path)
    files = read(tmp_path)
    every = [row for name in NAMES for row in files[name]]
    assert Counter(row["extra"] for row in every) == Counter(data["extra"])
    assert all(row["source"] == f"f:{int(row['extra']) + 1}" for row in every)
    assert len({row["id"] for row in every}) == len(every)
    for name in NAMES:
        assert [int(row["extra"]) for row in files[name]] == sorted(int(row["extra"]) for row in files[name])
        assert ("reason" in pq.read_schema(tmp_path / f"{name}.parquet").names) == (name == "dropped")
    assert Counter(row["reason"] for row in files["dropped"]) == Counter(summary["dropped"])
    assert summary["n_read"] == 400 == summary["n_kept"] + summary["n_dropped"]
    assert {name: summary["splits"][name]["n"] for name in NAMES[:3]} == {name: len(files[name]) for name in NAMES[:3]}
    assert json.loads(json.dumps(summary)) == summary

    best = [
        max(len(grams(a["text"]) & grams(b["text"])) / len(grams(a["text"]) | grams(b["text"])) for b in lower)
        for lower, name in ((files["train"], "valid"), (files["train"] + files["valid"], "test"))
        for a in files[name]
    ]
    assert max(best) < clean.near_threshold
    assert summary["leak"]["n_leaks"] == 0
    assert summary["leak"]["largest"] in (None, pytest.approx(max(best)))
    if clean.dedup == "near":
        kept = [row for name in NAMES[:3] for row in files[name]]
        texts = Counter((normal_key(row["text"]), row["label"]) for row in kept)
        assert texts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("size", [1, 7, 400])
def test_result_does_not_depend_on_batches(size: int, tmp_path: Path) -> None:
    prepare(batches(corpus(), 64), CleanConfig(), SPLIT, tmp_path / "a")
    prepare(batches(corpus(), size), CleanConfig(), SPLIT, tmp_path / "b")
    assert read(tmp_path / "a") == read(tmp_path / "b")


def test_result_does_not_depend_on_workers(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    one = prepare(batches(corpus(), 64), CleanConfig(), SPLIT, tmp_path / "a")
    two = prepare(
        batches(corpus(), 64), CleanConfig(), SPLIT, tmp_path / "b",
        engine=Local(2), progress=lambda step, n: seen.append((step, n)),
    )  # fmt: skip
    assert read(tmp_path / "a") == read(tmp_path / "b")
    one.pop("steps"), two.pop("steps")
    assert one == two
    assert ("clean", 400) in seen
    assert [step for step, _ in seen][-1] == "write"


@given(
    st.lists(st.tuples(st.text(alphabet="很好书不错。 1", max_size=8), st.sampled_from(["a", "b", None])), max_size=30)
)
def test_any_records_are_parted_or_refused(records: list[tuple[str, str | None]]) -> None:
    columns: dict[str, list[str | None]] = {"text": [t for t, _ in records], "label": [label for _, label in records]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            prepare(batches(columns, 4), CleanConfig(), SplitConfig(valid=0, test=0.3), folder)
        except DataError:
            if not records:
                return
        files = read(folder)
        sources = [row["source"] for name in NAMES for row in files[name]]
        assert sorted(sources) == sorted(f"f:{i + 1}" for i in range(len(records)))


def plain(texts: list[str], labels: list[str], **clean: Any) -> dict[str, str]:
    """The reason and detail of each source that was dropped, with nothing held out."""
    with tempfile.TemporaryDirectory() as folder:
        columns: dict[str, list[str | None]] = {"text": [*texts, "别的甲乙", "另外丙丁"], "label": [*labels, "a", "b"]}
        prepare(batches(columns), CleanConfig(**clean), SplitConfig(valid=0, test=0), Path(folder))
        return {row["source"]: f"{row['reason']}: {row['detail']}" for row in read(Path(folder))["dropped"]}


def test_the_first_of_each_text_and_label_is_kept_and_the_others_say_why() -> None:
    texts = [
        "这家店的东西很不错哦",
        "这家店的东西很不错 哦",
        "这家店的东西很不错哦呀",
        "这家店的东西很不错哦了",
        "一般",
        "一般",
    ]
    labels = ["a", "a", "a", "b", "a", "b"]
    assert plain(texts, labels) == {
        "f:2": "exact_duplicate: repeats f:1",
        "f:3": "near_duplicate: repeats f:1, Jaccard 0.89",
        "f:5": "label_conflict: a: 1, b: 1",
        "f:6": "label_conflict: a: 1, b: 1",
    }
    assert set(plain(texts, labels, dedup="exact", conflicts="keep")) == {"f:2"}
    assert plain(texts, labels, dedup="none", conflicts="keep") == {}
    assert set(plain(texts, labels, conflicts_within="near")) == {f"f:{i}" for i in range(1, 7)}
    assert set(plain([*texts, "一般"], [*labels, "a"], conflicts="majority")) == {"f:2", "f:3", "f:6", "f:7"}


def test_a_split_column_is_followed_and_leaks_into_test_are_taken_from_train(tmp_path: Path) -> None:
    near = "这家店的东西很不错哦"
    columns: dict[str, list[str | None]] = {
        "text": [near, "甲乙丙丁", near + "呀", "戊己庚辛", "很好的书", "很好的书"],
        "label": ["a", "b", "b", "a", "a", "a"],
        "part": ["train", "train", "test", "valid", "train", "test"],
    }
    more = [f"{chr(0x4E00 + 9 * i)}{chr(0x5E00 + 7 * i)}书" for i in range(4)]
    columns = {
        "text": columns["text"] + more,
        "label": [*columns["label"], "a", "b", "a", "b"],
        "part": [*columns["part"], *["train"] * 4],
    }
    summary = prepare(batches(columns), CleanConfig(), SplitConfig(column="part"), tmp_path)
    files = read(tmp_path)
    assert {row["source"]: f"{row['reason']}: {row['detail']}" for row in files["dropped"]} == {
        "f:1": "leak: too like f:3 in test, Jaccard 0.89",
        "f:5": "exact_duplicate: repeats f:6",
    }
    assert [row["source"] for row in files["test"]] == ["f:3", "f:6"]
    assert summary["leak"]["n_moved"] == 1
    with pytest.raises(DataError, match=r"(?s)no column 'nope'.*part"):
        prepare(batches(columns), CleanConfig(), SplitConfig(column="nope"), tmp_path)


def distinct(n: int) -> list[str | None]:
    rng = np.random.default_rng(1)
    return ["".join(chr(c) for c in rng.integers(0x4E00, 0x9000, 20)) for _ in range(n)]


def test_data_that_cannot_train_is_refused(tmp_path: Path) -> None:
    def refused(match: str, split: SplitConfig = SPLIT, **columns: list[str | None]) -> None:
        with pytest.raises(DataError, match="(?s)" + match):
            prepare(batches(columns) if columns else [], CleanConfig(), split, tmp_path)

    refused("no records")
    refused(r"left none of the 3 records \(empty 3\).*dropped.parquet", text=["", " ", "\u200b"])
    refused("every record left has the label 'a'", text=distinct(40), label=["a"] * 40)
    refused("split is empty: 1 records", text=["很好"])
    refused(
        "label 'b' is in test and never in train.*where: f:2",
        split=SplitConfig(column="part"),
        text=distinct(3), label=["a", "b", "c"], part=["train", "test", "train"],
    )  # fmt: skip
    refused("column 'part' says None.*where: f:1", split=SplitConfig(column="part"), text=["很好"], part=[None])


def test_unlabelled_text_is_enough(tmp_path: Path) -> None:
    summary = prepare(batches({"text": distinct(60)}), CleanConfig(), SPLIT, tmp_path)
    assert summary["n_kept"] == 60
    assert summary["splits"]["train"]["labels"] == {}
    assert pq.read_schema(tmp_path / "train.parquet").names == ["id", "source", "text"]
    assert [step["step"] for step in summary["steps"]] == [
        "clean", "exact_duplicates", "near_duplicates", "split", "leak_check", "write",
    ]  # fmt: skip


def pair_columns(pairs: list[tuple[str, str]]) -> dict[str, list[str | None]]:
    return {"text": [text for text, _ in pairs], "target": [target for _, target in pairs]}


def test_of_several_translations_the_most_frequent_is_kept(tmp_path: Path) -> None:
    pairs = [
        ("Open the file", "打开此文件"),
        ("Close the window", "关窗"),
        ("Open the file", "打开文件"),
        ("open  the file", "打开文件"),
        ("Close the window", "关闭窗口"),
        ("GLib", "GLib"),
        ("Close the windows", "关闭所有窗口"),
    ]
    config = CleanConfig(dedup="exact")
    summary = prepare(batches(pair_columns(pairs)), config, SplitConfig(valid=0, test=0), tmp_path)
    files = read(tmp_path)
    assert [(row["source"], row["target"]) for row in files["train"]] == [
        ("f:2", "关窗"), ("f:3", "打开文件"), ("f:7", "关闭所有窗口"),
    ]  # fmt: skip
    assert {row["source"]: f"{row['reason']}: {row['detail']}" for row in files["dropped"]} == {
        "f:1": "other_translation: 2 of 3 have the one of f:3",
        "f:4": "exact_duplicate: repeats f:3",
        "f:5": "other_translation: 1 of 2 have the one of f:2",
        "f:6": "untranslated: 1",
    }
    assert [step["step"] for step in summary["steps"]][:3] == ["clean", "other_translations", "exact_duplicates"]
    assert pq.read_schema(tmp_path / "train.parquet").names == ["id", "source", "text", "target"]


@pytest.mark.parametrize("dedup", ["none", "exact", "near"])
def test_no_two_splits_share_a_source_text(dedup: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["open", "close", "file", "window", "the", "new", "save", "all"]
    pairs = [(" ".join(rng.choice(words, rng.integers(1, 4))), chr(0x4E00 + i % 50)) for i in range(400)]
    prepare(batches(pair_columns(pairs)), CleanConfig(dedup=dedup), SPLIT, tmp_path)
    files = read(tmp_path)
    keys = [{normal_key(row["text"]) for row in files[name]} for name in NAMES[:3]]
    assert all(keys)
    assert sum(map(len, keys)) == len(set.union(*keys))
    targets: dict[str, set[str]] = {}
    for name in NAMES[:3]:
        for row in files[name]:
            targets.setdefault(normal_key(row["text"]), set()).add(row["target"])
    assert {len(found) for found in targets.values()} == {1}


def test_a_split_that_the_column_never_names_is_taken_from_train(tmp_path: Path) -> None:
    texts = distinct(400)
    texts[1] = f"{texts[0]}呀"  # nearly the same, with another label: both stay, and stay together
    labels: list[str | None] = ["a", "b"] * 200
    parts: list[str | None] = ["train"] * 300 + ["test"] * 100
    columns = {"text": texts, "label": labels, "part": parts}
    prepare(batches(columns), CleanConfig(), SplitConfig(column="part", valid=0.2, test=0.5), tmp_path / "a")
    files = read(tmp_path / "a")
    assert [row["source"] for row in files["test"]] == [f"f:{i}" for i in range(301, 401)]
    assert 30 < len(files["valid"]) < 90  # 20% of 300, more than four standard deviations either way
    assert {row["part"] for row in files["valid"]} == {"train"}
    held = {row["source"] for row in files["valid"]}
    assert ("f:1" in held) == ("f:2" in held)

    parts[0] = "valid"
    prepare(batches(columns), CleanConfig(), SplitConfig(column="part", valid=0.2, test=0.5), tmp_path / "b")
    assert [row["source"] for row in read(tmp_path / "b")["valid"]] == ["f:1"]
