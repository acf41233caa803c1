"""How a stage tells of its progress without knowing who listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Somebody who listens: the command line's live panel, its plain lines, or nobody."""

    def stage(self, title: str) -> None:
        """A stage begins."""

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """So much of the stage is done.

        Args:
            done: Units done (records, steps, bytes).
            total: Units in all, where it is known.
            what: What is being done, in a few words ("records", the name of a file).
            facts: What there is to say of this moment, by name with its unit ("loss", "memory (MiB)").
        """

    def note(self, text: str) -> None:
        """Something worth a line of its own, that stays on the screen."""


class Silent:
    """Nobody listens."""

    def stage(self, title: str) -> None:
        """Say nothing."""

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
