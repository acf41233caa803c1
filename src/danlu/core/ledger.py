"""The ledger: which artifact a name or an alias means, and every answer that it has ever given.

``refs/ledger.jsonl`` is a chain (:mod:`danlu.core.chain`): append-only, changing or removing an entry breaks it from
there on. Nothing is ever overwritten: an alias that moves is one more line, which says who moved it, when, why, and
from which evidence.
"""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.chain import Chain
from danlu.core.errors import RefusedError, UsageError, nearest

__all__ = ["Entry", "Ledger", "login_name", "utc_now"]

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
        hash: SHA-256 of all the line says besides.
        by: Who set it; empty in lines that were written before this was recorded.
        evidence: The digests of the artifacts that it was decided from, and the ids of experiments.
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
    by: str = ""
    evidence: tuple[str, ...] = ()


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
        return [self._read(entry) for entry in self._chain.entries(growing=True)]

    def history(self, name: str) -> list[Entry]:
        """Every entry of a name, oldest first; errors as of :meth:`entries`."""
        return [entry for entry in self.entries() if entry.name == name]

    def set_alias(
        self,
        name: str,
        alias: str,
        artifact: Artifact,
        *,
        reason: str,
        expect: str | EllipsisType | None = ...,
        by: str | None = None,
        evidence: Sequence[str] = (),
    ) -> Entry:
        """Let ``name@alias`` mean an artifact from now on.

        A last line that a crash cut short was never acknowledged; it is dropped before appending.

        Args:
            name: The name.
            alias: The alias.
            artifact: What it is to mean.
            reason: Why, in a sentence.
            expect: The digest that it must mean until now, None where it must mean nothing yet: compared, and the entry
                appended, while nobody else can write. ``...`` moves it whatever it means.
            by: Who says so; None is who is logged in here.
            evidence: Digests of what it was decided from.

        Raises:
            RefusedError: It means something else than ``expect``.
            UsageError: The alias is not a lower-case word.
            CorruptError: The chain is broken.
        """
        if not _ALIAS.fullmatch(alias):
            raise UsageError(f"not an alias: {alias!r}", advice="use lower-case letters, digits, - and _")
        facts = {
            "time": utc_now(),
            "name": name,
            "alias": alias,
            "kind": artifact.kind,
            "digest": artifact.digest,
            "reason": reason,
            "by": by or login_name(),
            "evidence": list(evidence),
        }

        def unchanged(before: Sequence[Mapping[str, Any]]) -> None:
            last = next((line for line in reversed(before) if line["name"] == name and line["alias"] == alias), None)
            if expect is not ... and (last and last["digest"]) != expect:
                raise self._moved(f"{name}@{alias}", expect, last and self._read(last))

        return self._read(self._chain.append(facts, unchanged))

    def current(self, name: str, alias: str) -> str | None:
        """The digest that ``name@alias`` means now, or None; may be asked often, as an unchanged file is not read."""
        found = (
            line["digest"] for line in reversed(self._chain.poll()) if (line["name"], line["alias"]) == (name, alias)
        )
        return next(found, None)

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

    def _read(self, line: Mapping[str, Any]) -> Entry:
        try:
            return Entry(**{**line, "evidence": tuple(line.get("evidence", ()))})
        except TypeError as error:
            raise self._chain.broken(int(line["seq"]) + 1, "is not an entry") from error

    def _moved(self, what: str, expect: str | None, last: Entry | None) -> RefusedError:
        """The error that says what has happened since."""
        before = "nothing" if expect is None else expect[:12]
        if last is None:
            now = "it means nothing yet"
        else:
            now = f"it means {last.digest[:12]} since {last.time}, by {last.by or 'somebody'}: {last.reason}"
        return RefusedError(
            f"{what} no longer means {before}, which this was decided against; {now}",
            where=str(self.path),
            advice="danlu log shows what was decided; decide anew against what it means now",
        )


def login_name() -> str:
    """Who is logged in on this machine; the user's number where nobody gave it a name."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        name = f"user {os.getuid()}"
    return name.encode(errors="replace").decode()


def utc_now() -> str:
    """The time, as the ledger writes it: UTC, ISO 8601, seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
