"""What is served: the models, the processes that hold them, and what is counted and written down of every request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError, UsageError, nearest
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.serve.config import ServeConfig
from danlu.serve.following import Seat, Target, follow
from danlu.serve.keys import KeyRing
from danlu.serve.metrics import Metrics
from danlu.serve.trial import Arm, Shadow, unit_of
from danlu.serve.worker import AskError, Worker

__all__ = ["Board", "Service"]

Board = Callable[[str, str], dict[str, Any]]
"""How a model does, for the page: of its name without alias and its digest. It reads files: call it in a thread."""


class Service:
    """Models that can be asked; made where an event loop runs.

    Args:
        workspace: Whose ledger and experiments are followed.
        targets: What each model is called, and what it means.
        config: How they are served.
        keys: Who may ask.
        events: Where it is written down what was asked.
        board: Tells how a model does.

    Attributes:
        workspace, config, keys, events, board: See above.
        seats: Who answers for each name.
        stopping: Whether no new request is to come.
    """

    def __init__(
        self,
        workspace: Workspace,
        targets: Mapping[str, Target],
        config: ServeConfig,
        keys: KeyRing,
        events: EventLog,
        board: Board | None = None,
    ) -> None:
        self.workspace, self.config, self.keys, self.events, self.board = workspace, config, keys, events, board
        self._counted = Metrics()
        cores = max(1, len(os.sched_getaffinity(0)) // len(targets))

        def make(model: Artifact) -> Worker:
            return Worker(model, config, cores)

        self.seats = {name: Seat(name, each, make, self._found, self._tell) for name, each in targets.items()}
        self.stopping = False
        self._shadow = Shadow(self._tell, self._counted.shadow)
        self._following: asyncio.Task[None] | None = None
        self._index: Index | None = None
        self._opening = threading.Lock()

    @property
    def index(self) -> Index:
        """What was written down, to be looked up in a thread; opened when it is first wanted, and kept until the end.

        Raises:
            DanluError: It cannot be opened.
        """
        with self._opening:
            if self._index is None:
                self._index = Index.open(self.workspace)
            return self._index

    @property
    def workers(self) -> dict[str, Worker]:
        """The process that each name means now."""
        return {name: seat.worker for name, seat in self.seats.items()}

    async def start(self) -> None:
        """Start every model's process, wait until all can be asked, and follow the ledger from then on.

        Raises:
            DanluError: A model cannot be served; none is left running.
        """
        begun = await asyncio.gather(*(each.start() for each in self.seats.values()), return_exceptions=True)
        if failed := [each for each in begun if isinstance(each, BaseException)]:
            await self.stop()
            raise failed[0]
        self._following = asyncio.create_task(follow(self.workspace, self.seats, self._tell))

    async def stop(self) -> None:
        """End every process; what is asked has been answered by now, or gets an error."""
        self.stopping = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._shadow.stop()
        await asyncio.gather(*(seat.stop() for seat in self.seats.values()))
        if self._index is not None:
            self._index.close()

    @property
    def ready(self) -> dict[str, bool]:
        """Whether each model can be asked."""
        return {name: seat.worker.ready and not self.stopping for name, seat in self.seats.items()}

    def named(self, name: str | None, kind: str | None = None, where: str = "") -> tuple[str, Worker]:
        """The model of a name; without a name, the only one.

        Args:
            name: What the request calls it.
            kind: What is to be asked of it; None: nothing.
            where: Where else its kind of question is answered, for the message.

        Raises:
            AskError: There is no such model, or it cannot be asked this.
        """
        if name is None:
            if len(self.seats) > 1:
                what = f"several models are served here: {', '.join(self.seats)}"
                raise AskError(400, "model_missing", what, param="model")
            (name,) = self.seats
        if name not in self.seats:
            what = f"no model is called {name[:100]!r} here: {nearest(name[:100], self.seats)}"
            raise AskError(404, "model_not_found", what, param="model")
        worker = self.seats[name].worker
        if kind and worker.facts and kind not in worker.facts["kinds"]:
            what = f"{name} is a model for {worker.facts['task']}: {where}"
            raise AskError(400, "wrong_task", what, param="model")
        return name, worker

    def arm(self, name: str | None, kind: str, where: str, asker: str) -> Arm:
        """Who answers a request: the model of a name, or where an experiment runs one of its two.

        Args:
            name: What the request calls the model; without a name, the only one.
            kind: What is to be asked of it.
            where: Where else its kind of question is answered, for the message.
            asker: Who asks (:func:`danlu.serve.trial.asker_of`).

        Raises:
            AskError: There is no such model, or it cannot be asked this.
        """
        called, worker = self.named(name, kind, where)
        seat = self.seats[called]
        trial, own = seat.trial, seat.target.name
        if trial is None or not trial.applies(worker, kind):
            return Arm(called, own, worker)
        side = trial.experiment.arm(asker)
        chosen = trial.worker if side == "challenger" else worker
        return Arm(called, own, chosen, trial, side, unit_of(asker, trial.experiment.id))

    def shadow(self, arm: Arm, request: str, asked: dict[str, Any], answers: Callable[[dict[str, Any]], Any]) -> None:
        """Ask the challenger in the shadow, if there is one, what was answered already; it takes no time.

        Args:
            arm: Who answered.
            request: The request's id.
            asked: What was asked.
            answers: From what a process says when it is done to the ``answers`` that are written down.
        """
        if not self.stopping:
            self._shadow.ask(arm, request, asked, answers)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Count a request, and write it down.

        Args:
            facts: What is known of it; at least ``route``, ``status`` and ``seconds``.

        Raises:
            DanluError: It cannot be written.
        """
        self.events.write("request", **facts)
        self._counted.request(facts)

    def turned_away(self) -> None:
        """Count a request that came over one connection too many."""
        self._counted.refused()

    def metrics(self) -> bytes:
        """What is counted, in the text format of Prometheus."""
        return self._counted.text(self.seats)

    def _found(self, digest: str) -> Artifact:
        model = self.workspace.with_digest(digest)
        if model.kind != "model":
            raise UsageError(f"{digest[:12]} is a {model.kind}, not a model", where=str(model.path))
        return model

    def _tell(self, event: str, **facts: Any) -> None:
        """Write down what happened; where the disk is full, what is served goes on."""
        with contextlib.suppress(DanluError):
            self.events.write(event, **facts)
