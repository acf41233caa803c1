"""``make loop`` with a tiny model and made-up texts, from nothing to a champion that has learnt from corrections."""

from __future__ import annotations

import csv
import importlib
import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from network import attempts, no_network_env

ROOT = Path(__file__).parents[2]
LOOP = ROOT / "bench" / "loop.py"
RECIPE = """
danlu: 1
name: pool
task: text-classification
seed: 1
data: {source: texts.csv, columns: {text: text, label: label}, clean: {dedup: exact}}
model: {family: bert, d_model: 16, n_layers: 1, n_heads: 2, d_ff: 32, max_len: 32}
train: {max_steps: 1}
ensemble: [tfidf-lr]
evaluate: {baselines: [gru], bootstrap: 100, permutations: 1000}
"""
USUAL = {"good": "好棒赞喜爱美快优", "bad": "差烂坏假脏慢贵退"}
OF_BOOKS = {"good": "顺满丽欢闲灵强", "bad": "烦闷厌脱缺错险"}
BOTH = "的了我这个买很就是在到有和也不人都一上说"


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(LOOP.parent)


def write_texts(path: Path) -> None:
    """Texts of two kinds; what tells the label of one says nothing of the other's."""
    draw = random.Random(1)
    rows = []
    for words, mark, n in ((USUAL, "房", 1600), (OF_BOOKS, "书", 660)):
        for number in range(n):
            label = ("bad", "good")[number % 2]
            letters = [*draw.choices(words[label], k=3), *draw.choices(BOTH, k=draw.randint(8, 28)), *mark]
            draw.shuffle(letters)
            rows.append(("".join(letters), label))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def run(tmp_path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(LOOP), "--sizes", "tiny", "--no-pictures", *map(str, words)]
    environment = {**no_network_env(tmp_path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)


@pytest.mark.timeout(900)
def test_the_loop_closes(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    folder = tmp_path / "loop"
    done = run(tmp_path, "--folder", folder, "--samples", tmp_path / "samples", "--recipe", tmp_path / "recipe.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert attempts(tmp_path) == []
    facts: dict[str, Any] = json.loads((folder / "outcome" / "outcome.json").read_text(encoding="utf-8"))
    assert facts["requests"]["failed"] == 0
    assert facts["requests"]["n"] > 1000
    assert facts["held_out"]["low"] > 0.85 > 0.65 > facts["shift"]["high"]
    assert facts["shift"]["requests_to_alarm"] <= 300
    assert facts["improve"]["gate"]["low"] > 0
    assert facts["improve"]["lies"]["n_used"] < facts["improve"]["lies"]["n"] == 40
    assert facts["trial"]["decision"] == "superior"
    assert facts["trial"]["challenger"]["low"] > facts["trial"]["champion"]["high"]
    assert facts["again"]["low"] > facts["shift"]["high"]
    old, new = facts["train"]["digest"], facts["improve"]["digest"]
    champions = [each["digest"] for each in facts["history"] if each["alias"] == "champion"]
    assert champions == [old, new, old, new]
    page = (folder / "outcome" / "README.md").read_text(encoding="utf-8")
    assert f"0 of {facts['requests']['n']:,}" in page
    assert "失败的请求" in page


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = run(tmp_path, "--folder", tmp_path / "mine")
    assert done.returncode == 1
    assert "is not empty, and was not made by this script" in done.stderr
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_failed_request_is_counted() -> None:
    driver = importlib.import_module("loop_driver")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = driver.Client(taken.getsockname()[1], "reviews")
        assert client.replay([driver.Request("a", "b", "c")] * 3) == []
    assert (client.n, len(client.failed)) == (3, 3)


def signal_of(alarm_at: int | None) -> dict[str, Any]:
    return {"series": "content", "signal": "length", "p_adjusted": 0.5, "excess": 0.3, "alarm_at": alarm_at}


@pytest.mark.parametrize(
    ("step", "alarm_at", "what"),
    [
        ("quiet", None, None),
        ("quiet", 3, "no alarm before the shift"),
        ("shift", None, "an alarm about what is asked"),
        ("shift", 2, "after the shift, not at window 2"),
        ("shift", 13, None),
    ],
)
def test_an_alarm_in_its_place_and_no_other(tmp_path: Path, step: str, alarm_at: int | None, what: str | None) -> None:
    loop, driver = importlib.import_module("loop"), importlib.import_module("loop_driver")
    pages, traffic = importlib.import_module("loop_pages"), importlib.import_module("loop_traffic")
    asked = [driver.Request("a", "b", "good")] * 240
    made = loop.Loop(tmp_path, pages.Pages(tmp_path, wanted=False), traffic.SIZES["tiny"], [])
    made.texts = traffic.Texts([], [], asked, asked[:40], [], [], 0, 0)
    found = {"signals": [signal_of(alarm_at)], "watch": {"window": 20}, "n_requests": 280}
    made.danlu = lambda *_: found
    answers = [driver.Answer(each, "r", "", "good", 0.9) for each in asked[:40]]

    class Client:
        n = 0

        def replay(self, requests: Any) -> Any:
            self.n += len(requests)
            return answers

    made.client, made.server = Client(), type("Server", (), {"address": ""})
    if what is None:
        getattr(made, step)()
    else:
        with pytest.raises(driver.LoopError, match=what):
            getattr(made, step)()


def test_each_text_has_one_use_and_books_are_left_out(tmp_path: Path) -> None:
    traffic = importlib.import_module("loop_traffic")
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_texts(tmp_path / "texts.csv")
    with (tmp_path / "texts.csv").open(encoding="utf-8", newline="") as file:
        rows = list({row["text"]: row for row in csv.DictReader(file)}.values())
    for number, split in enumerate(("train", "valid", "test")):
        pq.write_table(pa.Table.from_pylist(rows[number::3]), tmp_path / f"{split}.parquet")
    dealt = traffic.deal(tmp_path, traffic.SIZES["tiny"])
    again = traffic.deal(tmp_path, traffic.SIZES["tiny"])
    assert dealt == again
    requests = [*dealt.held_out, *dealt.shifted, *dealt.trial, *dealt.after]
    texts = [*(text for text, _ in [*dealt.train, *dealt.gold]), *(each.text for each in requests)]
    assert len(set(texts)) == len(texts)
    assert not [text for text, _ in dealt.train if "书" in text]
    assert sum("書" in each.text for each in dealt.shifted) > 200
    assert not [each.text for each in requests[240:] if "爱" in each.text or "书" in each.text]
    with pytest.raises(ValueError, match="too few"):
        traffic.deal(tmp_path, traffic.Sizes())
