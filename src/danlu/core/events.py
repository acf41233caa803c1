"""Events: one append-only JSON Lines file per process, so that no two processes ever write to one file."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from danlu.core.errors import CorruptError
from danlu.core.files import explained

__all__ = ["EventLog", "read_events"]


class EventLog:
    """The events of this process.

    Args:
        folder: The workspace's ``events`` folder.
        process: What this process is ("run", "serve"); part of the file's name.
    """

    def __init__(self, folder: Path, process: str) -> None:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / f"{process}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}.jsonl"

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with the time (seconds since 1970) at which it happened."""
        line = json.dumps({"time": time.time(), "event": event, **facts}, ensure_ascii=False)
        content = f"{line}\n".encode(errors="backslashreplace")  # half a surrogate pair becomes its JSON escape
        with explained(self.path), self.path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(content) < len(content):  # the disk filled up: leave no half line for others to stumble on
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every event of every process, oldest first; a last line that a crash cut short is left out.

    Raises:
        CorruptError: Another line is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise CorruptError("not an event", where=f"{path}:{number}", advice="remove this line") from error
    yield from sorted(found, key=lambda event: event["time"])
