"""The page about a dataset, of texts, of pairs and of pictures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from danlu.core.files import write_json
from danlu.core.progress import Silent
from danlu.data.pii import KINDS
from danlu.data.prepare import CleanConfig, SplitConfig, prepare
from danlu.data.sources import read_source
from danlu.data.summary import take_speeds
from danlu.evaluate.placeholders import KINDS as PLACEHOLDER_KINDS
from danlu.report.stage import write_data_card
from danlu.report.terms import PII, PLACEHOLDERS, REASONS, STEPS
from danlu.report.thumbnails import thumbnail
from page_tree import Page


@pytest.mark.parametrize("task", ["text-classification", "image-classification", "language-modelling", "translation"])
def test_the_data_card_says_what_the_summary_says(run_of: Callable[..., Any], task: str) -> None:
    run = run_of(task=task)
    html, summary = run.data_card, run.dataset.json("summary.json")
    assert f"{summary['n_kept']:,} of {summary['n_read']:,} records are fit to learn from" in html
    for reason, n in summary["dropped"].items():
        assert re.search(rf">{reason}</code></th><td[^>]*>{n:,}</td>", html), reason
    for split in summary["splits"].values():
        assert f"{split['n']:,}" in html
    assert {step["step"] for step in summary["steps"]} <= set(STEPS)
    assert set(summary["dropped"]) <= set(REASONS)
    assert "All steps took" in html


def test_examples_of_what_was_dropped_are_shown(run_of: Callable[..., Any]) -> None:
    run = run_of()
    html = run.data_card
    assert run.dataset.json("summary.json")["dropped"].keys() >= {"empty", "no_text"}
    assert "，，，。。。" in html or ",,," in html
    assert "13812345678" not in html, "and personal data is not"


def test_pairs_are_shown_with_both_sides(run_of: Callable[..., Any]) -> None:
    run = run_of(task="translation")
    html, summary = run.data_card, run.dataset.json("summary.json")
    assert summary["dropped"].keys() >= {"other_translation", "untranslated", "exact_duplicate"}
    assert '<p class="target" translate="no">移除文件</p>' in html
    assert "characters a source" in html
    assert "a held-out source and a source of a lower split" in html


def test_pictures_are_shown_as_pictures(run_of: Callable[..., Any]) -> None:
    run = run_of(task="image-classification")
    html, summary = run.data_card, run.dataset.json("summary.json")
    assert set(summary["dropped"]) == {"exact_duplicate", "label_conflict", "broken_image", "other_size"}
    nodes = Page(html).root.walk()
    n_dropped_shown = 3 + 2  # of the four reasons two leave a picture to show
    n_by_class = sum(min(10, n) for n in summary["splits"]["train"]["labels"].values())
    assert len([node for node in nodes if node.tag == "img"]) == n_dropped_shown + n_by_class
    assert "16 × 16" in html
    for absent in ("Personal data", "MinHash", "characters", "Jaccard"):
        assert absent not in html.replace("<style>", "").split("</style>")[1].split('id="provenance"')[0], absent


def test_a_leak_is_told(run_of: Callable[..., Any]) -> None:
    for task, said in (
        ("text-classification", "2 held-out texts are near-duplicates of a text of a lower split"),
        ("translation", "2 held-out sources are near-duplicates of a source of a lower split"),
        ("image-classification", "2 held-out pictures are in a lower split too"),
    ):
        run = run_of(task=task)
        summary = run.dataset.json("summary.json")
        summary["leak"]["n_leaks"] = 2
        take_speeds(summary)
        with run.workspace.create(
            "dataset", "leaky", key=f"leak {task}", config=run.dataset.config, parents={}
        ) as draft:
            for name in ("train.parquet", "dropped.parquet"):
                (draft.folder / name).write_bytes((run.dataset.path / name).read_bytes())
            write_json(draft.folder / "summary.json", summary)
        html = (write_data_card(run.workspace, draft.artifact, Silent()).path / "card.html").read_text(encoding="utf-8")
        assert said in html
        assert "There is a leak" in html
        assert "All steps took" not in html, "and nobody knows how long it took"


def test_data_without_labels(run_of: Callable[..., Any]) -> None:
    html = run_of(task="language-modelling").data_card
    Page(html)
    assert ">Label<" not in html


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 10), (3, 300, 200)])
def test_a_thumbnail_is_the_picture(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    ramp = np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)
    pixels = np.stack([ramp, 255 - ramp, ramp // 2][:channels])
    address = thumbnail(pixels.tobytes(), shape)
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as found:
        assert found.mode == ("L" if channels == 1 else "RGB")
        assert max(found.size) == min(64, max(height, width))
        if max(height, width) <= 64:
            shown = np.asarray(found).reshape(height, width, channels)
            assert np.array_equal(shown.transpose(2, 0, 1), pixels)


def test_every_reason_to_drop_a_record_has_words(tmp_path: Path) -> None:
    strict = CleanConfig(min_chars=3, max_chars=300, languages=("zh",), max_length_ratio=3, pii="drop")
    good = [
        (f"第 {row} 句各不相同的话，{row * row} 与 {row**3}", f"译文 {row * 7919} 各不相同 {row}") for row in range(90)
    ]
    bad = [
        (None, "甲乙丙丁"), ("甲乙丙丁", None), ("", "甲乙丙丁"), ("甲", "乙乙乙"), ("长" * 301, "甲乙丙丁"),
        ("only English here", "英文英文"), ("，。！", "甲乙丙丁"), ("甲乙丙\ufffd\ufffd", "甲乙丙丁"),
        ("甲" + "，。" * 60, "甲乙丙丁"), ("好" * 150, "甲乙丙丁"), ("甲乙丙丁戊\n" * 30, "甲乙丙丁"),
        ("打电话 13812345678 给我", "甲乙丙丁"), ("同一句话", "同一句话"), ("短短短", "很长" * 30),
        ("第 1 句各不相同的话，1 与 1", "另一个译文"), good[2], (good[3][0] + "。", good[3][1]),
    ]  # fmt: skip
    columns = {"text": [each[0] for each in good + bad], "target": [each[1] for each in good + bad]}
    batch = pa.RecordBatch.from_pydict({"source": [f"a:{n}" for n in range(len(good + bad))], **columns})
    found = set(prepare([batch], strict, SplitConfig(), tmp_path / "pairs")["dropped"])
    assert len(found) >= 14
    (tmp_path / "lines.jsonl").write_bytes(b'{"text": "a"}\nno\n{"text": 5}\n{"other": 1}\n{"text": "\xff\xfe\xfa"}\n')
    (tmp_path / "rows.csv").write_bytes(b"text,label\na,b,c\n")
    for name in ("lines.jsonl", "rows.csv"):
        for part in read_source(str(tmp_path / name), {"text": "text"}, base=tmp_path, samples=tmp_path):
            found |= {problem for problem in part.column("problem").to_pylist() if problem}
    assert {"bad_json", "malformed_row", "undecodable"} <= found
    assert found <= set(REASONS), found - set(REASONS)


def test_every_kind_has_a_name() -> None:
    assert set(PII) >= set(KINDS)
    assert set(PLACEHOLDERS) >= set(PLACEHOLDER_KINDS)
