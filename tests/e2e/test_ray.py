"""`danlu data --engine ray` as a program of its own: one processor, no network, no noise, nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from network import attempts, no_network_env
from small import made_up, recipe_text, write_csv

MAIN = """
import os, sys
os.sched_getaffinity = lambda process: {0}  # said, not set: Ray's own dozen processes may share the work
from danlu.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'danlu[ray]'")
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("ray")
def test_data_under_ray(tmp_path: Path, danlu) -> None:
    write_csv(tmp_path / "texts.csv", [*made_up(240), *made_up(20), ("!!!", "good")])
    (tmp_path / "tiny.yaml").write_text(recipe_text())
    said = danlu("data", tmp_path / "tiny.yaml", "--json")
    assert said.code == 0, said.err

    home = tmp_path / "home"
    home.mkdir()
    words = ["data", str(tmp_path / "tiny.yaml"), "--engine", "ray", "--json", "-w", str(tmp_path / "other")]
    with tempfile.TemporaryDirectory(prefix="t") as short:  # Ray's sockets need a short path
        env = {**no_network_env(tmp_path / "block"), "HOME": str(home), "TMPDIR": short}
        env.pop("RAY_ADDRESS", None)
        command = [sys.executable, "-W", "error", "-c", MAIN, *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(Path(short).glob("danlu-*")) == []
    assert Path(json.loads(done.stdout)["dataset"]).name == Path(said.json["dataset"]).name  # its digest is in its name
    lines = done.stderr.splitlines()
    assert lines[0] == "data: texts.csv"
    assert lines[1].endswith(" on this machine, processors: 1")
    assert [line for line in lines[2:] if not line.startswith(("  ", "data card: "))] == []
    assert attempts(tmp_path / "block") == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
