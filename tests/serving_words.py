"""Services whose models are words (:mod:`made_process`), in this process, and questions to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil

from danlu.core.artifact import Artifact
from danlu.core.events import EventLog, read_events
from danlu.core.workspace import Workspace
from danlu.serve.config import ServeConfig
from danlu.serve.following import Target
from danlu.serve.keys import KeyRing
from danlu.serve.service import Service

__all__ = ["NAME", "asked", "children", "digest", "promote", "run", "serving_words", "told", "until"]

NAME = "reviews"


def promote(workspace: Workspace, model: Artifact) -> None:
    """Let the name mean a model."""
    workspace.ledger.set_alias(NAME, "champion", model, reason="a test")


@asynccontextmanager
async def serving_words(workspace: Workspace, model: Artifact, **values: Any) -> AsyncIterator[Service]:
    """The name served, which means the model at first."""
    promote(workspace, model)
    targets = {NAME: Target(model, NAME, "champion")}
    keys, events = KeyRing(workspace.root / "keys.json"), EventLog(workspace.events, "serve")
    service = Service(workspace, targets, ServeConfig(threads=1, **values), keys, events)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def asked(service: Service, asker: str = "user:1", stream: bool = False, text: str = "x") -> str:
    """The word of the model that answers."""
    arm = service.arm(NAME, "predict", "", asker)
    async with arm.worker.ask({"kind": "predict", "inputs": [text], "stream": stream}) as ticket:
        words = []
        while "done" not in (reply := await ticket.reply()):
            words.append(reply["parts"][0]["text"])
    word = reply["done"]["results"][0]["label"]
    assert words == ([f"{word}{number}" for number in range(10)] if stream else [])
    return str(word)


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that has to come about."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def run(made: Awaitable[None]) -> None:
    """Play a scene, which does not take for ever."""
    asyncio.run(asyncio.wait_for(made, 120))


def told(workspace: Workspace, event: str) -> list[dict[str, Any]]:
    """What was written down of a kind."""
    return [each for each in read_events(workspace.events) if each["event"] == event]


def digest(service: Service) -> str:
    """The model that the name means now."""
    return service.workers[NAME].model.digest


def children() -> set[int]:
    """The processes of models; what has ended and waits to be buried is none."""
    found = set()
    for child in psutil.Process().children():
        try:
            if "spawn_main" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found
