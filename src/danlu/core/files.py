"""Writing that survives a crash, and digests of what was written.

A file or folder appears whole or not at all: it is written under a temporary name beside its final place, flushed to
the disk, renamed, and the folder that now holds the name is flushed too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from danlu.core.errors import BusyError, CorruptError, DanluError

__all__ = [
    "canonical_json",
    "digest_of",
    "explained",
    "fsync_folder",
    "held",
    "lock",
    "publish",
    "read_json",
    "scratch_folder",
    "sha256_file",
    "write_atomic",
    "write_json",
]

_MOMENT = 0.05
"""Seconds after which a lock is tried once more: who looks whether it is held has it for an instant."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and no non-finite numbers: the same value gives the same bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole or not at all.

    Args:
        path: Where.
        content: All of it.
        mode: The file's permissions.

    Raises:
        DanluError: The disk is full, or the folder may not be written to; what was there before is intact.
    """
    with explained(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def write_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write a value as indented JSON, whole or not at all; see :func:`write_atomic`."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, f"{text}\n".encode(), mode=mode)


def read_json(path: Path) -> Any:
    """Read a JSON file that danlu wrote.

    Raises:
        CorruptError: It is not there, or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptError("the file is missing", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"not valid JSON: {error}", where=str(path)) from error


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A folder to fill before it is published; whatever of it is left when the block ends is removed.

    Everybody with such a folder shares a lock on the parent. Who comes while nobody has it sweeps what killed processes
    left; a process number would not do, for two containers on one disk both have a process 7.

    Raises:
        DanluError: The disk is full, or the parent may not be written to.
    """
    with explained(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with (parent / ".scratch.lock").open("a+") as gate:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for stale in parent.glob(".scratch-*"):
                    shutil.rmtree(stale, ignore_errors=True)
            fcntl.flock(gate, fcntl.LOCK_SH)
            folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=parent))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Give a filled folder its final name, after every byte of it is on the disk.

    Raises:
        DanluError: The disk is full or may not be written to.
        FileExistsError: Another folder has the name.
    """
    with explained(target):
        for path in (*folder.rglob("*"), folder):
            if path.is_dir():
                fsync_folder(path)
            else:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise FileExistsError(target) from error
            raise
        fsync_folder(target.parent)


@contextlib.contextmanager
def lock(path: Path, *, holder: str) -> Iterator[None]:
    """Hold a file lock, which the operating system releases when the process ends, however it ends.

    Args:
        path: The lock file; it is created and left in place.
        holder: What the lock protects, for the message.

    Raises:
        BusyError: Another process holds it.
        DanluError: The folder may not be written to.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        if not _locked(file) and not _locked(file, after=_MOMENT):
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise BusyError(
                f"another process ({owner}) is at work on {holder}",
                where=str(path),
                advice="wait for it to end, or stop it; a lock left by a dead process releases itself",
            )
        with explained(path):
            file.truncate(0)
            os.write(file.fileno(), f"pid {os.getpid()}".encode())  # nothing may be left to be written at the end
        yield


def held(path: Path) -> bool:
    """Whether a process holds a file lock now; looking at it disturbs nobody who wants it."""
    try:
        with path.open("rb") as file:
            return not _locked(file, how=fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _locked(file: IO[Any], *, how: int = fcntl.LOCK_EX, after: float = 0) -> bool:
    """Try once, after so many seconds, to get the lock of a file; whether it is ours now."""
    time.sleep(after)
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into advice."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some space, or set DANLU_HOME to a disk that has some; then run the same command again",
            errno.EFBIG: "this process may not write so large a file (ulimit -f): raise the limit",
            errno.EDQUOT: "your quota is used up: free some space, then run the same command again",
            errno.EACCES: "choose a folder that you may write to (DANLU_HOME or --workspace)",
            errno.EPERM: "choose a folder that you may write to (DANLU_HOME or --workspace)",
            errno.ENOTDIR: "a part of this path is a file: choose another folder (DANLU_HOME or --workspace)",
            errno.EEXIST: "there is a file of this name: choose another folder (DANLU_HOME or --workspace)",
            errno.EROFS: "the file system is read-only: choose another folder (DANLU_HOME or --workspace)",
        }.get(error.errno or 0)
        if advice is None:
            raise
        raise DanluError(f"could not write: {error.strerror}", where=str(path), advice=advice) from error
