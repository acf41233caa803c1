"""What a server does with connections: those that are too many, and those over which nothing comes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu.core.workspace import Workspace
from made_process import make_word
from served import Served, serving, until

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A model that is a word."""
    workspace = Workspace(tmp_path / "workspace")
    model = make_word(workspace, "yes")
    workspace.ledger.set_alias("reviews", "champion", model, reason="a test")
    words = ["reviews", "limits.connections=4", "limits.body_seconds=3"]
    with serving(workspace.root, *words, folder=tmp_path / "block", program="made_process") as found:
        yield found


def ask(server: Served) -> Any:
    return server.ask("/predict", {"model": "reviews", "inputs": ["x"]})


def test_one_connection_too_many_is_told_when_to_come_back(server: Served) -> None:
    assert ask(server).status == 200
    with contextlib.ExitStack() as opened:
        for _ in range(4):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        found = ask(server)
        assert (found.status, found.code) == (503, "overloaded")
        assert int(found.headers["retry-after"]) >= 1
        assert found.headers["content-type"] == "application/json"
        assert server.ask("/health/live").status == server.ask("/health/ready").status == 200
    until(lambda: ask(server).status == 200)
    assert b"danlu_connections_refused_total 1.0" in server.ask("/metrics").body


def test_a_connection_over_which_no_request_comes_is_closed(server: Served) -> None:
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        silent, slow = (
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(2)
        )
        slow.sendall(b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ")
        busy = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        while time.monotonic() < began + 6:  # what is used goes on for longer than what is not
            busy.sendall(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                piece = busy.recv(4096)
                assert piece
                answer += piece
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                slow.sendall(b"x")
            time.sleep(0.3)
        assert silent.recv(1) == b""
        with contextlib.suppress(ConnectionResetError):
            assert slow.recv(1) == b""


@pytest.mark.parametrize("begun", ["GET /", "GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: ", "chunks"])
def test_a_head_and_what_follows_a_body_end_somewhere(server: Served, begun: str) -> None:
    """Nobody makes the server keep more than a little of what is not a body."""
    head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    chunks = f"{head}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-after: "
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
        opened.sendall((chunks if begun == "chunks" else begun).encode())
        n_sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while n_sent < 50_000_000:
                n_sent += opened.send(b"x" * 65536)
                time.sleep(0.001)
    assert n_sent < 10_000_000
    assert server.ask("/health/live").status == 200


def test_many_short_fields_are_too_many(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
        opened.sendall(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for number in range(20_000):
                opened.sendall(f"x-{number}: {number}\r\n".encode())
            opened.sendall(b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert opened.recv(12) in (b"HTTP/1.1 431", b"")
