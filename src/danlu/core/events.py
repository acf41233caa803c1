"""Events: one append-only JSON Lines file per process, so that no two processes ever write to one file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        with explained(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Every event of every process, oldest first; a last line that a crash cut short is left out."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        content = path.read_text(encoding="utf-8")
        found += [json.loads(line) for line in content[: content.rfind("\n") + 1].splitlines()]
    yield from sorted(found, key=lambda event: event["time"])
