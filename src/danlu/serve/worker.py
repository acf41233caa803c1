"""One process that owns one model, and what the server holds of it.

They talk over a pair of sockets (:mod:`danlu.serve.wire`). The process ends when its line does, so that it never
outlives the server; when the process ends, however it ends, every request under way gets an error that says so, and
another one is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError
from danlu.serve.config import ServeConfig
from danlu.serve.process import work
from danlu.serve.wire import Heard, encoded, ends

__all__ = ["AskError", "Ticket", "Worker"]

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
"""Seconds before a process that never got to answer is started again."""
_PATIENCE = 10.0
"""Seconds that a process has to end."""


class AskError(Exception):
    """Why a request gets no answer.

    Args:
        status: As HTTP says it.
        code: For programs.
        message: For people.
        param: Which part of the request it is about.
        retry_after: Seconds after which it may be asked again.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param, self.retry_after = status, code, message, param, retry_after


@dataclass
class Ticket:
    """A request that a worker has taken.

    Attributes:
        id: Its number.
        deadline: When it is given up, by the loop's clock.
        replies: What the process has replied, or why it will not.
    """

    id: int
    deadline: float
    replies: asyncio.Queue[dict[str, Any] | AskError] = field(default_factory=asyncio.Queue)

    async def reply(self) -> dict[str, Any]:
        """The next reply.

        Raises:
            AskError: There is none.
        """
        try:
            async with asyncio.timeout_at(self.deadline):
                found = await self.replies.get()
        except TimeoutError:
            what = "the request took longer than it may"
            raise AskError(503, "deadline_exceeded", what, retry_after=1.0) from None
        if isinstance(found, AskError):
            raise found
        if "error" in found:
            error = found["error"]
            raise AskError(error.get("status", 400), error["code"], error["message"], param=error["param"])
        return found


class Worker:
    """A model in a process of its own; made where an event loop runs.

    Args:
        model: The model.
        config: How it is served.
        cores: Cores for its process, where the config does not say how many threads.

    Attributes:
        facts: What callers may know of the model; empty until it has been read once.
        ready: Whether it can be asked.
        n_starts: How often a process was started.
        pid: The number of the process; None while there is none.
    """

    def __init__(self, model: Artifact, config: ServeConfig, cores: int) -> None:
        self.model = model
        self.facts: dict[str, Any] = {}
        self.ready = False
        self.n_starts = 0
        self.pid: int | None = None
        self._config, self._cores = config, cores
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._line: asyncio.WriteTransport | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._process: Any = None
        self._why = "the model's process ended while it read the model"
        self._began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()

    @property
    def n_asked(self) -> int:
        """Requests that wait or are being answered."""
        return len(self._tickets)

    async def start(self) -> None:
        """Start the process and wait until it can be asked.

        Raises:
            DanluError: The model cannot be served.
        """
        self._keeper = asyncio.create_task(self._keep())
        await self._began

    async def stop(self) -> None:
        """End the process; what it is still asked gets an error."""
        self._stopping.set()
        self._send(None)
        if self._keeper is None:
            return
        if not self.ready and self._process is not None:
            self._process.kill()  # it reads a model that nobody waits for any more
        done, _ = await asyncio.wait([self._keeper], timeout=_PATIENCE)
        if not done and self._process is not None:
            self._process.kill()
        await self._keeper

    @contextlib.asynccontextmanager
    async def ask(self, request: dict[str, Any]) -> AsyncIterator[Ticket]:
        """Give a request to the process; it is taken back where the block ends before its answer has come.

        Args:
            request: See :mod:`danlu.serve.batcher`; without its number.

        Raises:
            AskError: It cannot be asked now.
        """
        if not self.ready:
            what = "the model's process is being started: ask again in a moment"
            raise AskError(503, "model_starting", what, retry_after=1.0)
        if len(self._tickets) >= self._config.limits.queue:
            what = f"{len(self._tickets)} requests are waiting for this model already: ask again later"
            raise AskError(503, "overloaded", what, retry_after=1.0)
        deadline = asyncio.get_running_loop().time() + self._config.limits.seconds
        ticket = Ticket(next(self._numbers), deadline)
        self._tickets[ticket.id] = ticket
        self._send({**request, "id": ticket.id})
        try:
            yield ticket
        finally:
            if self._tickets.pop(ticket.id, None) is not None:
                self._send({"cancel": ticket.id})

    def _send(self, message: dict[str, Any] | None) -> None:
        if self._line is not None and not self._line.is_closing():
            self._line.write(encoded(message))

    async def _keep(self) -> None:
        """Start the process, and again whenever it ends: at once if it has worked, ever more slowly if it never has."""
        delay = 0.0
        while not self._stopping.is_set():
            worked = await self._live()
            if not self._began.done():
                advice = "look at what it said on stderr, and at the machine's memory"
                self._began.set_exception(DanluError(self._why, where=str(self.model.path), advice=advice))
                return
            delay = 0.0 if worked else min(_LONGEST_DELAY, 2 * delay or _FIRST_DELAY)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _live(self) -> bool:
        """One life of the process; whether it could be asked in it."""
        context = get_context("spawn")
        ours, theirs = ends()
        arguments = (theirs, str(self.model.path), self._config.plain(), self._cores)
        process = context.Process(target=work, args=arguments, daemon=True)
        # Starting waits for the new interpreter to read what it is to do: the other models are not to wait with it.
        try:
            await asyncio.to_thread(process.start)
        except OSError as error:  # too many processes, no memory
            ours.close()
            self._why = f"no process can be started: {error.strerror}"
            return False
        finally:
            theirs.close()
        self.n_starts += 1
        self.pid, self._process = process.pid, process
        if self._stopping.is_set():
            process.kill()
        heard = Heard(self._hear)
        line, _ = await asyncio.get_running_loop().create_unix_connection(lambda: heard, sock=ours)
        self._line = line
        try:
            await heard.lost.wait()
        finally:
            line.close()
        worked, self.ready, self.pid, self._process, self._line = self.ready, False, None, None, None
        self._fail(AskError(503, "worker_lost", "the model's process ended: ask again", retry_after=1.0))
        await asyncio.to_thread(_bury, process)
        return worked

    def _hear(self, message: dict[str, Any] | list[dict[str, Any]]) -> None:
        if isinstance(message, list):
            for reply in message:
                if (ticket := self._tickets.get(reply["id"])) is not None:
                    if "done" in reply or "error" in reply:
                        del self._tickets[ticket.id]
                    ticket.replies.put_nowait(reply)
            return
        if "ready" in message:
            self.facts, self.ready = message["ready"], True
            if not self._began.done():
                self._began.set_result(None)
        elif not self._began.done():
            self._began.set_exception(DanluError(**message["failed"]))
            self._stopping.set()

    def _fail(self, error: AskError) -> None:
        for ticket in self._tickets.values():
            ticket.replies.put_nowait(error)
        self._tickets.clear()


def _bury(process: Any) -> None:
    process.join(5)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
