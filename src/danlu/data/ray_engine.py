"""Batches spread by Ray Data over the processors of this machine, or of a cluster; see :mod:`danlu.data.ray_cluster`.

Ray may cut, join, delay and repeat what it is given. So every record is numbered before it leaves, and the numbers say
in which order they go on, and whether all came back. The source is read here, one window of batches ahead of the work.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import platform
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from danlu.core import errors
from danlu.core.artifact import environment
from danlu.core.errors import DanluError
from danlu.core.progress import Progress
from danlu.data.engine import BatchFunction
from danlu.data.pool import alone
from danlu.data.ray_cluster import RETRIES, connected, first_line, ray_unwarned
from danlu.data.records import check_names

__all__ = ["RayEngine", "open_ray"]

_ROW, _ERROR = "_row", "_error"
"""Columns that travel: the number of each record; and, in place of records, what went wrong."""
_BLOCKS_A_WORKER = 32
"""Batches in a window: enough that the workers seldom wait for the last of them."""
_WINDOW_BYTES = 1 << 30
"""Arrow data in a window, at most about this much."""


@dataclass(frozen=True)
class RayEngine:
    """A Ray that has been started or reached.

    Attributes:
        workers: Its processors; each works on one batch at a time.
        where: What it is called in messages.
    """

    workers: int
    where: str

    def map(self, function: BatchFunction, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """See :meth:`danlu.data.engine.Engine.map`.

        Raises:
            DanluError: What the function raised in a worker; or a worker died, too often to be tried again.
        """
        windows = _windows(batches, _BLOCKS_A_WORKER * self.workers)
        with ThreadPoolExecutor(1, "reader") as reader:
            ahead = reader.submit(next, windows, None)
            while (window := ahead.result()) is not None:
                ahead = reader.submit(next, windows, None)
                with _explained(self.where):
                    yield from _spread(function, window)


@contextlib.contextmanager
def open_ray(progress: Progress) -> Iterator[RayEngine]:
    """An engine under Ray, until the block ends; errors as of :func:`danlu.data.ray_cluster.connected`.

    Args:
        progress: Told where the work is done.
    """
    with connected() as cluster:
        progress.note(f"Ray {cluster.version} on {cluster.where}, processors: {cluster.workers}")
        yield RayEngine(cluster.workers, cluster.where)


def _windows(batches: Iterable[pa.RecordBatch], n_blocks: int) -> Iterator[list[pa.Table]]:
    """Batches with their records numbered, some of them at a time."""
    window: list[pa.Table] = []
    n_rows = n_bytes = 0
    for batch in batches:
        check_names(batch.schema.names)
        if not len(batch):
            continue
        numbers = pa.array(np.arange(n_rows, n_rows + len(batch)))
        window.append(pa.Table.from_batches([alone(batch)]).append_column(_ROW, numbers))
        n_rows, n_bytes = n_rows + len(batch), n_bytes + batch.nbytes
        if len(window) == n_blocks or n_bytes >= _WINDOW_BYTES:
            yield window
            window, n_bytes = [], 0
    if window:
        yield window


def _spread(function: BatchFunction, window: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    """What the workers make of a window, in the order of its records."""
    import ray.data

    apply = functools.partial(_apply, function=function, versions=environment())
    options = {"batch_size": None, "batch_format": "pyarrow"}
    with ray_unwarned():
        # Left alone, Ray Data tries a batch again for ever whose worker dies.
        made = ray.data.from_arrow(window).map_batches(apply, zero_copy_batch=True, max_retries=RETRIES, **options)
    numbers = window[0].column(_ROW)[0].as_py(), window[-1].column(_ROW)[-1].as_py() + 1
    yield from _in_order(made.iter_batches(**options), range(*numbers))


def _in_order(tables: Iterable[pa.Table], rows: range) -> Iterator[pa.RecordBatch]:
    """The records with these numbers, in their order, however they come.

    Raises:
        DanluError: A worker told of an error; or records are missing, or there are others.
    """
    waiting: dict[int, pa.RecordBatch] = {}
    due = rows.start
    for table in tables:
        if _ERROR in table.column_names:
            raise _reported(table.column(_ERROR)[0].as_py())
        for batch in table.to_batches():
            numbers = batch.column(_ROW).to_numpy()
            cuts = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
            for first, last in itertools.pairwise(cuts):
                # Taken, not sliced: what stays in Ray's memory keeps it from new work.
                waiting[int(numbers[first])] = batch.take(pa.array(np.arange(first, last))).drop_columns([_ROW])
        while due in waiting:
            batch = waiting.pop(due)
            due += len(batch)
            yield batch
    if due != rows.stop or waiting:
        what = "Ray did not return the records that it was given"
        raise DanluError(what, where=f"record {due + 1:,}", advice="run the same command without --engine ray")


def _apply(table: pa.Table, *, function: BatchFunction, versions: Mapping[str, str]) -> pa.Table:
    """What a worker does: it makes records of records, or tells why it cannot."""
    try:
        _check_versions(versions)
        made = [function(batch) for batch in table.drop_columns([_ROW]).to_batches()]
        return pa.Table.from_batches(made).append_column(_ROW, table.column(_ROW))
    except Exception as error:
        return pa.table({_ERROR: [json.dumps(_told(error, table))]})


def _check_versions(wanted: Mapping[str, str]) -> None:
    """Refuses to work with other versions of what may change a result."""
    here = environment()
    if wrong := [name for name in {**wanted, **here} if wanted.get(name) != here.get(name)]:
        name = wrong[0]
        raise DanluError(
            f"a worker has {name} {here.get(name, 'not at all')}, and this process {wanted.get(name, 'not at all')}",
            where=platform.node(),
            advice="install the same versions of danlu and its packages on every machine of the cluster",
        )


def _told(error: Exception, table: pa.Table) -> dict[str, str | None]:
    """An error in words: Ray itself would lose its type on the way."""
    trace = traceback.format_exc()
    if isinstance(error, DanluError):
        name = type(error).__name__
        return {"type": name, "what": error.what, "where": error.where, "advice": error.advice, "trace": trace}
    ends = table.column("source" if "source" in table.column_names else _ROW).take([0, len(table) - 1]).to_pylist()
    return {
        "type": "DanluError",
        "what": f"a worker failed: {type(error).__name__}: {error}",
        "where": " to ".join(str(end) for end in ends),
        "advice": "--debug shows where in the code; without --engine ray the same is done in this process",
        "trace": trace,
    }


def _reported(words: str) -> DanluError:
    """The error that a worker told of; its traceback is noted on it."""
    told = json.loads(words)
    kind: Any = getattr(errors, told["type"], DanluError)
    error: DanluError = kind(told["what"], where=told["where"], advice=told["advice"])
    error.add_note(f"In the worker:\n{told['trace']}")
    return error


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turns what Ray says of a worker that died into advice."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise DanluError(
            f"Ray gave up: {first_line(getattr(error, 'cause', None) or error)}",
            where=where,
            advice="a worker that needs more memory than there is gets killed: free some, or leave out --engine ray; "
            "every machine of a cluster needs danlu",
        ) from error
