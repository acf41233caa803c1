"""Where the work that goes record by record is done: in this process, in several of this machine, or under Ray.

An engine says where, never what: whichever is used, a dataset is the same to the byte, so that neither its key nor its
manifest knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa

from danlu.data.pool import ordered_map

__all__ = ["LOCAL", "BatchFunction", "Engine", "EngineName", "Local"]

EngineName = Literal["local", "ray"]

BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch]
"""Treats every record alone: as many out as in, in their order, however they are cut into batches. A top-level
function, or a ``partial`` of one."""


class Engine(Protocol):
    """Something that applies functions to batches, somewhere."""

    def map(self, function: BatchFunction, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What a function makes of records, in their order.

        Args:
            function: What is done.
            batches: What it is done to; they may be slices, and are taken only as fast as they can be used.

        Yields:
            Batches, not always cut where the given ones were.
        """


@dataclass(frozen=True)
class Local:
    """Work in this process, or in several of this machine.

    Attributes:
        workers: Processes; 1 is this one alone.
    """

    workers: int = 1

    def map(self, function: BatchFunction, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """See :meth:`Engine.map`."""
        return ordered_map(function, batches, self.workers)


LOCAL = Local()
"""This process alone."""
