"""The ledger: which artifact a name or an alias means, and every answer that it has ever given.

``refs/ledger.jsonl`` is a chain (:mod:`danlu.core.chain`): append-only, changing or removing an entry breaks it from
there on. Nothing is ever overwritten: an alias that moves is one more line.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from danlu.core.artifact import Artifact
from danlu.core.chain import Chain
from danlu.core.errors import UsageError, nearest

__all__ = ["Entry", "Ledger"]

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
    hash: str


class Ledger:
    """Names and aliases of a workspace.

    Args:
        path: The ledger file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = Chain(path, "the ledger's chain")

    def entries(self) -> list[Entry]:
        """Every entry, oldest first, the chain checked.

        Raises:
            CorruptError: A line was changed, removed or damaged; the first wrong one is named.
        """
        found = []
        for number, entry in enumerate(self._chain.entries(growing=True), start=1):
            try:
                found.append(Entry(**entry))
            except TypeError as error:
                raise self._chain.broken(number, "is not an entry") from error
        return found

    def set_alias(self, name: str, alias: str, artifact: Artifact, *, reason: str) -> Entry:
        """Let ``name@alias`` mean an artifact from now on.

        A last line that a crash cut short was never acknowledged; it is dropped before appending.

        Raises:
            UsageError: The alias is not a lower-case word.
            CorruptError: The chain is broken.
        """
        if not _ALIAS.fullmatch(alias):
            raise UsageError(f"not an alias: {alias!r}", advice="use lower-case letters, digits, - and _")
        facts = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "name": name,
            "alias": alias,
            "kind": artifact.kind,
            "digest": artifact.digest,
            "reason": reason,
        }
        return Entry(**self._chain.append(facts))

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
