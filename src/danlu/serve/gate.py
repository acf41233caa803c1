"""What every request passes before a route sees it, and what every answer passes before it leaves.

In: the host and the origin that a browser says, the key, its scope and its rate, the size of the body and how long it
takes to come. Out: the request is counted and written down before its last byte is sent, so that nothing that was
answered is missing from the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from danlu.core.errors import DanluError
from danlu.serve.config import is_loopback
from danlu.serve.keys import Key, Scope
from danlu.serve.page import PAGE_ROUTES, is_page
from danlu.serve.service import Service
from danlu.serve.worker import AskError

__all__ = ["Gate", "error_body", "error_headers"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_OPEN = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
"""Routes that need no key; the page's files need none either (:mod:`danlu.serve.page`)."""
_SCOPES: dict[str, Scope] = {"/metrics": "metrics", "/board": "metrics", "/label": "label"}
"""What a key must allow; everything else is ``ask``."""
_NOT_WRITTEN = {*_OPEN, "/metrics", "/board", *PAGE_ROUTES}
"""Routes that machines ask all day and that ask no model."""
_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),  # no page of another site may embed an answer
]
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 503: "server_error"}


def error_body(error: AskError, path: str) -> bytes:
    """An error as OpenAI's clients understand it; below ``/v2``, as the Open Inference Protocol has it."""
    if path == "/v2" or path.startswith("/v2/"):
        return json.dumps({"error": error.message}, ensure_ascii=False).encode("utf-8", "backslashreplace")
    kind = _TYPES.get(error.status, "invalid_request_error")
    facts = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return json.dumps({"error": facts}, ensure_ascii=False).encode("utf-8", "backslashreplace")


def error_headers(error: AskError) -> dict[str, str]:
    """The headers that belong to an error."""
    found = {"content-type": "application/json"}
    if error.retry_after is not None:
        found["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        found["www-authenticate"] = "Bearer"
    return found


class Gate:
    """The outermost layer of the application.

    Args:
        app: What is behind it.
        service: What is served.
        record: Counts a request and writes it down; DanluError where that cannot be.

    Attributes:
        app: See above.
    """

    def __init__(self, app: App, service: Service, record: Callable[[dict[str, Any]], None]) -> None:
        self.app = app
        self._service, self._record = service, record
        self._hosts = {host.lower() for host in (*service.config.hosts, service.config.host)}
        self._here = is_loopback(service.config.host)
        mine = secrets.token_hex(6)
        self._ids = (f"req-{mine}-{number:08x}" for number in itertools.count())

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts: dict[str, Any] = {"id": next(self._ids)}
        state = scope.setdefault("state", {})
        state |= {"facts": facts, "key": None}
        out = _Out(scope, send, self._record, facts)
        try:
            try:
                headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
                self._check_origin(headers)
                if not scope["path"].isprintable():  # routes are found by patterns that let a line end after them
                    raise AskError(404, "not_found", "no route has such characters")
                state["key"] = self._check_key(scope["path"], headers, facts)
                body = await self._body(scope["method"], headers, receive)
            except AskError as error:
                await out.refuse(error)
                return
            if body is not None:
                await self.app(scope, _with_body(body, receive), out.send)
        finally:
            out.left()

    def _check_origin(self, headers: dict[str, str]) -> None:
        """A page of another site cannot ask in its visitor's name, whatever name it made its address resolve to."""
        host = _host_of(f"//{headers.get('host', '')}")
        # A name can be made to mean this machine by whoever owns it; a number and localhost cannot.
        if not (host in self._hosts or is_loopback(host) or (not self._here and _is_number(host))):
            raise AskError(403, "host_not_allowed", "this server is not reached by that host name")
        if "origin" in headers and _place_of(headers["origin"]) != headers["host"].lower():
            raise AskError(403, "origin_not_allowed", "pages of other sites may not ask this server")

    def _check_key(self, path: str, headers: dict[str, str], facts: dict[str, Any]) -> Key | None:
        if path in _OPEN or is_page(path):
            return None
        keys = self._service.keys
        try:
            needed = keys.look()
            scheme, _, given = headers.get("authorization", "").partition(" ")
            key = keys.find(given.strip()) if needed and scheme.lower() == "bearer" else None
        except DanluError:
            what = "the file of keys cannot be read: nobody is let in until it is mended"
            raise AskError(503, "keys_unreadable", what, retry_after=10) from None
        if not needed:
            return None
        if key is None:
            raise AskError(401, "invalid_api_key", "this needs a key: Authorization: Bearer KEY")
        facts["key"] = key.id
        if (scope := _SCOPES.get(path, "ask")) not in key.scopes:
            raise AskError(403, "scope_missing", f"this key does not have the scope {scope}, which {path} needs")
        if wait := keys.wait(key):
            what = f"this key may be used {key.per_minute} times a minute"
            raise AskError(429, "rate_limit_exceeded", what, retry_after=wait)
        return key

    async def _body(self, method: str, headers: dict[str, str], receive: Receive) -> bytes | None:
        """The whole body; None: the client left."""
        most = self._service.config.limits.body_bytes
        length = headers.get("content-length", "0")
        if length.isdecimal() and len(length) < 20 and int(length) > most:
            raise _too_large(most)
        if method in ("POST", "PUT", "PATCH"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise AskError(415, "unsupported_media_type", "send JSON: Content-Type: application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(self._service.config.limits.body_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise _too_large(most)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise AskError(408, "body_too_slow", "the body did not arrive in time") from None
        return bytes(body)


class _Out:
    """The answer on its way out."""

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        send: Send,
        record: Callable[[dict[str, Any]], None],
        facts: dict[str, Any],
    ) -> None:
        self._scope, self._send, self._record, self._facts = scope, send, record, facts
        self._began = time.monotonic()
        self._start: Message | None = None
        self._started = self._written = False

    async def send(self, message: Message) -> None:
        """Pass a message on; the last one only after the request is written down."""
        if message["type"] == "http.response.start":
            # Nothing of an answer in one piece is sent before it is written down: what cannot be, is not answered.
            self._start = message
            return
        assert self._start is not None
        if not message.get("more_body", False):
            try:
                self._write(self._start["status"])
            except DanluError as error:
                if not self._started:
                    refusal = AskError(503, "not_recorded", f"the request could not be written down: {error.what}")
                    self._start = {"status": 503, "headers": _encoded(error_headers(refusal))}
                    message = {**message, "body": error_body(refusal, self._scope["path"])}
                    self._start["headers"].append((b"content-length", str(len(message["body"])).encode()))
        if not self._started:
            self._started = True
            headers = [*self._start.get("headers", []), (b"x-request-id", self._facts["id"].encode())]
            headers += _ALWAYS
            await self._send({**self._start, "type": "http.response.start", "headers": headers})
        await self._send(message)

    async def refuse(self, error: AskError) -> None:
        """Answer with an error; what is left of the body is not read, so that the connection ends."""
        body = error_body(error, self._scope["path"])
        self._facts["code"] = error.code
        headers = {**error_headers(error), "content-length": str(len(body)), "connection": "close"}
        await self.send({"type": "http.response.start", "status": error.status, "headers": _encoded(headers)})
        await self.send({"type": "http.response.body", "body": body})

    def left(self) -> None:
        """The request is over; whoever asked may have left before its answer."""
        with contextlib.suppress(DanluError):
            self._write(499)

    def _write(self, status: int) -> None:
        if self._written:
            return
        self._written = True
        route = getattr(self._scope.get("route"), "path", "")
        if route not in _NOT_WRITTEN:
            seconds = round(time.monotonic() - self._began, 6)
            self._record({**self._facts, "route": route, "status": status, "seconds": seconds})


def _with_body(body: bytes, receive: Receive) -> Receive:
    """A body that was read, then whatever comes: the client's leaving."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _too_large(most: int) -> AskError:
    return AskError(413, "body_too_large", f"a request may have {most} bytes")


def _host_of(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _place_of(origin: str) -> str | None:
    """Host and port of an origin; None: it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
