"""One question from a route to a model's process and back, given up as soon as whoever asked has left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from danlu.serve.service import Service
from danlu.serve.trial import Arm, asker_of
from danlu.serve.worker import AskError, Ticket, Worker

__all__ = ["EventStream", "answered", "arm_of_request", "asker", "facts_of_request", "keep", "opened", "service_of"]

_GRACE = 5.0
"""Seconds after its deadline that a stream has to end; a client that takes nothing would keep it for ever."""
_KEPT_PICTURE = 64 * 2**10
"""Characters in base64 of the largest picture that is written down."""
_USER = "x-danlu-user"


def service_of(request: Request) -> Service:
    """What is served."""
    service: Service = request.app.state.service
    return service


def facts_of_request(request: Request) -> dict[str, Any]:
    """What is written down of a request when it is over; routes add to it."""
    facts: dict[str, Any] = request.state.facts
    return facts


def asker(request: Request, user: str | None = None) -> str:
    """Who asks, as far as it is known; written down where they were named.

    Args:
        request: The request.
        user: Who they are in the words of its body.

    Raises:
        AskError: The header ``x-danlu-user`` names nobody.
    """
    named = request.headers.get(_USER)
    if named is not None and not (0 < len(named) <= 100 and named.isprintable()):
        raise AskError(400, "invalid_value", f"{_USER} is the name of a user, 1 to 100 characters", param=_USER)
    if told := user or named:
        facts_of_request(request)["user"] = told
    key = request.state.key
    return asker_of(user, key and key.id, named, request.client.host if request.client else "")


def arm_of_request(request: Request, model: str | None, kind: str, where: str, user: str | None = None) -> Arm:
    """Who answers a request; it is written down with it.

    Args:
        request: The request.
        model: What it calls the model.
        kind: What is asked of it.
        where: Where else its kind of question is answered, for the message.
        user: Who asks, in the words of its body.

    Raises:
        AskError: There is no such model, or it cannot be asked this.
    """
    arm = service_of(request).arm(model, kind, where, asker(request, user))
    facts_of_request(request).update(arm.facts)
    return arm


def keep(request: Request, inputs: Sequence[Any], *, pictures: bool = False) -> None:
    """Write down what was asked, if that is wanted: texts, and pictures that are not too large.

    Args:
        request: The request.
        inputs: Texts; the contents of pictures in base64; or token ids, which are no text and are not kept.
        pictures: Whether they are pictures.
    """
    facts = facts_of_request(request)
    facts["n_inputs"] = len(inputs)
    if service_of(request).config.keep_inputs:
        most = _KEPT_PICTURE if pictures else None
        facts["inputs"] = [
            each if isinstance(each, str) and (most is None or len(each) <= most) else None for each in inputs
        ]


async def answered(request: Request, worker: Worker, asked: dict[str, Any]) -> dict[str, Any]:
    """Ask, and wait for the one answer.

    Raises:
        AskError: There is none.
    """
    async with worker.ask(asked) as ticket:
        reply = await _unless_left(request.receive, ticket)
    done: dict[str, Any] = reply["done"]
    return done


async def opened(
    request: Request, worker: Worker, asked: dict[str, Any]
) -> tuple[contextlib.AsyncExitStack, Ticket, dict[str, Any]]:
    """Ask for a stream, and wait for its first reply: what cannot be answered is known before anything is sent.

    Returns:
        What takes the question back when it is closed, the question, and the first reply.

    Raises:
        AskError: There is no answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        ticket = await stack.enter_async_context(worker.ask(asked))
        first = await _unless_left(request.receive, ticket)
        return stack.pop_all(), ticket, first
    raise AssertionError("an exit stack swallows nothing here")


async def _unless_left(receive: Receive, ticket: Ticket) -> dict[str, Any]:
    """The next reply to a question, while whoever asked is there."""
    leaving = asyncio.create_task(_left(receive))
    leaving.add_done_callback(lambda task: None if task.cancelled() else ticket.replies.put_nowait(_gone()))
    try:
        return await ticket.reply()
    finally:
        leaving.cancel()


def _gone() -> AskError:
    return AskError(499, "client_left", "whoever asked has left")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, one JSON value each; the last is ``[DONE]``.

    Starlette's own streams find out that a client has left in two ways, by the version that the server says; this one
    always listens, and takes the question back at once.

    Args:
        stack: What takes the question back.
        ticket: The question.
        chunks: From the first reply on, what is to be sent.
        facts: What is written down of the request.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        ticket: Ticket,
        chunks: Callable[[], AsyncIterator[dict[str, Any]]],
        facts: dict[str, Any],
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._stack, self._ticket, self._chunks, self._facts = stack, ticket, chunks, facts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  as ASGI has it
        """Send it, until its end or the client's."""
        async with self._stack:
            pumping = asyncio.create_task(self._pump(send))
            gone = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait({pumping, gone}, return_when=asyncio.FIRST_COMPLETED)
                if pumping.done():
                    pumping.result()
            finally:
                for task in (pumping, gone):
                    task.cancel()
                await asyncio.gather(pumping, gone, return_exceptions=True)

    async def _pump(self, send: Send) -> None:
        async def event(content: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": f"data: {content}\n\n".encode(), "more_body": more})

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._ticket.deadline + _GRACE):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                try:
                    async for chunk in self._chunks():
                        await event(json.dumps(chunk, ensure_ascii=False))
                    await event("[DONE]", more=False)
                except AskError as error:
                    self._facts["code"] = error.code
                    told = {"message": error.message, "type": "server_error", "param": error.param, "code": error.code}
                    await event(json.dumps({"error": told}, ensure_ascii=False), more=False)
