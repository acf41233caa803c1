"""The ledger: which artifact a name or an alias means, and every answer that it has ever given.

``refs/ledger.jsonl`` is append-only. Each line holds the SHA-256 of the line before it, so that changing or removing
an entry breaks the chain from there on. Nothing is ever overwritten: an alias that moves is one more line. No chain can
show by itself that its last lines were cut off, or that all of it was written anew; whoever keeps the last hash
elsewhere can.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, UsageError, nearest
from danlu.core.files import digest_of, explained, fsync_folder

__all__ = ["Entry", "Ledger"]

_START = "0" * 64
_ALIAS = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    Attributes:
        seq: 0, 1, 2, ...
        time: When, UTC, ISO 8601.
        name: The name, from the recipe.
        alias: ``champion``, ``challenger``, ``latest``, ...
        kind: The artifact's kind.
        digest: The artifact that ``name@alias`` means from now on.
        reason: Why it was set, in a sentence.
        prev: The hash of the entry before.
        hash: SHA-256 of all of the above.
    """

    seq: int
    time: str
    name: str
    alias: str
    kind: str
    digest: str
    reason: str
    prev: str
    hash: str = ""

    def computed_hash(self) -> str:
        """SHA-256 over every field but ``hash``."""
        return digest_of({key: value for key, value in asdict(self).items() if key != "hash"})


class Ledger:
    """Names and aliases of a workspace.

    Args:
        path: The ledger file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Every entry, oldest first, the chain checked.

        Raises:
            CorruptError: A line was changed, removed or damaged; the first wrong one is named.
        """
        return self._parse(self.path.read_bytes()) if self.path.exists() else []

    def set_alias(self, name: str, alias: str, artifact: Artifact, *, reason: str) -> Entry:
        """Let ``name@alias`` mean an artifact from now on.

        A last line that a crash cut short was never acknowledged; it is dropped before appending.

        Raises:
            UsageError: The alias is not a lower-case word.
            CorruptError: The chain is broken.
        """
        if not _ALIAS.fullmatch(alias):
            raise UsageError(f"not an alias: {alias!r}", advice="use lower-case letters, digits, - and _")
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                content = file.read()
                whole = content[: content.rfind(b"\n") + 1]
                if whole != content:
                    file.truncate(len(whole))
                entries = self._parse(whole)
                entry = Entry(
                    seq=len(entries),
                    time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    name=name,
                    alias=alias,
                    kind=artifact.kind,
                    digest=artifact.digest,
                    reason=reason,
                    prev=entries[-1].hash if entries else _START,
                )
                entry = Entry(**{**asdict(entry), "hash": entry.computed_hash()})
                file.write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            fsync_folder(self.path.parent)
        return entry

    def means(self, name: str, alias: str, digest: str) -> bool:
        """Whether ``name@alias`` means an artifact now."""
        found = [entry.digest for entry in self.entries() if entry.name == name and entry.alias == alias]
        return found[-1:] == [digest]

    def resolve(self, name: str, alias: str) -> str:
        """The digest that ``name@alias`` means now.

        Raises:
            UsageError: No such name, or no such alias of it; the nearest is suggested.
        """
        entries = self.entries()
        names = {entry.name for entry in entries}
        if name not in names:
            advice = nearest(name, names) if names else "nothing is named yet: run a recipe first (danlu run RECIPE)"
            raise UsageError(f"no model is named {name!r}", where=str(self.path), advice=advice)
        aliases = {entry.alias: entry.digest for entry in entries if entry.name == name}
        if alias not in aliases:
            raise UsageError(f"{name} has no alias {alias!r}", where=str(self.path), advice=nearest(alias, aliases))
        return aliases[alias]

    def _parse(self, content: bytes) -> list[Entry]:
        entries: list[Entry] = []
        lines = content.split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                entry = Entry(**json.loads(line))
                computed = entry.computed_hash()
            except (ValueError, TypeError, RecursionError) as error:
                raise self._broken(number, "is not an entry") from error
            if entry.hash != computed:
                raise self._broken(number, "was changed")
            if entry.seq != len(entries) or entry.prev != (entries[-1].hash if entries else _START):
                raise self._broken(number, "does not follow the one before it")
            entries.append(entry)
        return entries

    def _broken(self, number: int, how: str) -> CorruptError:
        return CorruptError(
            f"the ledger's chain is broken: line {number} {how}",
            where=f"{self.path}:{number}",
            advice="restore the file from a copy; its lines are never changed by danlu",
        )
