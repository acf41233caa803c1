"""Events of several processes, one file each."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
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


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log = EventLog(tmp_path, "serve")
    log.write("one")
    log.path.write_bytes(log.path.read_bytes() + b"{\xff}\n")
    log.write("three")
    with pytest.raises(CorruptError) as caught:
        list(read_events(tmp_path))
    assert caught.value.where == f"{log.path}:2"


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


def test_a_folder_that_may_not_be_written_to_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DanluError, match="DANLU_HOME"):
        EventLog(tmp_path / "events", "serve")
