"""The server: one address to listen at, models started before it and ended after it. The only module that listens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from danlu.core.errors import UsageError
from danlu.core.events import EventLog
from danlu.core.workspace import Workspace
from danlu.serve.app import create_app
from danlu.serve.config import LimitsConfig, ServeConfig, is_loopback
from danlu.serve.connection import Connection
from danlu.serve.following import Target
from danlu.serve.gate import App, Receive, Send, error_body, error_headers
from danlu.serve.keys import KeyRing
from danlu.serve.service import Board, Service
from danlu.serve.worker import AskError

__all__ = ["named_models", "serve"]

_BETWEEN_SWEEPS = 1.0
"""Seconds between looks for connections that nothing comes over."""


def named_models(workspace: Workspace, targets: list[str]) -> dict[str, Target]:
    """What is to be served, and what callers call it: as it was called here, or as its folder is.

    Raises:
        UsageError: Nothing is called that, or two are.
        CorruptError: A model is damaged.
    """
    found: dict[str, Target] = {}
    for given in targets:
        model = workspace.target(given, "model")
        name, _, alias = given.partition("@")
        called = model.path.name if os.sep in given else given
        if called in found:
            raise UsageError(f"two models would be called {called}", advice="give each of them once")
        if (Path(given) / "manifest.json").is_file():  # the workspace, too, takes it for a folder first
            found[called] = Target(model, model.manifest["name"])
        else:
            found[called] = Target(model, name, alias or "champion")
    if not found:
        raise UsageError("which model?", advice="danlu serve NAME@champion; danlu log lists the models")
    return found


def serve(
    workspace: Workspace,
    targets: Mapping[str, Target],
    config: ServeConfig,
    heard: Callable[[str], None],
    board: Board | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, and answer what is under way before the end.

    Args:
        workspace: Where keys and events are kept, and whose ledger is followed.
        targets: What is served, by name.
        config: How.
        heard: Told the address as soon as it can be asked.
        board: Tells how a model does.

    Raises:
        UsageError: The address needs a key and there is none, or cannot be listened at.
        DanluError: A model cannot be served.
    """
    keys = KeyRing(config.keys or workspace.root / "keys.json")
    if not is_loopback(config.host) and not keys.needed:
        what = f"{config.host} can be reached from other machines, and nobody would need a key"
        advice = "make a key first (danlu serve --new-key NAME), or listen at 127.0.0.1"
        raise UsageError(what, where="host", advice=advice)
    events = EventLog(workspace.events, "serve")
    with _listening(config) as listening:
        uvloop.run(_run(lambda: Service(workspace, targets, config, keys, events, board), listening, heard))


async def _run(make: Callable[[], Service], listening: socket.socket, heard: Callable[[str], None]) -> None:
    service = make()
    config = service.config
    door = _Door(create_app(service), service)
    server = door.server = _Server(
        uvicorn.Config(
            door,
            http=Connection,
            log_level=config.log_level,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        starting = asyncio.create_task(service.start())
        while not starting.done():
            await asyncio.wait([starting], timeout=0.1)
            if server.should_exit:
                starting.cancel()
                return
        starting.result()
        heard(_address(listening))
        sweeping = asyncio.create_task(_sweep(server, config.limits))
        await server.serve(sockets=[listening])
        sweeping.cancel()
    finally:
        await service.stop()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The loop hears signals already, from before the models were read: it ends well where uvicorn would raise."""
        yield


class _Door:
    """Sends away, with the time to come back, whoever comes over one connection too many; health is always told."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service
        self.server: uvicorn.Server | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        most = self._service.config.limits.connections
        assert self.server is not None
        is_full = len(self.server.server_state.connections) > most
        if scope["type"] != "http" or not is_full or "/health/" in scope["path"]:
            await self._app(scope, receive, send)
            return
        self._service.turned_away()
        error = AskError(503, "overloaded", f"{most} connections are open already", retry_after=1.0)
        body = error_body(error, scope["path"])
        headers = {**error_headers(error), "content-length": str(len(body)), "connection": "close"}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})


async def _sweep(server: uvicorn.Server, limits: LimitsConfig) -> None:
    """Close connections that keep a place from others: uvicorn would wait for ever.

    Nothing, or no whole head of a request, has come over them for too long; or what was answered is not taken.
    """
    longest = limits.seconds + 2 * limits.body_seconds  # for the answer, for the body before it, and to take it
    seen: dict[Any, float] = {}
    while True:
        await asyncio.sleep(_BETWEEN_SWEEPS)
        now = time.monotonic()
        found: list[Any] = list(server.server_state.connections)
        # A connection that is used again and again is found idle again and again, each time after another request.
        now_so = [(each, each.cycle, each.cycle is None or each.cycle.response_complete) for each in found]
        seen = {key: seen.get(key, now) for key in now_so}
        for (each, _, idle), since in seen.items():
            if now >= since + longest:
                each.transport.abort()  # to close it would wait until all that was answered is taken
            elif idle and now >= since + limits.body_seconds:
                each.transport.close()


@contextlib.contextmanager
def _listening(config: ServeConfig) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    where = f"{config.host}:{config.port}"
    try:
        opened = socket.create_server((config.host, config.port), family=family, backlog=512)
    except OSError as error:
        busy = error.errno == errno.EADDRINUSE
        advice = (
            "stop what listens there, or take another port: port=8001" if busy else "give an address of this machine"
        )
        raise UsageError(f"cannot listen: {os.strerror(error.errno or 0)}", where=where, advice=advice) from error
    with opened:
        # Connections inherit it. Without it the end of an answer waits 40 ms until the client has confirmed its head.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    return f"http://{shown}:{port}"
