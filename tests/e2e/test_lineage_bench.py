"""The smallest lineage benchmark, from nothing to its page: what has weights of the base is found, siblings are not."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "lineage"
N_MODELS, N_KIN = 18, 15
TYPES = {
    "copy": "identical",
    "renamed": "repackaged",
    "bf16": "repackaged",
    "int8": "quantised",
    "int4": "quantised",
    "prune-50": "pruned",
    "depth-upscale": "depth changed",
    "lora-4": "LoRA merged",
    "fine-tuned": "trained further",
    "partial-ff": "partial",
    "copy.noise-0.5": "noise added",
}
DISGUISES = {
    "copy.t2": {"reordered"},
    "copy.rotated": {"rotated", "heads turned"},
    "copy.t-all": {"rotated", "reordered", "rescaled", "heads turned"},
    "fine-tuned.t-all": {"rotated", "reordered", "rescaled", "heads turned"},
    "copy.noise-0.5": set(),
}


def bench(script: str, *words: object) -> str:
    command = [sys.executable, str(BENCH / f"{script}.py"), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.timeout(600)
def test_the_smallest_benchmark(tmp_path: Path, lineage_data: Path) -> None:
    place = ("--folder", tmp_path)
    building = (*place, "--scale", "small", "--workers", 1, "--dataset", lineage_data)
    assert f"{N_MODELS} models are there" in bench("build", *building)
    assert f"{N_MODELS} of {N_MODELS} models are there" in bench("build", *building)
    bench("run", *place, "--workers", 1, "--others", 1, "--no-scores")
    rows = rows_of(tmp_path / "results" / "pairs.csv")

    kin = {row["suspect"].partition(".")[2]: row for row in rows if row["relation"] == "kin"}
    assert len(kin) == N_KIN
    assert {name for name, row in kin.items() if row["verdict"] != "PROVEN"} == set()
    said = {name: json.loads(kin[name]["types"]) for name in TYPES}
    assert {name: types for name, types in said.items() if TYPES[name] not in types} == {}
    assert {name: set(json.loads(kin[name]["disguises"])) for name in DISGUISES} == DISGUISES

    others = [row for row in rows if row["relation"] in ("sibling", "unrelated")]
    assert len(others) == 3 + N_KIN
    assert [row for row in others if row["verdict"] in ("PROVEN", "STRONG")] == []

    bench("tell", *place, "--into", tmp_path / "docs")
    figures = {row["what"]: row for row in rows_of(tmp_path / "docs" / "figures.csv")}
    assert figures["kin found"]["k"] == str(N_KIN)
    assert figures["block of the reference right"]["k"] == figures["block of the reference right"]["n"]
    assert figures["wrong direction shown by the seed"]["k"] == "0"
    page = (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
    assert "模型谱系基准" in page
    assert page.count("<svg") >= 3


def test_a_row_that_a_kill_cut_off_is_made_again(tmp_path: Path) -> None:
    sys.path.insert(0, str(BENCH))
    try:
        from run import append, read_rows
    finally:
        sys.path.remove(str(BENCH))
    path = tmp_path / "rows.csv"
    append(path, ("a", "b"), [{"a": "1", "b": "2"}])
    with path.open("a", encoding="utf-8") as file:
        file.write("3,")
    assert read_rows(path) == [{"a": "1", "b": "2"}]
    append(path, ("a", "b"), [{"a": "5", "b": "6"}])
    assert [row["a"] for row in read_rows(path)] == ["1", "5"]
