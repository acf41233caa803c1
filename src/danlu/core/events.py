"""Events: one append-only JSON Lines file per process, so that no two processes ever write to one file.

What does it mean that an event was written? Its line is in the hands of the operating system as a whole, and outlives
the process however that ends, SIGKILL included; a process that is killed while it writes leaves at most half a last
line, which is of no acknowledged event, and which nobody ever writes after: the next process has a file of its own. If
the machine itself loses power, that is not enough. Waiting for the disk takes some milliseconds an event (4 ms where
writing takes 0.07 ms), too long for what a server writes down of every request: of those (``request``, ``shadow``) a
power failure takes what the operating system had not yet put on the disk, on Linux the last half minute. Everything
else (feedback, alerts, swaps) is on the disk when the call returns.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from danlu.core.errors import CorruptError
from danlu.core.files import explained, fsync_folder

__all__ = ["EventLog", "event_of", "read_events"]

_OFTEN = frozenset({"request", "shadow"})
"""Events for which nobody waits until they are on the disk."""


class EventLog:
    """The events of this process; its threads may share it.

    Args:
        folder: The workspace's ``events`` folder.
        process: What this process is ("run", "serve"); part of the file's name.

    Attributes:
        path: The file, there from the first event on.
    """

    def __init__(self, folder: Path, process: str) -> None:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._process = folder, process
        self._alone = threading.Lock()
        self.path = self._unused()

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time (seconds since 1970) at which it happened.

        Raises:
            DanluError: The disk is full, or may not be written to; nothing of the event is left.
        """
        self.write_all(event, [facts])

    def write_all(self, event: str, many: Iterable[Mapping[str, Any]]) -> None:
        """Append many events of one sort, and wait for the disk once.

        Raises:
            DanluError: The disk is full, or may not be written to; the events before the one that failed may stay.
        """
        with self._alone, explained(self.path):
            new = not self.path.exists()
            with self.path.open("ab", buffering=0) as file:
                for facts in many:
                    line = json.dumps({"time": time.time(), "event": event, **facts}, ensure_ascii=False)
                    # half a surrogate pair becomes its JSON escape
                    self._append(file, f"{line}\n".encode(errors="backslashreplace"))
                if event not in _OFTEN:
                    os.fsync(file.fileno())
            if new:
                fsync_folder(self._folder)

    def _append(self, file: Any, line: bytes) -> None:
        start = file.tell()
        if file.write(line) == len(line):
            return
        try:  # the disk filled up: leave no half line for others to stumble on
            file.truncate(start)
        except OSError:
            self.path = self._unused()
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _unused(self) -> Path:
        """A file that no process has: in containers, many have one number, and start in one second."""
        now = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        return self._folder / f"{self._process}-{now}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every event of every process, oldest first; a last line that a crash cut short is left out.

    Raises:
        CorruptError: Another line is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            found.append(event_of(line, f"{path}:{number}"))
    yield from sorted(found, key=lambda event: float(event["time"]))


def event_of(line: bytes, where: str) -> dict[str, Any]:
    """The event that a line of a file holds.

    Args:
        line: The line.
        where: The file and the number of the line, for the message.

    Raises:
        CorruptError: It is not one: no JSON object with a ``time`` and the name of an ``event``.
    """
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        at = event.get("time")
        if isinstance(at, int | float) and not isinstance(at, bool) and abs(at) < 2**63:
            return event
    raise CorruptError("not an event", where=where, advice="remove this line")
