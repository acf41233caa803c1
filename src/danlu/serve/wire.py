"""What the server and a model's process say to each other: JSON values, one a line, over a pair of sockets."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
from collections.abc import Callable
from typing import Any

__all__ = ["End", "Heard", "Line", "encoded", "ends"]

End = socket.socket
"""One end of a line. It has no address: nobody else can reach it."""

_CHUNK = 2**18
"""Bytes that are read at a time."""


def ends() -> tuple[End, End]:
    """A new line: its two ends."""
    return socket.socketpair()


def encoded(message: Any) -> bytes:
    """A message as it is sent."""
    return json.dumps(message).encode() + b"\n"


class _Splitter:
    """Cuts what has come into messages."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def push(self, content: bytes) -> list[Any]:
        self._rest += content
        if b"\n" not in content:  # the rest may be long: it is not looked through again for every part
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [json.loads(line) for line in lines]


class Line:
    """The process's end, which waits.

    Args:
        end: Its end.
    """

    def __init__(self, end: End) -> None:
        self._end, self._splitter = end, _Splitter()
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)

    def send(self, message: Any) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        self._end.sendall(encoded(message))

    def receive(self, patience: float | None) -> list[Any]:
        """What has come; where nothing has, what comes next, if anything does.

        Args:
            patience: Seconds that it is waited for; None: however long.

        Returns:
            Messages; None is the last, where the other end is gone or says that nothing follows.
        """
        found: list[Any] = []
        while self._selector.select(patience):
            content = self._end.recv(_CHUNK)
            found += self._splitter.push(content)
            if not content:
                return [*found, None]
            if None in found:
                break
            patience = 0  # there may be more
        return found


class Heard(asyncio.Protocol):
    """The server's end, in its event loop.

    Args:
        hear: Told every message.

    Attributes:
        lost: Set when the other end is gone.
    """

    def __init__(self, hear: Callable[[Any], None]) -> None:
        self._hear, self._splitter = hear, _Splitter()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        for message in self._splitter.push(data):
            self._hear(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the protocol's
        """See :class:`asyncio.Protocol`."""
        self.lost.set()
