"""The index: everything once, whoever takes it in and whenever that is killed; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import math
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from danlu.core import database
from danlu.core import index as index_module
from danlu.core.errors import BusyError, CorruptError, DanluError, UsageError
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace

Write = Callable[..., None]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of an empty database."""
    monkeypatch.delenv("DANLU_INDEX", raising=False)
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path}/index.sqlite"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def index(url: str, workspace: Workspace) -> Iterator[Index]:
    with Index.open(workspace, url) as opened:
        yield opened


@pytest.fixture
def write(workspace: Workspace) -> Write:
    """Write an event at a time that is given."""
    log = EventLog(workspace.events, "serve")

    def written(event: str, time: float, **facts: Any) -> None:
        log.write(event, **{"time": time, "name": "reviews", **facts})

    return written


def event_file(workspace: Workspace) -> Path:
    (path,) = workspace.events.iterdir()
    return path


def remove(url: str) -> None:
    """Do away with an index as its error says, whoever has it open."""
    if url.startswith("sqlite"):
        for end in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + end).unlink(missing_ok=True)
        return
    place = database.Database(url, Path("unused"))
    with place.writing() as connection:
        for table in (database.EVENTS, database.FILES):
            table.drop(connection)
    place.close()


def ids(events: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


# Taking in


def test_nothing_yet(index: Index) -> None:
    assert index.refresh() == 0
    assert list(index.events("request")) == []
    assert index.request("x") is None
    assert index.traffic("reviews", 60, 0) == []
    assert (index.open_questions("reviews", 9), index.n_open_questions("reviews")) == ([], 0)
    assert list(index.feedback("reviews")) == []


def test_every_event_once_and_whole(index: Index, url: str, workspace: Workspace, write: Write) -> None:
    write("request", 1, id="a", inputs=["质量很差", "half a pair: \ud800", "nul: \0"], status=200, seconds=0.1)
    assert index.refresh() == 1
    assert index.refresh() == 0
    write("request", 2, id="b")
    EventLog(workspace.events, "other").write("request", id="c", time=1.5, name="reviews")
    assert index.refresh() == 2
    assert ids(index.events("request")) == ["a", "c", "b"]
    remove(url)
    assert index.refresh() == 3
    assert ids(index.events("request")) == ["a", "c", "b"]
    assert index.request("a") == json.loads(event_file_of(workspace, "serve").read_text().splitlines()[0])
    assert index.request("a") == index.find("request", "a")
    assert index.find("feedback", "a") is None


def event_file_of(workspace: Workspace, process: str) -> Path:
    (path,) = workspace.events.glob(f"{process}-*")
    return path


def test_what_is_asked_for_and_nothing_else(index: Index, write: Write) -> None:
    write("request", 1, id="a", digest="d")
    write("request", 2, id="b", digest="e")
    write("request", 3, id="c", digest="d", name="digits")
    write("alert", 4, id="d", digest="d")
    index.refresh()
    assert ids(index.events("request")) == ["a", "b", "c"]
    assert ids(index.events("alert")) == ["d"]
    assert ids(index.events("request", name="reviews")) == ["a", "b"]
    assert ids(index.events("request", digest="d")) == ["a", "c"]
    assert ids(index.events("request", name="reviews", digest="d")) == ["a"]
    assert ids(index.events("request", after=2)) == ["b", "c"]
    assert ids(index.events("request", before=2)) == ["a"]
    assert ids(index.events("request", after=2, before=3)) == ["b"]
    assert ids(index.events("request", name="")) == []


def test_a_large_file_is_taken_in_in_parts(
    index: Index, url: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        write("request", number, id=str(number), inputs=["x" * number * 10])
    expected = [str(number) for number in range(50)]
    for at_once, n_bytes in ((7, 2**20), (50, 2**20), (1, 2**20), (1000, 500)):
        monkeypatch.setattr(index_module, "_AT_ONCE", at_once)
        monkeypatch.setattr(index_module, "_BYTES_AT_ONCE", n_bytes)
        remove(url)
        assert index.refresh() == 50
        assert ids(index.events("request")) == expected


def test_a_last_line_is_left_until_it_is_whole(index: Index, workspace: Workspace, write: Write) -> None:
    write("request", 1, id="a")
    write("request", 2, id="质")
    path = event_file(workspace)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[:3])
    assert index.refresh() == 0
    path.write_bytes(whole[:first])
    assert index.refresh() == 1
    for cut in range(first + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert index.refresh() == 0
    path.write_bytes(whole)
    assert index.refresh() == 1
    assert ids(index.events("request")) == ["a", "质"]


@pytest.mark.parametrize("how", ["shorter", "empty", "other", "other and longer", "gone"])
def test_a_file_that_was_changed_is_noticed(
    index: Index, url: str, workspace: Workspace, write: Write, how: str
) -> None:
    write("request", 1, id="a")
    write("request", 2, id="b")
    index.refresh()
    path = event_file(workspace)
    lines = path.read_bytes().splitlines(keepends=True)
    other = lines[1].replace(b'"b"', b'"c"')
    left = {"shorter": lines[:1], "empty": [], "other": [lines[0], other], "other and longer": [lines[0], other, other]}
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"".join(left[how]))
    for _ in range(2):
        with pytest.raises(CorruptError, match="is gone" if how == "gone" else "was changed") as caught:
            index.refresh()
        assert caught.value.where == str(path)
        assert "the index is built anew" in (caught.value.advice or "")
    assert ids(index.events("request")) == ["a", "b"], "what is there is left as it is"
    remove(url)
    assert index.refresh() == len(left.get(how, []))
    assert len(ids(index.events("request"))) == len(left.get(how, []))
    assert index.refresh() == 0


@pytest.mark.parametrize("line", [b"{", b"null"])
def test_a_damaged_line_is_named(index: Index, workspace: Workspace, write: Write, line: bytes) -> None:
    write("request", 1, id="a")
    index.refresh()
    path = event_file(workspace)
    path.write_bytes(path.read_bytes() + line + b"\n")
    write("request", 3, id="c")
    for _ in range(2):
        with pytest.raises(CorruptError, match="not an event") as caught:
            index.refresh()
        assert caught.value.where == f"{path}:2"
    assert ids(index.events("request")) == ["a"]
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]))
    assert index.refresh() == 1
    assert ids(index.events("request")) == ["a", "c"]


facts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=8)
    | st.sampled_from(["\0", "\ud800", "x" * 300, "丹" * 10_000, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
keys = st.sampled_from(
    [
        "id",
        "name",
        "digest",
        "request",
        "index",
        "source",
        "status",
        "seconds",
        "correct",
        "label",
        "text",
        "rating",
        "comment",
    ]
)


def test_whatever_an_event_holds_it_is_taken_in_and_found_again(index: Index, workspace: Workspace) -> None:
    log = EventLog(workspace.events, "serve")

    @given(st.sampled_from(["request", "feedback", "question", "\0", "x" * 9_000]), st.dictionaries(keys, facts))
    @example("feedback", {"id": "\0", "request": "\ud800", "source": {"kind": "\0", "id": "x" * 9_000}, "index": 2**40})
    @example("request", {"id": "x" * 9_000, "status": 10**30, "seconds": -math.inf, "name": "y" * 9_000})
    def check(event: str, facts: dict[str, Any]) -> None:
        log.write(event, **facts)
        assert index.refresh() == 1
        written = json.loads(log.path.read_bytes().split(b"\n")[-2])
        assert [repr(found) for found in index.events(event, after=written["time"])] == [repr(written)]
        if isinstance(given := facts.get("id"), str):
            assert repr(index.find(event, given)) == repr(written)
        if isinstance(name := facts.get("name"), str):
            assert repr(written) in map(repr, index.events(event, name=name))
            assert len(list(index.feedback(name))) >= (event == "feedback")
            assert len(index.open_questions(name, 1)) >= (event == "question")
            assert all(bucket["n"] for bucket in index.traffic(name, 60, 0))

    check()


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from danlu.core import index
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace

index._AT_ONCE = 7
url, workspace = sys.argv[1], Workspace(Path(sys.argv[2]))
log = EventLog(workspace.events, "serve")
steps = n_before = 0

def step(*_):
    global steps
    steps += 1
    if steps == deadly:
        os.kill(os.getpid(), signal.SIGKILL)

def there():
    with Index.open(workspace, url) as opened:
        return [event["number"] for event in opened.events("request")]

for deadly in range(1, 1000):
    log.write_all("request", ({"number": n} for n in range(10 * (deadly - 1), 10 * deadly)))
    child = os.fork()
    if not child:
        event.listen(Engine, "before_cursor_execute", step)
        event.listen(Engine, "commit", step)
        with Index.open(workspace, url) as opened:
            opened.refresh()
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    assert ended in (0, signal.SIGKILL), ended
    found = there()
    assert found == list(range(len(found))) and n_before <= len(found), found
    with Index.open(workspace, url) as opened:
        opened.refresh()
    assert there() == list(range(10 * deadly))
    n_before = 10 * deadly
    if ended == 0:
        break
print(deadly)
"""


def test_killed_at_any_step_nothing_is_twice_and_nothing_is_left_out(url: str, workspace: Workspace) -> None:
    command = [sys.executable, "-c", KILLED, url, str(workspace.root)]
    done = subprocess.run(command, check=True, timeout=100, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) > 10


def test_workspaces_that_share_a_database_are_told_apart_and_asked_together(
    index: Index, url: str, workspace: Workspace, write: Write, tmp_path: Path
) -> None:
    other = Workspace(tmp_path / "other")
    log = EventLog(other.events, "serve")
    log.path = other.events / "same.jsonl"
    log.write("request", time=2, id="theirs", name="reviews")
    write("request", 1, id="mine")
    event_file(workspace).rename(workspace.events / "same.jsonl")
    index.refresh()
    with Index.open(other, url) as second:
        assert second.refresh() == 1
        assert ids(second.events("request", name="reviews")) == ["mine", "theirs"]
        remove(url)
        assert (second.refresh(), index.refresh()) == (1, 1)
        assert ids(second.events("request", name="reviews")) == ["mine", "theirs"]
    workspace.root.rename(tmp_path / "moved")
    with Index.open(Workspace(tmp_path / "moved"), url) as moved:
        assert moved.refresh() == 0, "it is the same workspace wherever it is"


def test_who_reads_does_not_wait_and_sees_no_half(index: Index, write: Write) -> None:
    for number in range(3_000):
        write("request", number, id=str(number))
    index.refresh()
    reading = index.events("request")
    first = next(reading)
    write("request", 5_000, id="late")
    assert index.refresh() == 1
    assert [first["id"], *ids(reading)] == [str(number) for number in range(3_000)]


def test_who_opens_it_to_read_does_not_wait(
    index: Index, url: str, workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.2)
    write("request", 1, id="a")
    index.refresh()
    place = database.Database(url, Path("unused"))
    with place.writing(), Index.open(workspace, url) as second:
        assert second.request("a") is not None
        assert second.refresh() == 0, "nothing to write"
    place.close()


def test_threads_may_share_it(index: Index, write: Write) -> None:
    for number in range(100):
        write("request", number, id=str(number))
    found: list[int] = []

    def use() -> None:
        index.refresh()
        found.append(len(list(index.events("request"))))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [100] * 8


def test_who_waits_too_long_is_told(
    url: str, workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.2)
    write("request", 1)
    place = database.Database(url, Path("unused"))
    with Index.open(workspace, url) as index, place.writing(), pytest.raises(BusyError, match="another process"):
        index.refresh()
    place.close()


# What is asked


def source(kind: str, who: str) -> dict[str, str]:
    return {"kind": kind, "id": who}


def test_of_feedback_the_latest_of_each_request_input_and_source_counts(index: Index, write: Write) -> None:
    mine, yours = source("user", "me"), source("user", "you")
    write("request", 1, id="r", inputs=["a", "b"])
    write("feedback", 2, id="1", request="r", index=0, source=mine, correct=True, digest="d")
    write("feedback", 3, id="2", request="r", index=0, source=yours, correct=True, digest="d")
    write("feedback", 4, id="3", request="r", index=1, source=mine, label="neg", digest="d")
    write("feedback", 6, id="4", request="r", index=0, source=mine, correct=False, digest="d")
    write("feedback", 5, id="5", request="r", index=0, source=mine, correct=True, digest="d")
    write("feedback", 7, id="6", request="unknown", index=0, source=mine, correct=True, digest="e")
    write("feedback", 8, id="7", request="r", index=0, source=mine, correct=True, name="digits")
    for number in ("8", "9"):
        write("feedback", 9, id=number, request=None, source=source("import", "file"), label="pos", input="c")
    index.refresh()
    found = list(index.feedback("reviews"))
    assert ids(found) == ["2", "3", "4", "6", "8", "9"]
    asked = index.request("r")
    assert asked is not None
    assert [event["asked"] for event in found] == [asked, asked, asked, None, None, None]
    assert found[2]["correct"] is False
    assert ids(index.feedback("reviews", before=6)) == ["2", "3", "5"], "what counted then"
    assert ids(index.feedback("reviews", after=5)) == ["4", "6", "8", "9"]
    assert ids(index.feedback("reviews", digest="e")) == ["6"]
    assert ids(index.feedback("digits")) == ["7"]


def test_of_two_at_one_instant_the_one_written_later_counts(index: Index, write: Write) -> None:
    for number in range(9):
        write("feedback", 1, id=str(number), request="r", index=0, source=source("user", "me"), correct=True)
    index.refresh()
    assert ids(index.feedback("reviews")) == ["8"]


def test_questions_are_open_until_a_labeller_answers(index: Index, write: Write) -> None:
    for at, request in enumerate("abc"):
        write("question", at, id=f"q{request}", request=request, index=0)
    write("question", 5, id="again", request="b", index=0)
    write("question", 6, id="other input", request="b", index=1)
    write("question", 7, id="other model", request="z", index=0, name="digits")
    write("feedback", 8, id="1", request="a", index=0, source=source("user", "labeller:me"), correct=True)
    write("feedback", 9, id="2", request="c", index=1, source=source("labeller", "me"), label="x")
    index.refresh()
    assert ids(index.open_questions("reviews", 9)) == ["qa", "qb", "qc", "other input"]
    assert ids(index.open_questions("reviews", 2)) == ["qa", "qb"]
    assert ids(index.open_questions("digits", 2)) == ["other model"]
    assert (index.n_open_questions("reviews"), index.n_open_questions("digits")) == (4, 1)
    write("feedback", 9, id="3", request="b", index=0, source=source("labeller", "me"), label="x")
    index.refresh()
    assert ids(index.open_questions("reviews", 9)) == ["qa", "qc", "other input"]
    assert index.n_open_questions("reviews") == 3


def test_traffic_is_what_plain_arithmetic_says(index: Index, write: Write) -> None:
    draw = random.Random(1)
    requests = [
        (draw.uniform(1000, 1300), draw.choice([200, 404, 499, 500, 503]), draw.lognormvariate(-4, 1))
        for _ in range(500)
    ]
    for time, status, seconds in requests:
        write("request", time, status=status, seconds=seconds)
    write("request", 1100, status=200, seconds=1.0, name="digits")
    write("request", 1100)
    index.refresh()
    expected = []
    for start in range(990, 1300, 45):
        mine = [each for each in requests if start <= each[0] < start + 45 and each[0] >= 1030]
        if mine:
            quantiles = np.quantile([seconds for _, _, seconds in mine], [0.5, 0.95, 0.99])
            failed = sum(status >= 500 for _, status, _ in mine)
            expected.append((start, len(mine), failed, *quantiles))
    found = index.traffic("reviews", 45, 1030)
    assert [tuple(bucket.values()) for bucket in found] == [pytest.approx(bucket) for bucket in expected]
    assert list(found[0]) == ["start", "n", "n_failed", "p50", "p95", "p99"]
    json.dumps(found)


def test_a_lonely_request_is_a_bucket(index: Index, write: Write) -> None:
    write("request", 60, status=200, seconds=0.5)
    write("request", 600, status=500, seconds=0.25)
    index.refresh()
    assert index.traffic("reviews", 60, 0) == [
        {"start": 60.0, "n": 1, "n_failed": 0, "p50": 0.5, "p95": 0.5, "p99": 0.5},
        {"start": 600.0, "n": 1, "n_failed": 1, "p50": 0.25, "p95": 0.25, "p99": 0.25},
    ]
    assert [bucket["start"] for bucket in index.traffic("reviews", 60, 61)] == [600.0]


# Where it is


def test_in_the_workspace_unless_the_environment_says_otherwise(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DANLU_INDEX", raising=False)
    Index.open(workspace).close()
    assert sorted(path.name for path in workspace.root.iterdir()) == ["identity", "index.sqlite"]
    monkeypatch.setenv("DANLU_INDEX", f"sqlite:///{tmp_path}/elsewhere/index.sqlite")
    Index.open(workspace).close()
    assert (tmp_path / "elsewhere" / "index.sqlite").exists()


@pytest.mark.parametrize(
    "url",
    ["", "postgres", "mysql://me:secret@host/x", "sqlite://", "sqlite:///:memory:", "postgresql://me:secret@host:x/y"],
)
def test_what_is_no_place_is_refused_and_no_password_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DANLU_INDEX", url)
    if not url:
        Index.open(workspace).close()
        return
    with pytest.raises(UsageError, match="not the URL of an index") as caught:
        Index.open(workspace)
    assert "secret" not in str(caught.value)
    assert not workspace.root.exists()


def test_sqlite_on_a_network_disk_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = f"1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {workspace.root.parent} rw shared:1 - nfs4 host:/x rw\n"
    read_text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: mounts if path.name == "mountinfo" else read_text(path, **how)
    )
    with pytest.raises(UsageError, match=r"network disk \(nfs4\)") as caught:
        Index.open(workspace)
    assert "DANLU_INDEX" in (caught.value.advice or "")


def told_once(said: pytest.LogCaptureFixture, path: Path) -> bool:
    """Whether one line has told of a damaged index since the last look."""
    lines = [record.getMessage() for record in said.records if record.name == "danlu.core.database"]
    said.clear()
    return len(lines) == 1 and "damaged" in lines[0] and str(path) in lines[0]


def test_a_damaged_index_of_the_workspace_is_built_anew_by_itself(
    workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("DANLU_INDEX", raising=False)
    expected = [str(number) for number in range(500)]
    for number in expected:
        write("request", int(number), id=number)
    path = workspace.root / "index.sqlite"
    path.write_bytes(b"no database" * 1000)
    with Index.open(workspace) as index:
        assert told_once(caplog, path)
        assert index.refresh() == 500
        assert ids(index.events("request")) == expected
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))  # all but what says which tables there are
    with Index.open(workspace) as index:
        assert caplog.records == []
        assert index.refresh() == 500
        assert told_once(caplog, path)
        assert ids(index.events("request")) == expected
        assert index.refresh() == 0
    assert caplog.records == []


def test_damage_that_shows_late_is_an_error_and_then_mended(
    workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("DANLU_INDEX", raising=False)
    for number in range(500):
        write("request", number, id=str(number), inputs=["x" * 500])
    with Index.open(workspace) as index:
        index.refresh()
    path = workspace.root / "index.sqlite"
    whole = bytearray(path.read_bytes())
    for page in range(10 * 4096, len(whole), 4096):
        if b'"event": "request"' in whole[page : page + 4096]:
            whole[page : page + 8] = b"\xff" * 8
    path.write_bytes(bytes(whole))
    with Index.open(workspace) as kept, Index.open(workspace) as other:
        assert kept.refresh() == 0
        with pytest.raises(CorruptError, match="the index was damaged") as caught:
            list(kept.events("request"))
        assert "do the same again" in (caught.value.advice or "")
        assert told_once(caplog, path)
        assert other.refresh() == 500, "whoever else has it open goes over to the new one"
        assert kept.refresh() == 0
        assert len(ids(kept.events("request"))) == len(ids(other.events("request"))) == 500
    assert caplog.records == []


def test_a_damaged_file_that_somebody_named_is_left_alone(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptError, match="the index is damaged") as caught:
        Index.open(workspace, f"sqlite:///{path}")
    assert caught.value.where == str(path)
    assert f"remove {path}" in (caught.value.advice or "")
    assert path.read_bytes() == b"no database" * 1000


def test_an_index_of_an_older_format_is_built_anew(
    workspace: Workspace, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DANLU_INDEX", raising=False)
    write("request", 1, id="a")
    with sqlite3.connect(workspace.root / "index.sqlite") as connection:
        connection.execute("CREATE TABLE danlu_events_0 (file INTEGER, line INTEGER, body TEXT)")
        connection.execute("CREATE TABLE danlu_files_0 (id INTEGER, name TEXT)")
    connection.close()
    with Index.open(workspace) as index:
        assert index.refresh() == 1
        assert ids(index.events("request")) == ["a"]


def test_an_index_that_may_not_be_written_to_is_explained(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DanluError, match="could not write"):
        Index.open(workspace, f"sqlite:///{tmp_path}/file/index.sqlite")
    with pytest.raises(DanluError, match="the index cannot be used: unable to open"):
        Index.open(workspace, f"sqlite:///{tmp_path}")


def test_an_event_file_that_cannot_be_read_is_named(workspace: Workspace, write: Write) -> None:
    write("request", 1)
    path = event_file(workspace)
    path.rename(path.with_suffix(".old"))
    path.mkdir()
    with Index.open(workspace) as index, pytest.raises(DanluError, match="cannot be read") as caught:
        index.refresh()
    assert caught.value.where == str(path)


def test_postgresql_without_its_driver_says_what_to_install(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match="psycopg") as caught:
        Index.open(workspace, "postgresql://me@host/x")
    assert caught.value.advice == "pip install 'danlu[postgres]'"


def test_an_identity_that_a_crash_cut_short_is_drawn_again(workspace: Workspace) -> None:
    path = workspace.root / "identity"
    Index.open(workspace).close()
    drawn = path.read_text()
    Index.open(workspace).close()
    assert path.read_text() == drawn
    path.write_text(drawn[:9])
    Index.open(workspace).close()
    assert len(path.read_text()) == len(drawn)
    assert not path.read_text().startswith(drawn[:9])


def test_the_tables_can_be_read_by_other_programs(workspace: Workspace, write: Write) -> None:
    write("request", 1, id="a", status=200)
    with Index.open(workspace) as index:
        index.refresh()
    with sqlite3.connect(workspace.root / "index.sqlite") as connection:
        assert connection.execute("SELECT id, status FROM danlu_events_1").fetchall() == [("a", 200)]
    connection.close()
