"""A run's curves as TensorBoard reads them: an event file beside metrics.jsonl and timing.jsonl, made from their lines.

A process that takes up a run writes a file anew from those two, cut back to its checkpoint as they are, and empties the
one before; so no step is there twice. The name of the new one comes after that of the old one, which a TensorBoard that
is open has at hand: it goes on to the next, whose first event tells it to forget what it has read.

The format is that of TensorFlow: records with masked CRC-32C sums, each a protocol buffer ``Event``.
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
"""

from __future__ import annotations

import os
import re
import struct
import time
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.core.curves import lasting, read_lines
from danlu.core.files import explained

__all__ = ["EventFile", "event", "record", "values_of"]

_NAME = "events.out.tfevents"
_NUMBERED = r"events\.out\.tfevents\.\d+"
"""The names of our files; a file with more to its name is another's."""
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
"""Wire types of protocol buffers."""
_VERSION = b"brain.Event:2"
_START = b"\x08\x01"
"""A ``SessionLog`` with status START."""


class EventFile:
    """The event file of a run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._before: Mapping[str, Any] = {}
        """The last line of timing."""

    def rewrite(self, source: Path, resumed: int | None = None) -> None:
        """Begin anew with what metrics.jsonl and timing.jsonl of a folder hold.

        Args:
            source: The folder.
            resumed: The step that the run goes on from; what it cost from there on is still to come.

        Raises:
            DanluError: The disk is full or may not be written to.
            CorruptError: A line of theirs is damaged.
        """
        metrics, timing = read_lines(source / "metrics.jsonl"), lasting(read_lines(source / "timing.jsonl"))
        timing = [line for line in timing if "time" in line and (resumed is None or line["step"] <= resumed)]
        steps, times = [line["step"] for line in timing], [line["time"] for line in timing]
        times.append(times[-1] if times else time.time())
        content = record(event(times[0], 0, (3, _VERSION))) + record(event(times[0], 0, (7, _START)))
        for line in sorted([*metrics, *timing], key=lambda line: line["step"]):
            content += self._records(line, times[bisect_left(steps, line["step"])])
        with explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            older = [path for path in self._folder.glob(f"{_NAME}.*") if re.fullmatch(_NUMBERED, path.name)]
            number = max([int(time.time()), *(int(path.suffix[1:]) + 1 for path in older)])
            self._path = self._folder / f"{_NAME}.{number:010d}"
            self._path.write_bytes(content)
            for path in older:
                os.truncate(path, 0)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line that was just written to metrics.jsonl or timing.jsonl, after :meth:`rewrite`."""
        assert self._path is not None, "a file begins with what was there before"
        with explained(self._path), self._path.open("ab") as file:
            file.write(self._records(line, time.time()))

    def _records(self, line: Mapping[str, Any], at: float) -> bytes:
        """The event of a line, at a time in seconds since 1970."""
        values = values_of(line, self._before)
        if "process" in line:
            self._before = line
        summary = b"".join(_value(tag, value) for tag, value in values.items())
        return record(event(at, line["step"], (5, summary))) if values else b""


def values_of(line: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """What a line of metrics.jsonl or timing.jsonl says, by TensorBoard's tags.

    Args:
        line: The line.
        before: The line of timing.jsonl before it; what tells of the same step says nothing new.
    """
    if "process" not in line:
        found = {f"valid/{name}": value for name, value in line.get("valid", {}).items()}
        return found | {f"train/{name}": value for name, value in line.items() if name not in ("step", "valid")}
    if before.get("step") == line["step"]:
        return {}
    found = {f"cost/{name}": line[name] for name in ("memory_bytes", "gpu_memory_bytes") if name in line}
    if before.get("process") == line["process"] and line["seconds"] > before["seconds"]:
        n_tokens, seconds = line["n_tokens"] - before["n_tokens"], line["seconds"] - before["seconds"]
        found["cost/tokens_per_second"] = n_tokens / seconds
    return found


def event(at: float, step: int, what: tuple[int, bytes]) -> bytes:
    """An ``Event``: when (seconds since 1970), at which step, and the field and content of what happened."""
    field, content = what
    return (
        _key(1, _DOUBLE) + struct.pack("<d", at) + _key(2, _VARINT) + _varint(step) + _key(field, _BYTES)
        + _sized(content)
    )  # fmt: skip


def record(content: bytes) -> bytes:
    """A record: its length, its content, and a sum over each."""
    length = struct.pack("<Q", len(content))
    return length + _masked(length) + content + _masked(content)


def _value(tag: str, value: float) -> bytes:
    """A ``Summary`` with one value."""
    inner = _key(1, _BYTES) + _sized(tag.encode()) + _key(2, _FLOAT) + struct.pack("<f", value)
    return _key(1, _BYTES) + _sized(inner)


def _key(field: int, wire: int) -> bytes:
    return bytes([field << 3 | wire])


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _row(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    return number


_CRC = [_row(number) for number in range(256)]
"""CRC-32C (Castagnoli), byte by byte."""


def _masked(content: bytes) -> bytes:
    """The masked sum of some bytes."""
    found = 0xFFFFFFFF
    for byte in content:
        found = _CRC[(found ^ byte) & 0xFF] ^ found >> 8
    found ^= 0xFFFFFFFF
    return struct.pack("<I", (found >> 15 | found << 17) + 0xA282EAD8 & 0xFFFFFFFF)
