"""Events of several processes, one file each."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from danlu.core.errors import CorruptError, DanluError
from danlu.core.events import EventLog, read_events

WRITE = """
import sys
from pathlib import Path
from danlu.core.events import EventLog
log = EventLog(Path(sys.argv[1]), "serve")
for number in range(200):
    log.write("request", who=sys.argv[2], number=number, text="丹" * 500)
"""


def test_events_of_several_processes_are_all_there_in_order(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path), str(who)]) for who in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    found = list(read_events(tmp_path))
    times = [event["time"] for event in found]
    assert times == sorted(times)
    for who in range(3):
        assert [event["number"] for event in found if event["who"] == str(who)] == list(range(200))
    assert len(list(tmp_path.iterdir())) == 3


def test_nothing_yet(tmp_path: Path) -> None:
    assert list(read_events(tmp_path / "none")) == []


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("one", text="质量很差")
    log.write("two", text="质量很差")
    content = log.path.read_bytes()
    end_of_first = content.index(b"\n") + 1
    for cut in range(end_of_first, len(content)):
        log.path.write_bytes(content[:cut])
        assert [event["event"] for event in read_events(tmp_path)] == ["one"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{"time": 1, "event": "\xff"}',
        b"7",
        b"null",
        b"[]",
        b"",
        b'{"event": "x"}',
        b'{"time": 1}',
        b'{"time": "1", "event": "x"}',
        b'{"time": NaN, "event": "x"}',
        b'{"time": 1e400, "event": "x"}',
        b'{"time": 1%s, "event": "x"}' % (b"0" * 400),
        b'{"time": true, "event": "x"}',
        b'{"time": 1, "event": 7}',
        b"[" * 10_000,
    ],
    ids=lambda line: line[:30].decode(errors="replace"),
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("one")
    log.path.write_bytes(log.path.read_bytes() + line + b"\n")
    log.write("three")
    with pytest.raises(CorruptError) as caught:
        list(read_events(tmp_path))
    assert caught.value.where == f"{log.path}:2"


KILL = """
import os, random, signal, sys, time
from pathlib import Path
from danlu.core.events import EventLog

draw = random.Random(1)
for child in range(200):
    said, says = os.pipe()
    number = os.fork()
    if not number:
        os.close(said)
        log = EventLog(Path(sys.argv[1]), "serve")
        at = 0
        while True:
            log.write("request", who=child, at=at, text="丹" * draw.randrange(10_000))
            os.write(says, at.to_bytes(4, "big"))
            at += 1
    os.close(says)
    acknowledged = os.read(said, 4)
    time.sleep(draw.random() * 0.002)
    os.kill(number, signal.SIGKILL)
    assert os.waitpid(number, 0)[1] == signal.SIGKILL
    while more := os.read(said, 4096):
        acknowledged += more
    os.close(said)
    assert len(acknowledged) % 4 == 0
    print(len(acknowledged) // 4)
"""


def test_of_200_processes_killed_while_they_write_no_acknowledged_event_is_lost(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILL, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True)
    n_acknowledged = [int(line) for line in done.stdout.split()]
    there: dict[int, list[int]] = {}
    for event in read_events(tmp_path):
        there.setdefault(event["who"], []).append(event["at"])
    assert len(n_acknowledged) == len(there) == len(list(tmp_path.iterdir())) == 200
    for who, n in enumerate(n_acknowledged):
        assert there[who] == list(range(len(there[who])))
        assert n <= len(there[who]) <= n + 1


def test_two_processes_of_one_number_in_one_second_have_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2026, 11, 26, 0, 0, 0, 3, 330, 0)))
    killed = EventLog(tmp_path, "serve")
    killed.write("one")
    killed.path.write_bytes(killed.path.read_bytes()[:-5])
    EventLog(tmp_path, "serve").write("two")
    assert [event["event"] for event in read_events(tmp_path)] == ["two"]


def test_only_what_is_written_at_every_request_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    monkeypatch.setattr(os, "fsync", lambda handle: waited.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    log = EventLog(tmp_path, "serve")
    log.write("request")
    assert waited == [str(tmp_path)], "the name of a new file"
    log.write("shadow")
    assert len(waited) == 1
    log.write("feedback")
    log.write_all("feedback", [{"number": 1}, {"number": 2}])
    assert waited[1:] == [str(log.path), str(log.path)]
    assert [event.get("number") for event in read_events(tmp_path)] == [None, None, None, 1, 2]


@given(st.text(st.characters(exclude_categories=[]), max_size=20))
@example("half a surrogate pair: \ud800")
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("events")
    EventLog(folder, "serve").write("feedback", text=text)
    assert [event["text"] for event in read_events(folder)] == [text]


def test_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\ng\r\nh"
    EventLog(tmp_path, "serve").write("feedback", text=text)
    assert [event["text"] for event in read_events(tmp_path)] == [text]


def test_chinese_is_readable_in_the_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("feedback", text="质量很差")
    assert "质量很差" in log.path.read_text(encoding="utf-8")
    assert json.loads(log.path.read_text(encoding="utf-8"))["event"] == "feedback"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("one")
    whole = log.path.read_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
    try:
        with pytest.raises(DanluError, match="could not write") as caught:
            log.write("two", text="x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.where == str(log.path)
    assert log.path.read_bytes() == whole
    log.write("three")
    assert [event["event"] for event in read_events(tmp_path)] == ["one", "three"]


def test_half_a_line_that_cannot_be_taken_back_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("one")
    n_bytes = log.path.stat().st_size
    _, hard = old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def no_cut(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Whole(io.FileIO):
        truncate = no_cut

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *_, **__: Whole(path, "ab"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes + 20, hard))
        try:
            with pytest.raises(DanluError, match="could not write"):
                log.write("two", text="x" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
    log.write("three")
    assert len(list(tmp_path.iterdir())) == 2
    assert [event["event"] for event in read_events(tmp_path)] == ["one", "three"]


def test_threads_share_a_log_of_a_full_disk(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "serve")
    written: list[int] = []

    def write(numbers: range) -> None:
        for number in numbers:
            with contextlib.suppress(DanluError):
                log.write("request", number=number, text="x" * 100 * (number % 7))
                written.append(number)

    _, hard = old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        threads = [threading.Thread(target=write, args=(range(at, 1200, 4),)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert 50 < len(written) < 1200
    assert sorted(event["number"] for event in read_events(tmp_path)) == sorted(written)


def test_a_folder_that_may_not_be_written_to_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DanluError, match="DANLU_HOME"):
        EventLog(tmp_path / "events", "serve")
