"""Two of the stories, from nothing to their pages: a part that was taken, and likeness that proves nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "lineage"
TOLD = {
    "norm-gains-alike": "NO EVIDENCE",
    "a-component-taken": "PROVEN  partial  trained further  feed-forward",
}
SAID = {
    "norm-gains-alike": ("No evidence of kinship", "begin at 1 in nearly every model", "无论由谁训练"),
    "a-component-taken": ("Proven: not independent", "What they share is only a part: feed-forward parts", "前馈部分"),
}
MOST_BYTES = 150_000


def stories(*words: object) -> str:
    command = [sys.executable, str(BENCH / "stories.py"), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(folder: Path) -> dict[Path, int]:
    """The models in a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("artifacts/model/*/manifest.json")}


@pytest.mark.timeout(300)
def test_two_stories(tmp_path: Path, lineage_data: Path) -> None:
    into, (first, _) = tmp_path / "pages", TOLD
    words = ("--folder", tmp_path / "work", "--into", into, "--dataset", lineage_data, "--steps", 5, "--only")
    assert stories(*words, first) == f"{first}  {TOLD[first]}\n"
    models = written(tmp_path / "work" / "bases")
    assert len(models) == 6
    (into / f"{first}.html").unlink()
    assert stories(*words, *TOLD).splitlines() == [f"{name}  {said}" for name, said in TOLD.items()]
    again = written(tmp_path / "work" / "bases")
    assert {path: again[path] for path in models} == models, "models that are there are not made again"
    assert sorted(path.stem for path in into.iterdir()) == sorted(TOLD), "the table is written with all stories"
    for name, phrases in SAID.items():
        page = (into / f"{name}.html").read_text(encoding="utf-8")
        assert [each for each in phrases if each not in page] == []
        assert "danlu audit suspect against=reference controls=controls" in page
        assert len(page.encode()) < MOST_BYTES
        assert str(tmp_path) not in page
        assert not re.search(r"(src|href)=\"(?!#|data:)", page)
