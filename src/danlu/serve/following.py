"""What a name means now: the process that answers for it, and the change to another model without a failed request.

A name of the ledger is followed, a folder never changes. When the alias comes to mean another model, its process is
started beside the old one; when it can be asked, new requests go to it; the old one finishes what it has, and ends. A
model that cannot be read, or whose process dies while it reads it, changes nothing: the old one goes on, and the new
one is tried again when the ledger changes again. To roll back is to move the alias back; a model whose process has not
ended yet is taken back at once.

An experiment on the model that a name means makes the server hold the challenger too; a challenger that is promoted is
in place at once. For as long as models change hands there are as many processes as there are models: each needs the
memory of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError
from danlu.core.experiments import Experiment
from danlu.core.workspace import Workspace
from danlu.serve.trial import Trial
from danlu.serve.worker import Worker

__all__ = ["Seat", "Target", "follow"]

_LOOK = 1.0
"""Seconds between looks at the ledger."""
_GRACE = 1.0
"""Seconds that a process which is no longer meant stays: who has just looked it up is about to ask it."""
_MOMENT = 0.05
"""Seconds between looks at what it still has."""
_MOST_ENDING = 2
"""Processes of one name that may be finishing what they have when another one is started."""


@dataclass(frozen=True)
class Target:
    """What is to be served.

    Attributes:
        model: The model that it means at first.
        name: Its name, without an alias.
        alias: The alias that is followed; None: a folder, which always means the same.
    """

    model: Artifact
    name: str
    alias: str | None = None


class Seat:
    """Whose turn it is to answer for a name; made where an event loop runs.

    Args:
        called: What callers call it.
        target: What it means.
        make: Makes the process of a model.
        find: Finds and checks the model of a digest; DanluError where it cannot be read.
        tell: Writes an event down.

    Attributes:
        called, target: See above.
        worker: The process that it means now.
        trial: The experiment whose challenger is held.
        n_swaps, n_failed: How often it has changed, and could not.
    """

    def __init__(
        self,
        called: str,
        target: Target,
        make: Callable[[Artifact], Worker],
        find: Callable[[str], Artifact],
        tell: Callable[..., None],
    ) -> None:
        self.called, self.target = called, target
        self.n_swaps = self.n_failed = 0
        self.trial: Trial | None = None
        self.worker = make(target.model)
        self._make, self._find, self._tell = make, find, tell
        self._held = {self.worker}
        self._ending: dict[Worker, asyncio.Task[None]] = {}
        self._wanted: tuple[str, Experiment | None] = (target.model.digest, None)
        self._changing: asyncio.Task[None] | None = None
        self._n_ended = 0

    @property
    def n_asked(self) -> int:
        """Requests that any of its processes has."""
        return sum(worker.n_asked for worker in self._held)

    @property
    def n_starts(self) -> int:
        """How often a process was started."""
        return self._n_ended + sum(worker.n_starts for worker in self._held)

    async def start(self) -> None:
        """Start the process of the model that it means at first.

        Raises:
            DanluError: The model cannot be served.
        """
        await self.worker.start()

    async def want(self, digest: str, experiment: Experiment | None) -> None:
        """Begin to change to what it is to mean; a change under way to something else is given up."""
        if experiment is not None and experiment.champion != digest:
            experiment = None
        if self._changing is not None and not self._changing.done():
            if self._wanted == (digest, experiment):
                return
            await _cancelled(self._changing)
        self._wanted = (digest, experiment)
        self._changing = asyncio.create_task(self._change(digest, experiment))

    async def stop(self) -> None:
        """End every process, one that is being started too."""
        if self._changing is not None:
            await _cancelled(self._changing)
        for worker, task in list(self._ending.items()):
            if worker in self._held:
                task.cancel()
        await asyncio.gather(*(worker.stop() for worker in self._held), *self._ending.values(), return_exceptions=True)

    async def _change(self, digest: str, experiment: Experiment | None) -> None:
        try:
            if digest != self.worker.model.digest:
                await self._swap(digest)
            if self.trial is not None and self.trial.experiment != experiment:
                self.trial = None
            if experiment is None or self.trial is not None or experiment.champion != self.worker.model.digest:
                return
            if (worker := await self._found(experiment.challenger)) is not None:
                self.trial = Trial(experiment, worker)
        finally:
            kept = {self.worker} | ({self.trial.worker} if self.trial is not None else set())
            for worker in self._held - kept - self._ending.keys():
                self._ending[worker] = asyncio.create_task(self._end(worker))

    async def _swap(self, digest: str) -> None:
        began, old = time.monotonic(), self.worker.model.digest
        worker = await self._found(digest)
        if worker is None:
            return
        self.worker, self.trial = worker, None
        self.n_swaps += 1
        facts = {"name": self.target.name, "model": self.called, "from": old, "to": digest}
        self._tell("swap", **facts, seconds=round(time.monotonic() - began, 3))

    async def _found(self, digest: str) -> Worker | None:
        """A process of a model that can be asked: one that is held, or a new one; None: there is none, and why is told.

        One whose model does another task is none: callers would be answered something else than they ask.
        """
        try:
            held = (each for each in self._held if each.ready and each.model.digest == digest)
            worker = next(held, None) or await self._begun(digest)
            if worker.facts["task"] != self.worker.facts["task"]:
                what = f"{self.called} is for {self.worker.facts['task']}, and the new model for {worker.facts['task']}"
                raise DanluError(what, where=str(worker.model.path), advice="serve it under another name")
        except Exception as error:  # whatever is wrong with the new one, the old one goes on
            self.n_failed += 1
            facts = {"name": self.target.name, "model": self.called, "digest": digest}
            self._tell("swap failed", **facts, reason=str(error) or repr(error))
            return None
        if (ending := self._ending.pop(worker, None)) is not None:
            ending.cancel()
        return worker

    async def _begun(self, digest: str) -> Worker:
        while len(self._ending) >= _MOST_ENDING:
            await asyncio.wait(list(self._ending.values()), return_when=asyncio.FIRST_COMPLETED)
        worker = self._make(await asyncio.to_thread(self._find, digest))
        self._held.add(worker)  # whatever becomes of it: what is held and not meant ends when the change is over
        await worker.start()
        return worker

    async def _end(self, worker: Worker) -> None:
        """Let a process finish what it has, which takes no longer than a request may, and end it."""
        await asyncio.sleep(_GRACE if worker.ready else 0)
        while worker.n_asked and worker.ready:
            await asyncio.sleep(_MOMENT)
        self._held.discard(worker)  # from here on it cannot be taken back, nor its end be called off
        self._n_ended += worker.n_starts
        try:
            await worker.stop()
        finally:
            del self._ending[worker]


async def follow(workspace: Workspace, seats: Mapping[str, Seat], tell: Callable[..., None]) -> None:
    """Look at the ledger and at the experiments again and again, and change what has to be changed; never ends.

    Args:
        workspace: Where they are.
        seats: Who answers for which name.
        tell: Writes an event down.
    """
    followed = [seat for seat in seats.values() if seat.target.alias is not None]
    paths = (workspace.ledger.path, workspace.experiments.path)
    seen: list[tuple[int, ...]] | None = None
    while followed:
        now: list[tuple[int, ...]] = []
        for path in paths:
            with contextlib.suppress(OSError):
                stat = path.stat()
                now.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        if now != seen:
            seen = now
            await _look(workspace, followed, tell)
        await asyncio.sleep(_LOOK)


async def _look(workspace: Workspace, seats: list[Seat], tell: Callable[..., None]) -> None:
    def means(seat: Seat) -> tuple[str, Experiment | None]:
        name, alias = seat.target.name, seat.target.alias
        digest = workspace.ledger.resolve(name, str(alias))
        return digest, workspace.experiments.running(name)

    for seat in seats:
        try:
            digest, experiment = await asyncio.to_thread(means, seat)
        except Exception as error:  # whatever is wrong with the files, what is served goes on
            facts: dict[str, Any] = {"name": seat.target.name, "model": seat.called, "digest": None}
            tell("swap failed", **facts, reason=f"what it means cannot be read: {str(error) or repr(error)}")
        else:
            await seat.want(digest, experiment)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Call a task off and wait for its end, whatever it is."""
    task.cancel()
    await asyncio.wait([task])
