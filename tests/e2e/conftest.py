from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from danlu.cli import main
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
