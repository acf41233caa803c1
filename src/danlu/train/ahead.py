"""Batches made while the device works on the one before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from danlu.core.batch import Batch
from danlu.train.engine import Feed

__all__ = ["Ahead"]


class Ahead:
    """The batches of a feed, each begun when the one before is handed out.

    For GPUs, which are at work by themselves. A CPU has no hand free: there a batch is made when it is asked for, in a
    thousandth of a step's time for texts, and up to a twentieth for augmented pictures.

    Args:
        feed: What makes them.
        device: Where they will be needed.
    """

    def __init__(self, feed: Feed, device: torch.device) -> None:
        self._feed = feed
        self._pin = device.type == "cuda"
        self._worker = ThreadPoolExecutor(1, "batches") if self._pin else None
        self._next: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """The batch of a step; as of :meth:`danlu.train.engine.Feed.batch`."""
        if self._worker is None:
            return self._feed.batch(step)
        if self._next is None or self._next[0] != step:
            self._next = step, self._worker.submit(self._make, step)
        found = self._next[1].result()
        if step + 1 < self._feed.n_steps:
            self._next = step + 1, self._worker.submit(self._make, step + 1)
        return found

    def _make(self, step: int) -> Batch:
        batch = self._feed.batch(step)
        return batch.pinned() if self._pin else batch
