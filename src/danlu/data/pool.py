"""One function over many items, in this process or several, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

import pyarrow as pa

__all__ = ["alone", "ordered_map"]

A = TypeVar("A")
B = TypeVar("B")


def alone(item: Any) -> Any:
    """The item without the rest of the buffers that it is a slice of: Arrow would send these along with it."""
    if isinstance(item, pa.RecordBatch):
        return pa.RecordBatch.from_arrays([pa.concat_arrays([column]) for column in item.columns], schema=item.schema)
    if isinstance(item, pa.Array):
        return pa.concat_arrays([item])
    return item


def ordered_map(function: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """Results in the order of the items; items are taken only as fast as the workers can use them.

    Args:
        function: A top-level function, or a ``partial`` of one.
        items: What it is called with, one at a time; Arrow batches and arrays may be slices.
        workers: Processes; 1 calls it in this one.
    """
    if workers == 1:
        yield from map(function, items)
        return
    # Spawned, not forked: a fork copies the locks of other threads, such as Arrow's, in whatever state they are.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(function, alone(item)))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
