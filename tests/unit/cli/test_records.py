"""What danlu verify prints: every item with its mark, for people and for programs, whatever a statement says."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from danlu.audit.record.check import Item
from danlu.cli.records import verified
from danlu.core.artifact import Artifact
from danlu.verifying import Verification

GOOD = Item("files", "verified", "3 files")


def answered(*items: Item) -> tuple[Verification, str, dict]:
    found = Verification(Artifact(Path("m"), {"kind": "model", "digest": "d" * 64}), items)
    answer = verified(found)
    console = Console(width=100, record=True, file=None, quiet=True)
    with console.capture():
        console.print(answer.text)
    return found, console.export_text(), answer.facts


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (Item("time", "claimed", "x"), 0),
        (Item("data", "missing", "x"), 0),
        (Item("signature", "missing", "x", needed=True), 3),
        (Item("chain", "wrong", "line 3 was changed"), 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_item(item: Item, code: int) -> None:
    found, _, facts = answered(GOOD, item)
    assert found.exit_code == code
    assert verified(found).exit_code == code
    assert facts["items"][1] == {"name": item.name, "mark": item.mark, "found": item.found}
    assert facts["counts"] == {"verified": 1, item.mark: 1}


def test_wrong_outweighs_missing() -> None:
    needed = Item("signature", "missing", "x", needed=True)
    assert answered(needed, Item("chain", "wrong", "x"))[0].exit_code == 1


def test_what_a_statement_says_is_shown_and_not_obeyed() -> None:
    _, _, facts = answered(Item("lineage", "claimed", "[bold]from[/bold] scratch \x1b[2J"))
    assert facts["items"][0]["found"] == "[bold]from[/bold] scratch \x1b[2J"
    console = Console(width=100, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(
            verified(
                Verification(
                    Artifact(Path("m"), {"kind": "model", "digest": "d" * 64}),
                    (Item("lineage", "claimed", "[bold]from[/bold] scratch \x1b[2J"),),
                )
            ).text
        )
    assert "[bold]from[/bold] scratch" in capture.get()
    assert "\x1b" not in capture.get()
