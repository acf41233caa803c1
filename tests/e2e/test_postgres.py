"""The index when several processes use it at once, on SQLite and on a real PostgreSQL; and a server that says no.

What the index answers is tested in tests/unit/core/test_index.py, on both as well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from danlu.core import index as index_module
from danlu.core.errors import DanluError
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace

TAKING = """
import sys, time
from pathlib import Path
from danlu.core import index
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace

index._AT_ONCE = 13
url, root, who = sys.argv[1:]
workspace = Workspace(Path(root))
log, n = EventLog(workspace.events, who), 0
print("ready", flush=True)
sys.stdin.readline()
with Index.open(workspace, url) as opened:
    for at in range(10):
        log.write_all("request", ({"id": f"{who}-{at}-{number}", "name": "reviews"} for number in range(25)))
        n += opened.refresh()
        here = sum(event["id"].startswith(f"{who}-") for event in opened.events("request", name="reviews"))
        assert here == 25 * (at + 1), (who, at, here)
print(n)
"""


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path}/index.sqlite"
    return str(request.getfixturevalue("postgres"))


def test_four_processes_write_events_and_take_in_those_of_all(url: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    commands = [[sys.executable, "-c", TAKING, url, str(workspace.root), who] for who in "abcd"]
    pipe = subprocess.PIPE
    takers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for command in commands]
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    said = [taker.communicate(timeout=110) for taker in takers]
    assert [error for _, error in said] == [""] * 4
    n_taken = [int(out) for out, _ in said]
    with Index.open(workspace, url) as index:
        n = index.refresh()
        assert sum(n_taken) + n == 1_000, "no event was taken in by two"
        found = sorted(event["id"] for event in index.events("request"))
    assert found == sorted(f"{who}-{at}-{number}" for who in "abcd" for at in range(10) for number in range(25))


def test_a_server_that_was_restarted_meanwhile_is_no_error(postgres: str, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    EventLog(workspace.events, "serve").write("request", id="a")
    with Index.open(workspace, f"{postgres}&application_name={tmp_path.name}") as index:
        assert index.refresh() == 1
        with psycopg.connect(postgres, autocommit=True) as connection:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            assert connection.execute(ended, [tmp_path.name]).fetchall() == [(True,)]
        assert index.refresh() == 0
        assert index.request("a") is not None


@pytest.mark.parametrize("where", ["127.0.0.1:1/danlu", "/danlu?host=/nowhere"])
def test_a_server_that_is_not_there_is_said_to_be_so_without_the_password(tmp_path: Path, where: str) -> None:
    workspace = Workspace(tmp_path / "workspace")
    with pytest.raises(DanluError, match="the index cannot be used") as caught:
        Index.open(workspace, f"postgresql://me:secret@{where}")
    assert "secret" not in str(caught.value)
    assert "postgresql+psycopg://me:***@" in (caught.value.where or "")
    assert not workspace.root.exists()


def test_a_database_that_may_only_be_read_is_explained(postgres: str, tmp_path: Path) -> None:
    with pytest.raises(DanluError, match="read-only transaction") as caught:
        Index.open(Workspace(tmp_path), f"{postgres}%20-cdefault_transaction_read_only=on")
    assert "may be written to" in (caught.value.advice or "")


def test_of_rows_that_the_server_refuses_none_is_left(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "workspace")
    EventLog(workspace.events, "serve").write_all("request", [{"status": 200}, {"status": 500}])
    with Index.open(workspace, postgres) as index:
        with monkeypatch.context() as patch:
            patch.setattr(index_module, "_whole", lambda value: 2**40 if value == 500 else value)
            with pytest.raises(DanluError, match="out of range"):
                index.refresh()
        assert list(index.events("request")) == []
        assert index.refresh() == 2
