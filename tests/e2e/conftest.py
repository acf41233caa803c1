from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.cli import main
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.stage import DataConfig, build_dataset
from network import no_network


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


class Danlu:
    """The command line in this process, with the network taken away."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.workspace = folder / "workspace"
        self._capture = capture
        self._monkeypatch = monkeypatch

    def __call__(self, *words: str | Path, stdin: bytes = b"") -> Said:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended, no_network(loopback=False):
            main([*map(str, words), "-w", str(self.workspace)])
        out, err = self._capture.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    def files(self) -> list[str]:
        """Every file of the workspace, locks left out."""
        found = self.workspace.rglob("*")
        return sorted(str(p.relative_to(self.workspace)) for p in found if p.is_file() and "lock" not in p.name)


@pytest.fixture
def danlu(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Danlu:
    monkeypatch.delenv("DANLU_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return Danlu(tmp_path, capsys, monkeypatch)


@pytest.fixture
def lineage_data(tmp_path: Path) -> Path:
    """The datasets that the benchmark wants, of made-up texts: what a character may be followed by is drawn."""
    draw = np.random.default_rng(1)
    chance = 1 / np.arange(5, 705)
    chance /= chance.sum()
    followers = draw.choice(700, (700, 6), p=chance)
    folder = tmp_path / "data"
    for name, n in {"tang": 1200, "song": 400, "song-2": 100, "song-3": 100}.items():
        rows = draw.choice(700, (n, 1), p=chance)
        while rows.shape[1] < 48:
            likely = followers[rows[:, -1], draw.integers(0, 6, n)]
            other = draw.choice(700, n, p=chance)
            rows = np.column_stack([rows, np.where(draw.random(n) < 0.7, likely, other)])
        path = tmp_path / f"{name}.jsonl"
        texts = ("".join(chr(0x4E00 + number) for number in row) for row in rows.tolist())
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        clean = {"dedup": "none", "garbage": False, "pii": "keep"}
        split = {"valid": 0.1, "test": 0.0}
        config = DataConfig(source=path.name, columns={"text": "text"}, clean=clean, split=split)
        build_dataset(Workspace(folder), name, config, tmp_path, Silent())
    return folder
