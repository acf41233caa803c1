from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.core.errors import DanluError
from danlu.serve.config import ServeConfig
from danlu.serve.gate import Gate
from danlu.serve.keys import KeyRing, make_key

Message = MutableMapping[str, Any]


class Scene:
    """A gate, an application behind it that says ``fine``, and what was recorded."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.records: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.broken = False
        self.config = ServeConfig(**values)
        self.keys = KeyRing(folder / "keys.json")

    def record(self, facts: dict[str, Any]) -> None:
        if self.broken:
            raise DanluError("could not write: no space left")
        self.records.append(facts)

    def ask(
        self, messages: list[Message], path: str = "/predict", method: str = "POST", **headers: str
    ) -> list[Message]:
        """What a request of these messages is sent; a request whose messages are used up says nothing more."""
        given = {"host": "127.0.0.1:8000", "content-type": "application/json", **headers}
        encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": encoded}
        sent: list[Message] = []

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            self.bodies.append((await receive())["body"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"fine"})

        async def receive() -> Message:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        service = SimpleNamespace(config=self.config, keys=self.keys)
        gate = Gate(app, service, self.record)  # type: ignore[arg-type]
        asyncio.run(asyncio.wait_for(gate(scope, receive, send), 20))
        return sent


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def code(sent: list[Message]) -> tuple[int, str]:
    return sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]


def test_a_request_goes_through_whole_and_is_recorded(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    sent = scene.ask([part(b"ab", more=True), part(b"", more=True), part(b"c")])
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"fine")
    assert scene.bodies == [b"abc"]
    (record,) = scene.records
    assert record["status"] == 200
    assert (b"x-request-id", record["id"].encode()) in sent[0]["headers"]


def test_a_body_that_grows_too_large_or_comes_too_slowly_is_not_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, limits={"body_bytes": 10, "body_seconds": 0.2})
    assert code(scene.ask([part(b"123456", more=True), part(b"78901", more=True)])) == (413, "body_too_large")
    assert code(scene.ask([], content_length="11")) == (413, "body_too_large")
    assert code(scene.ask([part(b"123", more=True)])) == (408, "body_too_slow")
    assert scene.bodies == []
    assert [record["status"] for record in scene.records] == [413, 413, 408]


def test_who_leaves_before_the_body_is_whole_is_recorded_as_gone(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.ask([part(b"1", more=True), {"type": "http.disconnect"}]) == []
    assert [record["status"] for record in scene.records] == [499]


def test_what_cannot_be_recorded_is_not_answered(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.broken = True
    sent = scene.ask([part(b"{}")])
    assert code(sent) == (503, "not_recorded")
    assert len(sent) == 2
    assert "fine" not in str(sent)


def test_a_broken_file_of_keys_lets_nobody_in(tmp_path: Path) -> None:
    key, _ = make_key(tmp_path / "keys.json", "one")
    scene = Scene(tmp_path)
    assert scene.ask([part(b"{}")], authorization=f"Bearer {key}")[0]["status"] == 200
    (tmp_path / "keys.json").write_text("{")
    assert code(scene.ask([part(b"{}")], authorization=f"Bearer {key}")) == (503, "keys_unreadable")
    assert scene.ask([part(b"")], path="/health/live", method="GET")[0]["status"] == 200


@pytest.mark.parametrize(
    ("listens", "host", "allowed"),
    [
        ("127.0.0.1", "localhost:80", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "192.168.1.4", False),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1@evil.example", False),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "192.168.1.4:8000", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "Models.factory", True),
    ],
)
def test_only_hosts_that_nobody_else_can_own_are_answered(
    tmp_path: Path, listens: str, host: str, allowed: bool
) -> None:
    scene = Scene(tmp_path, host=listens, hosts=["models.factory"])
    sent = scene.ask([part(b"{}")], host=host)
    assert (sent[0]["status"] == 200) is allowed
    if not allowed:
        assert code(sent) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["http://[::1", "http://", "null", "", "//127.0.0.1:8000.evil.example", "file://"])
def test_an_origin_that_is_none_is_refused(tmp_path: Path, origin: str) -> None:
    sent = Scene(tmp_path).ask([part(b"{}")], origin=origin)
    assert code(sent) == (403, "origin_not_allowed")


def test_a_path_with_a_line_end_reaches_no_route_past_its_scope(tmp_path: Path) -> None:
    asks, _ = make_key(tmp_path / "keys.json", "asks", ["ask"])
    for path in ("/metrics\n", "/label\n", "/board\r", "/\x00"):
        sent = Scene(tmp_path).ask([part(b"")], path=path, method="GET", authorization=f"Bearer {asks}")
        assert code(sent) == (404, "not_found")


def test_below_v2_an_error_is_a_sentence(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for path, plain in [("/v2", True), ("/v2/models/x/infer", True), ("/v2x", False), ("/v1/models", False)]:
        sent = scene.ask([part(b"{}")], path=path, host="evil.example")
        error = json.loads(sent[1]["body"])["error"]
        assert isinstance(error, str) is plain
    assert len(scene.records) == 4


def test_the_server_itself_holds_no_model() -> None:
    code = "import sys, danlu.serve.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "tokenizers"} & set(done.stdout.split())
