"""Tables for people, as every verb prints them."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

__all__ = ["make_table", "plain"]


def make_table(*columns: str) -> Table:
    """A table without lines; no head where no column has a name."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def plain(said: str) -> Text:
    """What somebody wrote, who may be anybody: nothing in it is markup, or may move the cursor of a terminal."""
    return Text("".join(letter if letter.isprintable() else "\ufffd" for letter in said))
