"""The command line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 failed, 2 wrong use, 3 refused by a gate.

    Args:
        words: The command line after ``danlu``; None takes the process's own.
    """
    from danlu.cli.verbs import app

    app(words)
