"""The generator of load counts what a server did, and the comparison says where two sides differ."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[3] / "bench" / "serving"))
load: Any = importlib.import_module("load")
rivals: Any = importlib.import_module("rivals")

Say = Callable[[int, asyncio.StreamWriter], Any]


@asynccontextmanager
async def server(say: Say) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says something to each request, told its number; its port, and what it was sent."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                bodies.append(await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0])))
                await say(len(bodies), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], bodies


def asked(say: Say, n_clients: int, *, stream: bool = False) -> tuple[dict[str, Any], list[bytes]]:
    async def ask() -> tuple[dict[str, Any], list[bytes]]:
        async with server(say) as (port, bodies):
            what = load.Asked(port, "/x", (b"{}", b'{"a":1}'), stream)
            return await load.measure(what, n_clients, 0.05, 0.4, first=1), bodies

    return asyncio.run(ask())


def whole(status: str, body: bytes, *more: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more, "", ""]).encode() + body


def test_requests_and_their_times_are_counted() -> None:
    async def say(_: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        for piece in (whole("200 OK", b"{}")[:9], whole("200 OK", b"{}")[9:]):  # a head may come in pieces
            writer.write(piece)
            await writer.drain()

    found, bodies = asked(say, 3)
    assert found["failed"] == 0
    assert 10 < found["n"] <= 3 * 0.4 / 0.02
    assert found["per_second"] == pytest.approx(found["n"] / 0.4)
    assert 0.02 <= found["p50"] <= found["p99"] < 0.3
    assert bodies[:3] == [b'{"a":1}', b"{}", b'{"a":1}']
    assert 0 < found["generator_cores"] < 1


def test_what_fails_is_no_fast_answer() -> None:
    async def say(number: int, writer: asyncio.StreamWriter) -> None:
        if number % 3 == 0:  # hangs up
            writer.close()
        elif number % 3 == 1:
            await asyncio.sleep(0.01)
            writer.write(whole("200 OK", b"{}"))
        else:
            writer.write(whole("503 Service Unavailable", b"{}", "Connection: close"))

    found, _ = asked(say, 1)
    assert set(found["statuses"]) == {"0", "200", "503"}
    assert found["n"] == found["statuses"]["200"] > 0
    assert found["failed"] == found["statuses"]["0"] + found["statuses"]["503"]
    assert found["p50"] >= 0.01


def test_characters_of_a_stream_are_counted_as_they_come() -> None:
    def event(text: str) -> bytes:
        return f"data: {json.dumps({'choices': [{'text': text}]})}\n\n".encode()

    async def say(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        content = [event(""), event("春")[:20], event("春")[20:] + event("眠眠"), b"data: [DONE]\n\n", b""]
        for place, chunk in enumerate(content):
            await asyncio.sleep(0.01 if place == 2 else 0)
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")

    found, _ = asked(say, 2, stream=True)
    assert found["n"] > 5
    assert found["chars_per_second"] == pytest.approx(3 * found["per_second"], rel=0.3)
    assert 0.01 <= found["first_p50"] <= found["p50"] < 0.3


def test_who_is_not_answered_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_LEAVE", 0.1)

    async def say(*_: Any) -> None:
        await asyncio.sleep(60)

    found, bodies = asked(say, 2)
    assert (found["n"], found["failed"], len(bodies)) == (0, 0, 2)


def test_answers_are_compared() -> None:
    ours = [("good", 0.9), ("bad", 0.6), ("good", 0.7)]
    assert rivals.differences(ours, [("good", 0.90001), ("bad", 0.60005), ("good", 0.7)]) == []
    assert len(rivals.differences(ours, [("bad", 0.9), ("bad", 0.601), ("good", 0.7)])) == 2
    assert len(rivals.differences(["春眠", "不覺"], ["春眠", "不觉"])) == 1
    with pytest.raises(ValueError, match="shorter"):
        rivals.differences(ours, ours[:2])


def test_a_ratio_has_the_interval_of_its_rounds() -> None:
    middle, low, high = rivals.ratio([2.0, 8.0], [1.0, 2.0])
    assert middle == pytest.approx(math.sqrt(8))
    assert math.log(high / middle) == pytest.approx(12.7062 * math.log(2) / 2, rel=1e-4)  # t of one degree
    assert math.log(middle / low) == pytest.approx(math.log(high / middle))
    assert rivals.ratio([2.0], [1.0]) == (2.0, 0.0, math.inf)
    assert all(math.isnan(each) for each in rivals.ratio([2.0, 1.0], [1.0, 0.0]))


def test_the_table_has_a_row_for_every_side_at_every_level() -> None:
    keys = {"per_second": 10.0, "p50": 0.01, "p99": 0.02, "n": 5, "failed": 0}
    more = {"server_cores": 1.0, "generator_cores": 0.1}
    turns = [
        {"side": side, "clients": clients, **keys, **more, "per_second": rate}
        for side, rate in (("danlu", 30.0), ("other", 10.0))
        for clients in rivals.LEVELS["classify"]
        for _ in range(2)
    ]
    lines = rivals.table(turns, "classify").splitlines()
    assert len(lines) == 2 + 2 * len(rivals.LEVELS["classify"])
    assert lines[3].startswith("| 1 | other | 10.0 | 10.0 | 20.0 | 10 | 0 |")
    assert "3.00 (3.00 to 3.00)" in lines[3]
