"""What ``danlu verify`` answers: every item of a record with how far it could be checked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from danlu.cli.tables import make_table, plain
from danlu.cli.verb import Answer

if TYPE_CHECKING:
    from danlu.verifying import Verification

__all__ = ["verified"]

_STYLES = {"verified": "green", "claimed": "yellow", "missing": "yellow", "wrong": "bold red", "not applicable": "dim"}
_SENTENCES = {
    0: "Nothing is wrong. What is claimed, only the signer says; a signature proves who says it, not that it is true.",
    1: "Something is not as the record says.",
    3: "Nothing is wrong, but something is missing without which nothing is proved.",
}


def verified(found: Verification) -> Answer:
    """What came of checking a record, item by item."""
    table = make_table("item", "", "found")
    for item in found.items:
        table.add_row(plain(item.name), Text(item.mark, _STYLES[item.mark]), plain(item.found))
    counts: Counter[str] = Counter(item.mark for item in found.items)
    told = ", ".join(f"{counts[mark]} {mark}" for mark in _STYLES if counts[mark])
    facts = {
        "artifact": str(found.artifact.path),
        "kind": found.artifact.kind,
        "digest": found.artifact.digest,
        "counts": dict(counts),
        "items": [{"name": item.name, "mark": item.mark, "found": item.found} for item in found.items],
    }
    text = Text(f"\n{told}\n{_SENTENCES[found.exit_code]}")
    return Answer(facts, Group(table, text), found.exit_code)
