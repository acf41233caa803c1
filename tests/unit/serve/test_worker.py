from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from danlu.core.artifact import Artifact
from danlu.core.errors import DanluError
from danlu.core.workspace import Workspace
from danlu.model.decode import DecodeConfig
from danlu.serve.config import ServeConfig
from danlu.serve.worker import AskError, Ticket, Worker
from made_serving import make_served


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    workspace = Workspace(tmp_path_factory.mktemp("worker"))
    return make_served(workspace, "poems", "language-modelling", max_len=4000)


@asynccontextmanager
async def working(model: Artifact, **values: Any) -> AsyncIterator[Worker]:
    worker = Worker(model, ServeConfig(**values), cores=1)
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop()


def writing(n: int, **changes: Any) -> dict[str, Any]:
    decode = DecodeConfig(max_new_tokens=n, temperature=1.0, seed=1).plain()
    asked = {"kind": "write", "prompts": ["好"], "decode": decode, "n": 1, "max_tokens": None}
    return asked | {"echo": False, "logprobs": None, "stream": True} | changes


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


async def drained(ticket: Ticket) -> None:
    while True:
        await ticket.reply()


def run(made: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(made, 90))


def test_a_killed_process_is_noticed_told_and_started_again(writer: Artifact) -> None:
    async def scene() -> None:
        async with working(writer) as worker:
            assert worker.facts["task"] == "language-modelling"
            first = worker.pid
            assert first is not None
            async with worker.ask(writing(3000)) as ticket:
                await ticket.reply()
                os.kill(first, signal.SIGKILL)
                with pytest.raises(AskError) as lost:
                    await drained(ticket)
            assert (lost.value.status, lost.value.code) == (503, "worker_lost")
            assert not worker.ready
            with pytest.raises(AskError) as early:
                async with worker.ask(writing(1)):
                    pass
            assert (early.value.code, early.value.retry_after) == ("model_starting", 1.0)
            await until(lambda: worker.ready)
            assert worker.pid != first
            assert worker.n_starts == 2
            async with worker.ask(writing(2, stream=False)) as ticket:
                assert "done" in await ticket.reply()

    run(scene())


def test_who_leaves_is_forgotten_and_the_queue_is_bounded(writer: Artifact) -> None:
    async def scene() -> None:
        async with working(writer, streams=1, limits={"queue": 2}) as worker:
            async with worker.ask(writing(3900)) as first, worker.ask(writing(1, stream=False)) as second:
                await first.reply()
                with pytest.raises(AskError) as full:
                    async with worker.ask(writing(1)):
                        pass
                assert (full.value.status, full.value.code, full.value.retry_after) == (503, "overloaded", 1.0)
                assert second.replies.empty()
            assert worker.n_asked == 0
            began = time.monotonic()
            async with worker.ask(writing(1, stream=False)) as ticket:
                assert (await ticket.reply())["done"]["completion_tokens"] == 1
            assert time.monotonic() - began < 1, "the long text that nobody waits for is not written to its end"

    run(scene())


def test_a_request_is_given_up_at_its_deadline(writer: Artifact) -> None:
    async def scene() -> None:
        async with working(writer, limits={"seconds": 0.01}) as worker:  # a text takes longer, however short it ends
            with pytest.raises(AskError) as late:
                async with worker.ask(writing(3900, stream=False)) as ticket:
                    await ticket.reply()
            assert (late.value.status, late.value.code) == (503, "deadline_exceeded")
            assert worker.n_asked == 0

    run(scene())


def test_what_the_model_cannot_answer_is_the_askers_mistake(writer: Artifact) -> None:
    async def scene() -> None:
        async with working(writer) as worker:
            with pytest.raises(AskError) as wrong:
                async with worker.ask(writing(1, max_tokens=5000)) as ticket:
                    await ticket.reply()
            assert (wrong.value.status, wrong.value.code, wrong.value.param) == (
                400,
                "context_length_exceeded",
                "prompt",
            )

    run(scene())


def test_a_process_that_does_not_end_by_itself_is_ended(writer: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("danlu.serve.worker._PATIENCE", 0.5)

    async def scene() -> None:
        async with working(writer) as worker:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGTERM)
            await asyncio.sleep(0.2)
            assert worker.ready, "the server decides when it ends"
            os.kill(worker.pid, signal.SIGSTOP)

    run(scene())


def test_a_model_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    model = make_served(Workspace(tmp_path), "poems", "language-modelling")
    (model.path / "model.json").write_text("{}")

    async def scene() -> None:
        with pytest.raises(DanluError, match="not a model"):
            async with working(model):
                pass

    run(scene())


def test_an_error_that_is_no_mistake_of_the_asker_is_told_as_one_of_the_server() -> None:
    async def scene() -> None:
        ticket = Ticket(1, asyncio.get_running_loop().time() + 10)
        facts = {"code": "answer_failed", "message": "the model failed", "param": None}
        ticket.replies.put_nowait({"id": 1, "error": {**facts, "status": 503}})
        ticket.replies.put_nowait({"id": 1, "error": facts})
        for status in (503, 400):
            with pytest.raises(AskError) as failed:
                await ticket.reply()
            assert (failed.value.status, failed.value.code, failed.value.retry_after) == (status, "answer_failed", None)

    run(scene())


def test_where_no_process_can_be_started_that_is_said(writer: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", start)

    async def scene() -> None:
        n_before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(DanluError, match="no process can be started: Resource temporarily"):
            async with working(writer):
                pass
        assert len(list(Path("/proc/self/fd").iterdir())) == n_before

    run(scene())
