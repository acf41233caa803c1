"""Append-only files whose every line holds the SHA-256 of the line before it.

A line is a JSON object: ``seq`` (0, 1, 2, ...), what is to be said, ``prev`` (the hash of the line before, zeros in the
first) and ``hash`` (SHA-256 of the canonical JSON of all of that). Changing, removing or swapping lines breaks the
chain there. No chain can show by itself that its last lines were cut off, or that all of it was written anew: whoever
keeps the last hash elsewhere can. The chain of a training run says itself where it ends.

``chain.jsonl`` of a training run, in its folder and in the model's:

    {"event": "begun", "step": 0, "weights", "order_root", "n_steps", "commitments"}
    {"event": "checkpoint", "step", "files", "loss", "learning_rate", "valid", "metrics"}     one an evaluation
    {"event": "changed", "step", "order_root", "n_steps"}      where the run went on with another recipe
    {"event": "ended", "step", "kept", "weights"}

Nothing in it depends on the clock, nor on how often the run was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, explained, fsync_folder

__all__ = ["Chain", "RunChain"]

_START = "0" * 64
_PLAN = {"order_root", "n_steps"}
_SAYS = {
    "begun": {*_PLAN, "weights", "commitments"},
    "checkpoint": {"files", "loss", "learning_rate", "valid", "metrics"},
    "changed": _PLAN,
    "ended": {"kept", "weights"},
}
"""What each event of a run says, besides the step."""


class Chain:
    """A chained file.

    Args:
        path: The file; it need not exist yet.
        what: What it is, for messages.
    """

    def __init__(self, path: Path, what: str = "the chain") -> None:
        self.path = path
        self._what = what
        self._polled: tuple[tuple[int, ...], list[dict[str, Any]]] | None = None

    def entries(self, *, growing: bool = False) -> list[dict[str, Any]]:
        """Every line, oldest first, the chain checked.

        Args:
            growing: Whether somebody may be writing to it, or may have died while doing so: a last line without its
                end was never acknowledged, and is passed over. Otherwise it is damage.

        Raises:
            CorruptError: A line was changed, removed, reordered or cut short; the first wrong one is named.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        *lines, rest = content.split(b"\n")
        found = self._parse(lines)
        if rest and not growing:
            raise self.broken(len(found) + 1, "was cut short")
        return found

    def poll(self) -> Sequence[dict[str, Any]]:
        """What :meth:`entries` says of a growing file, read anew only where it has changed: to look costs a ``stat``.

        Raises:
            CorruptError: As :meth:`entries`.
        """
        try:
            stat = self.path.stat()
            now: tuple[int, ...] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):  # whoever writes says what is wrong with the path
            now = ()
        known = self._polled
        if known is None or known[0] != now:
            # What is written between the two is read now and once more at the next look.
            known = self._polled = (now, self.entries(growing=True))
        return known[1]

    def append(
        self, facts: Mapping[str, Any], check: Callable[[Sequence[dict[str, Any]]], None] | None = None
    ) -> dict[str, Any]:
        """Add a line; several processes may do so at once. A last line that a crash cut short is dropped first.

        Args:
            facts: What it says, as JSON values.
            check: Called with all lines before it while nobody else can write; raises where it may not be added.

        Returns:
            The whole line: the facts with ``seq``, ``prev`` and ``hash``.

        Raises:
            CorruptError: The chain is broken.
            UsageError: A text of it is not UTF-8.
            DanluError: The disk is full or may not be written to.
        """
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                *lines, rest = file.read().split(b"\n")
                before = self._parse(lines)
                if check is not None:
                    check(before)
                entry = {"seq": len(before), **facts, "prev": before[-1]["hash"] if before else _START}
                try:
                    entry["hash"] = digest_of(entry)
                except UnicodeEncodeError as error:  # half a character, as the command line gives it
                    raise UsageError("what is to be recorded is not UTF-8", where=f"{facts!r}") from error
                if rest:
                    file.truncate(sum(len(line) + 1 for line in lines))
                file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fsync_folder(self.path.parent)
        return entry

    def broken(self, number: int, how: str) -> CorruptError:
        """The error that says what is wrong with a line (1, 2, ...)."""
        return CorruptError(
            f"{self._what} is broken: line {number} {how}",
            where=f"{self.path}:{number}",
            advice="restore the file from a copy; its lines are never changed by danlu",
        )

    def _parse(self, lines: list[bytes]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                stored = entry["hash"]
                computed = digest_of({key: value for key, value in entry.items() if key != "hash"})
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise self.broken(number, "is not an entry") from error
            if stored != computed:
                raise self.broken(number, "was changed")
            if entry.get("seq") != len(found) or entry.get("prev") != (found[-1]["hash"] if found else _START):
                raise self.broken(number, "does not follow the one before it")
            found.append(entry)
        return found


@dataclass(frozen=True)
class RunChain:
    """The chain of a training run that has ended; the module's docstring says what its entries hold.

    Attributes:
        entries: Every line, oldest first.
    """

    entries: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check ``chain.jsonl`` of a finished model.

        Raises:
            CorruptError: It is missing, or a line was changed, removed, reordered or cut; the first wrong one is named.
        """
        if not path.is_file():
            raise CorruptError("the chain of the training run is missing", where=str(path))
        chain = Chain(path, "the chain of the training run")
        entries = chain.entries()
        step, saved, ended = 0, 0, False
        for number, entry in enumerate(entries, start=1):
            event, now = str(entry.get("event")), entry.get("step")
            if event not in _SAYS or entry.keys() != {"seq", "event", "step", "prev", "hash"} | _SAYS[event]:
                raise chain.broken(number, "is not an entry of a training run")
            if (event == "begun") != (number == 1):
                raise chain.broken(number, "is not the beginning of a run" if number == 1 else "begins the run again")
            if ended:
                raise chain.broken(number, "comes after the end of the run")
            if not isinstance(now, int) or now < step or (event == "checkpoint" and now == saved):
                raise chain.broken(number, "goes back to an earlier step")
            step, saved, ended = now, now if event == "checkpoint" else saved, event == "ended"
        if not ended:
            raise chain.broken(len(entries) + 1, "is missing: the chain stops before the end of the run")
        found = cls(tuple(entries))
        if not found.checkpoints or found.checkpoints[-1]["step"] != step:
            raise chain.broken(len(entries), "ends the run at another step than that of its last checkpoint")
        return found

    @property
    def start(self) -> dict[str, Any]:
        """What was written before the first step."""
        return self.entries[0]

    @property
    def end(self) -> dict[str, Any]:
        """What was written after the last step."""
        return self.entries[-1]

    @property
    def head(self) -> str:
        """The last hash, which stands for all of it."""
        return str(self.end["hash"])

    @cached_property
    def checkpoints(self) -> tuple[dict[str, Any], ...]:
        """The entries of checkpoints, oldest first."""
        return tuple(entry for entry in self.entries if entry["event"] == "checkpoint")

    @property
    def planned(self) -> dict[str, Any]:
        """The entry that says in what order the data came, and for how many steps: the last one that does."""
        return next(entry for entry in reversed(self.entries) if "order_root" in entry)
