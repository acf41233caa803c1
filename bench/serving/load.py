"""Load on a server: so many clients, each of which asks again as soon as it is answered.

    python bench/serving/load.py --port 8000 --path /predict --bodies bodies.jsonl --clients 8 [--seconds 8] [--warm 1]
    python bench/serving/load.py --port 8000 --path /v1/completions --bodies prompts.jsonl --clients 8 --stream

It runs in a process of its own, for it needs a share of the machine too: what of it, it tells. It prints one JSON
object: requests a second and how long they took, counted over those that ended within the seconds; of streams also the
characters that came within the seconds, and how long the first took. Bodies are sent in turn, from a place that the
seed draws. An answer that is not 200 is counted as failed, and its time is not.

It speaks HTTP/1.1 over kept connections by itself: a library for clients takes longer for a request than some servers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Answer", "Asked", "Connection", "measure", "summary"]

_LEAVE = 5.0
"""Seconds after the end that clients wait for the answer that is under way."""


@dataclass
class Answer:
    """What came of one request.

    Attributes:
        began: When it was sent; by the monotonic clock, like all that follows.
        status: HTTP's; 0: the connection was lost.
        first: When the first text of a stream came; None: none did.
        ended: When the last byte came.
        pieces: When how many characters of a stream came.
        head: The head of the answer, in lower case.
        body: The body, where it came in one piece.
    """

    began: float
    status: int
    first: float | None
    ended: float
    pieces: list[tuple[float, int]]
    head: bytes = b""
    body: bytes = b""


@dataclass(frozen=True)
class Asked:
    """What a server is asked.

    Attributes:
        port: Where, on this machine.
        path: Of the route.
        bodies: JSON, in the order in which they are sent.
        stream: Whether answers are streams of completions.
    """

    port: int
    path: str
    bodies: tuple[bytes, ...]
    stream: bool = False

    def requests(self, first: int) -> Iterator[bytes]:
        """The requests as they are sent, for ever, from a place on."""
        whole = [self._request(body) for body in self.bodies]
        start = first % len(whole)
        return itertools.cycle(whole[start:] + whole[:start])

    def _request(self, body: bytes) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A connection, over which one request at a time is asked.

    Args:
        stream: Whether answers are streams of completions.
    """

    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._transport: Any = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._begin(0.0)

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; its answer."""
        self._begin(time.monotonic())
        self._waiting = waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return waiting

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Let it go."""
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  as asyncio has it
        """See asyncio."""
        self._end(0)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        if self._status == 0 and not self._head():
            return
        while self._left is None:
            if not self._chunk():
                return
        if len(self._buffer) >= self._left:
            self._end(self._status)

    def _begin(self, now: float) -> None:
        self._began, self._status, self._left = now, 0, 0
        self._buffer, self._events = bytearray(), bytearray()
        self._told = b""
        self._first: float | None = None
        self._pieces: list[tuple[float, int]] = []

    def _head(self) -> bool:
        """Read the head of an answer, if it is there as a whole."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._told = head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        self._status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        self._left = None if at < 0 else int(head[at + 17 :].partition(b"\r\n")[0])
        return True

    def _chunk(self) -> bool:
        """Take a chunk of a body, if it is there as a whole; after the last, nothing is left to wait for."""
        size, found, _ = self._buffer.partition(b"\r\n")
        if not found:
            return False
        n = int(size, 16)
        start = len(size) + 2
        if len(self._buffer) < start + n + 2:
            return False
        if n == 0:
            self._left = 0
        elif self._stream:
            self._events += self._buffer[start : start + n]
            self._hear()
        del self._buffer[: start + n + 2]
        return True

    def _hear(self) -> None:
        """Look at the events of a stream that have come as a whole."""
        *whole, rest = self._events.split(b"\n\n")
        self._events = rest
        for event in whole:
            content = event.removeprefix(b"data: ")
            if content == b"[DONE]":
                continue
            n = sum(len(choice["text"]) for choice in json.loads(content).get("choices", []))
            if n:
                now = time.monotonic()
                self._first = self._first or now
                self._pieces.append((now, n))

    def _end(self, status: int) -> None:
        if b"\r\nconnection: close" in self._told:
            self._transport.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            now, body = time.monotonic(), bytes(self._buffer)
            waiting.set_result(Answer(self._began, status, self._first, now, self._pieces, self._told, body))


async def measure(asked: Asked, n_clients: int, warm: float, seconds: float, first: int = 0) -> dict[str, Any]:
    """Ask for some seconds.

    Args:
        asked: What.
        n_clients: Requests that are under way at a time.
        warm: Seconds before those that count.
        seconds: Seconds that count.
        first: The body that is sent first.
    """
    requests, answers = asked.requests(first), list[Answer]()
    begins = time.monotonic() + warm
    ends = begins + seconds
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []

    async def client() -> None:
        connection: Connection | None = None
        while time.monotonic() < ends:
            if connection is None or not connection.open:
                _, connection = await loop.create_connection(lambda: Connection(asked.stream), "127.0.0.1", asked.port)
                connections.append(connection)
            answers.append(await connection.ask(next(requests)))

    clients = [asyncio.create_task(client()) for _ in range(n_clients)]
    await asyncio.sleep(warm)
    used = time.process_time()
    await asyncio.sleep(max(0.0, ends - time.monotonic()))
    used = time.process_time() - used
    await asyncio.wait(clients, timeout=_LEAVE)
    for connection in connections:
        connection.close()  # who is not answered by now leaves
    await asyncio.gather(*clients)
    return {**summary(answers, begins, ends), "clients": n_clients, "generator_cores": round(used / seconds, 4)}


def summary(answers: list[Answer], begins: float, ends: float) -> dict[str, Any]:
    """What came of requests that ended, and of characters that came, between two moments.

    Args:
        answers: All of them.
        begins: The first moment.
        ends: The last.
    """
    counted = [each for each in answers if begins <= each.ended < ends]
    fine = [each for each in counted if each.status == 200]
    found: dict[str, Any] = {
        "n": len(fine),
        "failed": len(counted) - len(fine),
        "statuses": dict(sorted(Counter(str(each.status) for each in counted).items())),
        "per_second": len(fine) / (ends - begins),
    }
    if fine:
        p50, p99 = np.quantile([each.ended - each.began for each in fine], [0.5, 0.99]).tolist()
        found |= {"p50": p50, "p99": p99}
    if streams := [each for each in answers if each.first is not None and begins <= each.first < ends]:
        p50, p99 = np.quantile([each.first - each.began for each in streams if each.first], [0.5, 0.99]).tolist()
        n_chars = sum(n for each in answers for at, n in each.pieces if begins <= at < ends)
        found |= {"first_p50": p50, "first_p99": p99, "chars_per_second": n_chars / (ends - begins)}
    return found


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--bodies", type=Path, required=True, help="JSON Lines, a body each")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--warm", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    bodies = tuple(given.bodies.read_bytes().splitlines())
    first = random.Random(given.seed).randrange(len(bodies))
    asked = Asked(given.port, given.path, bodies, given.stream)
    print(json.dumps(asyncio.run(measure(asked, given.clients, given.warm, given.seconds, first))))


if __name__ == "__main__":
    main()
