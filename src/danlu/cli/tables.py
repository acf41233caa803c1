"""Tables for people, as every verb prints them."""

from __future__ import annotations

from rich.table import Table

__all__ = ["make_table"]


def make_table(*columns: str) -> Table:
    """A table without lines; no head where no column has a name."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
