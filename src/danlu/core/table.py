"""A lazy table: a name to the class or function that it stands for, imported when it is first asked for.

Other packages add rows through an entry point of the table's group, without touching ours.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from danlu.core.errors import UsageError, nearest

__all__ = ["Table"]


class Table:
    """Names and where what they stand for is defined.

    Args:
        what: What the rows are, for messages ("model family").
        group: The entry-point group through which other packages add rows.
        rows: name -> ``"package.module:attribute"``.
    """

    def __init__(self, what: str, group: str, rows: dict[str, str]) -> None:
        self.what = what
        self.group = group
        self._rows = rows

    def names(self) -> list[str]:
        """Every name, ours first, then other packages', each in order."""
        return [*self._rows, *sorted({e.name for e in entry_points(group=self.group)} - self._rows.keys())]

    def __getitem__(self, name: str) -> Any:
        """What the name stands for.

        Raises:
            UsageError: No such name; the nearest is suggested.
        """
        if name in self._rows:
            module, _, attribute = self._rows[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        for entry in entry_points(group=self.group):
            if entry.name == name:
                return entry.load()
        raise UsageError(f"unknown {self.what} {name!r}", advice=nearest(name, self.names()))
