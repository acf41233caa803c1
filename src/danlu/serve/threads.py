"""How many threads a batch is answered with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Threads"]

_DEAR = 0.003
"""Seconds of one thread for an input. The server itself takes about a third of that for a request: where many ask for
what is cheaper, it needs a core as much as the model does, and threads that wait for each other would take it."""
_RECENT = 0.2
"""How much of the estimate the last batch makes up."""


class Threads:
    """All there are for one request alone, and for answers that are dear; else one fewer, so that the server has one.

    Args:
        most: Threads of the process.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._cost = 0.0

    def wanted(self, n_requests: int) -> int:
        """Threads for a batch of inputs of so many requests."""
        return self.most if n_requests == 1 or self._cost > _DEAR else max(1, self.most - 1)

    @contextmanager
    def batch(self, n_requests: int, n_inputs: int) -> Iterator[None]:
        """While a batch is answered: as many threads as it is to have."""
        n = self.wanted(n_requests)
        if torch.get_num_threads() != n:
            torch.set_num_threads(n)
        began = time.perf_counter()
        yield
        self._cost += _RECENT * (n * (time.perf_counter() - began) / n_inputs - self._cost)
