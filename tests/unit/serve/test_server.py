"""Connections that keep a place from others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from danlu.serve import server as serving
from danlu.serve.config import LimitsConfig

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def much(_scope: Any, receive: Any, send: Any) -> None:
    """Far more than lies in buffers on its way."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(64):
        await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@contextlib.contextmanager
def swept(limits: LimitsConfig) -> Iterator[tuple[int, uvicorn.Server]]:
    """A server in a thread whose connections are looked at."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(much, lifespan="off", log_level="critical", timeout_keep_alive=60))

    async def run() -> None:
        sweeping = asyncio.create_task(serving._sweep(server, limits))
        await server.serve(sockets=[listening])
        sweeping.cancel()

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
    assert not thread.is_alive()


def until_closed(server: uvicorn.Server, n: int) -> float:
    began = time.monotonic()
    while len(server.server_state.connections) > n:
        assert time.monotonic() < began + 20, "it is still there"
        time.sleep(0.02)
    return time.monotonic() - began


def connected(port: int, server: uvicorn.Server, said: bytes) -> socket.socket:
    n_before = len(server.server_state.connections)
    opened = socket.create_connection(("127.0.0.1", port), timeout=20)
    opened.sendall(said)
    while len(server.server_state.connections) == n_before:
        time.sleep(0.01)
    return opened


def test_who_says_nothing_or_half_a_head_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BETWEEN_SWEEPS", 0.05)
    with swept(LimitsConfig(body_seconds=0.5, seconds=60)) as (port, server):
        for said in (b"", ASK[:-2]):
            with connected(port, server, said) as opened:
                assert until_closed(server, 0) > 0.1
                assert opened.recv(1) == b""


def test_who_does_not_take_the_answer_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BETWEEN_SWEEPS", 0.05)
    with swept(LimitsConfig(body_seconds=0.2, seconds=1)) as (port, server), connected(port, server, ASK):
        assert until_closed(server, 0) > 0.5


def test_who_takes_the_answer_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BETWEEN_SWEEPS", 0.05)
    with swept(LimitsConfig(body_seconds=10, seconds=10)) as (port, server), connected(port, server, ASK) as opened:
        n = 0
        while n < 64 * 2**20:
            n += len(opened.recv(2**20))
        time.sleep(0.3)
        assert len(server.server_state.connections) == 1
