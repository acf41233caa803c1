"""A watch that stands still while a model is looked at: what a bench counts is training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stopwatch"]


class Stopwatch:
    """Runs from the moment that it is made.

    Attributes:
        seconds: Time that has run, as of the last time it stood still.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def still(self) -> Iterator[None]:
        """It stands still inside."""
        self.seconds += time.perf_counter() - self._since
        yield
        self._since = time.perf_counter()
