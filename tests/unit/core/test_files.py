"""Files appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core import files
from danlu.core.errors import BusyError, CorruptError, DanluError
from danlu.core.files import (
    canonical_json,
    digest_of,
    explained,
    held,
    lock,
    publish,
    read_json,
    scratch_folder,
    sha256_file,
    write_atomic,
    write_json,
)

OLD = b"old" * 1000
NEW = b"new!" * 1000


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def await_word(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def fails(number: int) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# digests


def test_canonical_json_is_one_form_of_a_value() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "丹"}) == '{"a":"丹","b":[1,2.5,null]}'.encode()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_cannot_say_has_no_digest(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        digest_of(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "\\ud" not in ascii(value))


@settings(max_examples=50)
@given(json_values)
def test_a_digest_survives_a_round_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert digest_of(read_json(path)) == digest_of(value)


def test_sha256_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("content", [b"", b"{", b'"\xff"', b"[" * 100_000])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(CorruptError) as caught:
        read_json(path)
    assert caught.value.where == str(path)


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="missing"):
        read_json(tmp_path / "gone.json")


# write_atomic


def test_write_atomic_replaces_content_and_sets_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, OLD)
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomic(path, NEW, mode=0o600)
    assert path.read_bytes() == NEW
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["file"]


def test_a_secret_file_is_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    replace = Path.replace

    def watch(self: Path, target: Path) -> Path:
        seen.append(self.stat().st_mode & 0o777)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    write_atomic(tmp_path / "secret", NEW, mode=0o600)
    assert seen == [0o600]


@pytest.mark.parametrize(("owner", "name"), [(os, "fsync"), (os, "fchmod"), (Path, "replace")])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_failed_write_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails(number))
        with pytest.raises(DanluError) as caught:
            write_atomic(path, NEW)
    assert caught.value.where == str(path)
    assert caught.value.advice
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_an_interrupt_leaves_what_was_there_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    fsync, replace = os.fsync, Path.replace

    def watch_fsync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watch_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watch_fsync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    write_atomic(tmp_path / "file", NEW)
    assert order == ["file", "rename", "folder"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A disk of 64 KiB where one may be mounted, otherwise a folder and the limit to set on a file's size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield folder, 0 if mounted else 1 << 16
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from danlu.core.errors import DanluError
from danlu.core.files import publish, scratch_folder, write_atomic
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def many():
    with scratch_folder(folder) as scratch:
        (scratch / "part").write_bytes(bytes(1 << 17))
        publish(scratch, folder / "published")
for write in (lambda: write_atomic(folder / "file", bytes(1 << 17)), many):
    try:
        write()
    except DanluError as error:
        print("advice" if error.advice else "no advice")
"""


def test_a_full_disk_is_explained_and_leaves_the_old(small_disk: tuple[Path, int]) -> None:
    folder, limit = small_disk
    (folder / "file").write_bytes(OLD)
    (folder / ".scratch.lock").touch()
    before = names(folder)
    process = start(FILL_THE_DISK, folder, limit)
    assert process.communicate()[0].split() == ["advice"] * 2
    assert (folder / "file").read_bytes() == OLD
    assert names(folder) == before


KILL_AT = """
import os, signal, sys
from pathlib import Path
from danlu.core.files import write_atomic
path, point, count = Path(sys.argv[1]), sys.argv[2], [0]
def die(*_):
    count[0] += 1
    if count[0] == int(point.partition(" ")[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*_)
owner, name = (os, "fsync") if point.startswith("fsync") else (Path, "replace")
real = getattr(owner, name)
setattr(owner, name, die)
write_atomic(path, b"new!" * 1000)
"""


@pytest.mark.parametrize(("point", "expected"), [("fsync 1", OLD), ("rename 1", OLD), ("fsync 2", NEW)])
def test_killed_at_each_point_of_a_write(tmp_path: Path, point: str, expected: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    process = start(KILL_AT, path, point)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == expected


WRITE_FOR_EVER = """
import sys
from itertools import cycle
from pathlib import Path
from danlu.core.files import write_atomic
print("ready", flush=True)
for letter in cycle([b"a", b"b"]):
    write_atomic(Path(sys.argv[1]), letter * (1 << 21))
"""


def test_killed_at_any_instant_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * (1 << 21))
    for trial in range(4):
        process = start(WRITE_FOR_EVER, path)
        assert await_word(process) == "ready"
        time.sleep(random.Random(trial).uniform(0.0, 0.05))
        kill(process)
        content = path.read_bytes()
        assert len(content) == 1 << 21
        assert len(set(content)) == 1


# folders


def test_a_scratch_folder_is_gone_after_its_block(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch_folder(tmp_path / "parent") as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / "file").write_bytes(NEW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path / "parent") == [".scratch.lock"]


HOLD_SCRATCH = """
import sys
from pathlib import Path
from danlu.core.files import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "file").write_bytes(b"mine")
    print(folder, flush=True)
    sys.stdin.readline()
    print((folder / "file").read_bytes().decode(), flush=True)
"""


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    dead, living = start(HOLD_SCRATCH, tmp_path), start(HOLD_SCRATCH, tmp_path)
    left, held = Path(await_word(dead)), Path(await_word(living))
    kill(dead)
    assert left.exists()
    with scratch_folder(tmp_path) as mine, scratch_folder(tmp_path) as second:
        assert held.exists()
        assert len({mine, second, held}) == 3
    assert living.communicate("go on\n")[0] == "mine\n"
    assert left.exists()
    with scratch_folder(tmp_path):
        assert not left.exists()
    assert names(tmp_path) == [".scratch.lock"]


def test_publish_flushes_everything_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "target"
    flushed: list[tuple[int, bool]] = []
    fsync = os.fsync

    def watch(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, target.exists()))
        fsync(handle)

    with scratch_folder(tmp_path) as folder:
        (folder / "inner").mkdir()
        for name in ("a", "inner/b"):
            (folder / name).write_bytes(NEW)
        everything = {path.stat().st_ino for path in (folder, *folder.rglob("*"))}
        monkeypatch.setattr(os, "fsync", watch)
        publish(folder, target)
    assert {node for node, there in flushed if not there} == everything
    assert len(everything) == 4
    assert flushed[-1] == (tmp_path.stat().st_ino, True)
    assert (target / "inner" / "b").read_bytes() == NEW
    assert target.stat().st_mode & 0o777 == 0o755


def test_publish_never_replaces(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_bytes(OLD)
    with scratch_folder(tmp_path) as folder:
        (folder / "file").write_bytes(NEW)
        with pytest.raises(FileExistsError):
            publish(folder, tmp_path / "target")
    assert (tmp_path / "target" / "file").read_bytes() == OLD


def test_a_failed_flush_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_and_publish() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "file").write_bytes(NEW)
            publish(folder, tmp_path / "target")

    monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    with pytest.raises(DanluError):
        fill_and_publish()
    assert names(tmp_path) == [".scratch.lock"]


# locks

HOLD_LOCK = """
import sys
from pathlib import Path
from danlu.core.errors import BusyError
from danlu.core.files import lock
try:
    with lock(Path(sys.argv[1]), holder="the furnace"):
        print("held", flush=True)
        sys.stdin.readline()
except BusyError as error:
    print(error.what, flush=True)
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    with lock(path, holder="the furnace"):
        said = start(HOLD_LOCK, path).communicate("")[0]
    assert said.strip() == f"another process (pid {os.getpid()}) is at work on the furnace"
    assert start(HOLD_LOCK, path).communicate("")[0].strip() == "held"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = start(HOLD_LOCK, path)
    assert await_word(holder) == "held"
    with pytest.raises(BusyError, match=f"pid {holder.pid}"), lock(path, holder="it"):
        pass
    kill(holder)
    with lock(path, holder="it"):
        assert path.read_text() == f"pid {os.getpid()}"


def test_whether_a_lock_is_held_can_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not held(path)
    assert not path.exists(), "looking leaves nothing behind"
    holder = start(HOLD_LOCK, path)
    assert await_word(holder) == "held"
    assert held(path)
    kill(holder)
    assert not held(path)


def test_somebody_who_looks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    looking = path.open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: seconds and looking.close())
    with lock(path, holder="it"):
        assert path.read_text() == f"pid {os.getpid()}"


def test_a_lock_is_let_go_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "lock", holder="it"):
        raise ZeroDivisionError
    with lock(tmp_path / "lock", holder="it"):
        pass


# explained


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may write"),
        (errno.EPERM, "may write"),
        (errno.EROFS, "read-only"),
        (errno.EFBIG, "ulimit"),
    ],
)
def test_what_the_system_says_becomes_advice(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(DanluError, match=words) as caught, explained(tmp_path):
        fails(number)()
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, OSError)


def test_other_faults_keep_their_own_traceback(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained(tmp_path):
        fails(errno.ENOENT)()


def test_a_lock_that_may_not_be_written_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", fails(errno.EACCES))
    with pytest.raises(DanluError, match="could not write"), lock(tmp_path / "lock", holder="it"):
        pass
