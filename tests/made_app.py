"""The application of a server without its processes: models that answer from a table, asked without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

from fastapi.routing import iter_route_contexts

from danlu.core.events import EventLog, read_events
from danlu.core.workspace import Workspace
from danlu.serve.app import create_app
from danlu.serve.config import ServeConfig
from danlu.serve.keys import KeyRing
from danlu.serve.service import Service
from danlu.serve.worker import AskError, Ticket

__all__ = ["MadeApp", "MadeWorker", "Replied"]

CLASSES = ["bad", "good"]


@dataclass(frozen=True)
class Replied:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error that it holds."""
        return str(self.json["error"]["code"])


def _facts(task: str, kinds: list[str], **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"task": task, "family": "made", "classes": [], "max_len": 64, "image_size": None}
    return {**known, "kinds": kinds, **more}


def _predicted(text: str) -> dict[str, Any]:
    p = 0.9 if "good" in text else 0.2
    probabilities = {"bad": round(1 - p, 6), "good": p}
    best = max(probabilities, key=lambda name: probabilities[name])
    return {"label": best, "probability": probabilities[best], "probabilities": probabilities}


def _explained(_: str) -> dict[str, Any]:
    spans = [{"text": "x", "start": 0, "end": 1, "weight": 0.5}]
    return {"label": "good", "probability": 0.9, "method": "made", "change": 1.0, "gap": 0.0, "spans": spans}


def _written(request: dict[str, Any]) -> list[dict[str, Any]]:
    texts = [{"index": n, "text": "...", "ended": "stop"} for n in range(len(request["prompts"]) * request["n"])]
    done = {"texts": texts, "prompt_tokens": 2, "completion_tokens": 1}
    return [{"parts": texts, "done": done}] if request["stream"] else [{"done": done}]


class MadeWorker:
    """What a worker is to the routes.

    Args:
        name: The model's.
        task: What it is for.
        digest: The model's.
    """

    def __init__(self, name: str, task: str, digest: str) -> None:
        manifest = {"name": name, "created": "2026-01-01T00:00:00Z"}
        self.model = SimpleNamespace(digest=digest, manifest=manifest, path=Path(f"/nowhere/{name}"))
        self.facts = {
            "text-classification": _facts(task, ["embed", "explain", "predict"], classes=CLASSES),
            "image-classification": _facts(task, ["explain", "predict"], classes=CLASSES, image_size=[1, 2, 3]),
            "translation": _facts(task, ["predict"]),
            "language-modelling": _facts(task, ["embed", "write"]),
        }[task]
        self.ready, self.n_asked, self.n_starts, self.pid = True, 0, 1, None
        self.asked: list[dict[str, Any]] = []
        self.error: AskError | None = None

    @asynccontextmanager
    async def ask(self, request: dict[str, Any]) -> AsyncIterator[Ticket]:
        """Answer at once."""
        self.asked.append(request)
        ticket = Ticket(1, asyncio.get_running_loop().time() + 20)
        for reply in [self.error] if self.error else self._replies(request):
            ticket.replies.put_nowait(reply)
        yield ticket

    def _replies(self, request: dict[str, Any]) -> list[Any]:
        if request["kind"] == "write":
            return _written(request)
        answer: Callable[[str], dict[str, Any]] = {
            "predict": _predicted if self.facts["classes"] else lambda text: {"translation": text[::-1]},
            "explain": _explained,
            "embed": lambda _: {"vector": [1.0, 0.0], "n_tokens": 1},
        }[request["kind"]]
        return [{"done": {"results": [answer(each) for each in request["inputs"]], "batch": 1}}]


class MadeApp:
    """An application over a workspace.

    Args:
        folder: The workspace.
        models: Name -> task; the names without an alias.
        board: What the board tells.
        values: Of the config.
    """

    def __init__(self, folder: Path, models: dict[str, str] | None = None, board: Any = None, **values: Any) -> None:
        self.workspace = Workspace(folder)
        self.loop = asyncio.new_event_loop()
        self.headers: dict[str, str] = {}
        self.config = ServeConfig(**values)
        self.keys = folder / "keys.json"
        self.workers = {
            name: MadeWorker(name, task, f"{number:064x}")
            for number, (name, task) in enumerate((models or {"reviews": "text-classification"}).items(), start=1)
        }
        self.service = self.loop.run_until_complete(self._made(board))
        self.gate = create_app(self.service)

    async def _made(self, board: Any) -> Service:
        events = EventLog(self.workspace.events, "serve")
        seats = {
            f"{name}@champion": SimpleNamespace(
                worker=worker,
                trial=None,
                target=SimpleNamespace(name=name),
                n_asked=0,
                n_starts=1,
                n_swaps=0,
                n_failed=0,
            )
            for name, worker in self.workers.items()
        }
        service = Service(self.workspace, {"x": _NOTHING}, self.config, KeyRing(self.keys), events, board)
        service.seats = seats  # type: ignore[assignment]
        return service

    def __enter__(self) -> MadeApp:
        return self

    def __exit__(self, *_: object) -> None:
        if self.service._index is not None:
            self.service._index.close()
        self.loop.close()

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Path and method of everything that the application has."""
        found = iter_route_contexts(self.gate.app.routes)
        return sorted((each.path, method) for each in found for method in each.methods or [])

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What was written down."""
        return [event for event in read_events(self.workspace.events) if event["event"] == kind]

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Replied:
        """One request; a body that is no bytes is sent as JSON."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.loop.run_until_complete(
            self._ask(path, content, method or ("GET" if body is None else "POST"), headers)
        )

    async def _ask(self, path: str, content: bytes, method: str, headers: dict[str, str]) -> Replied:
        given = {"host": "127.0.0.1:8000", "content-type": "application/json", **self.headers, **headers}
        place, _, query = path.partition("?")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": unquote(place),
            "raw_path": place.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()],
        }
        waiting = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if waiting:
                return waiting.pop()
            await asyncio.sleep(3600)
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(self.gate(scope, receive, send), 20)
        decoded = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Replied(sent[0]["status"], decoded, b"".join(message.get("body", b"") for message in sent[1:]))


_NOTHING = SimpleNamespace(model=SimpleNamespace(digest="0" * 64, manifest={"name": "x"}), name="x", alias=None)
