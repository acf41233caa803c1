"""Errors that a user can act on.

Every error that a user may cause says what is wrong, where, and what to do next. Anything else that escapes is a bug
of ours and keeps its traceback.

    DanluError            exit 1   it failed
    ├── UsageError        exit 2   the command, the recipe or a path is wrong
    ├── DataError         exit 1   the data cannot be used as it is
    ├── CorruptError      exit 1   a file on disk is not what its digest says
    ├── DivergedError     exit 1   a training came to numbers that are not finite
    ├── BusyError         exit 1   another process holds it
    └── RefusedError      exit 3   a gate says no
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BusyError",
    "CorruptError",
    "DanluError",
    "DataError",
    "DivergedError",
    "RefusedError",
    "UsageError",
    "nearest",
]


class DanluError(Exception):
    """Something failed that the user can understand and mend.

    Args:
        what: What is wrong, in one sentence.
        where: The file, key or record that it is about.
        advice: What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, advice: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.advice:
            lines.append(f"  what to do: {self.advice}")
        return "\n".join(lines)


class UsageError(DanluError):
    """The command line, the recipe or a path is wrong."""

    exit_code = 2


class DataError(DanluError):
    """The data cannot be used as it is."""


class CorruptError(DanluError):
    """A file on disk is not what its digest says."""


class DivergedError(DanluError):
    """A training came to numbers that are not finite."""


class BusyError(DanluError):
    """Another process holds what this one needs."""


class RefusedError(DanluError):
    """A gate refused: the work is done and kept, and the answer is no."""

    exit_code = 3


def nearest(word: str, known: Iterable[str]) -> str:
    """The advice for a misspelt word.

    Args:
        word: What the user wrote.
        known: What would have been understood.

    Returns:
        ``did you mean 'x'?`` where one is near, otherwise the list of what is known.
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(known)}"
