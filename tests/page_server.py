"""A server with the page and made-up answers: what ``danlu serve`` says, without a model, and failing when told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import danlu.serve

__all__ = ["MODELS", "POLICY", "FakeServer", "board", "faking"]

ASSETS = Path(danlu.serve.__file__).parent / "assets"
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def _model(name: str, task: str, family: str, digest: str, **more: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"classes": None, "max_len": 256, "image_size": None, "max_new_tokens": None, **more}
    named = {"id": name, "object": "model", "created": 1, "owned_by": "danlu", "digest": digest * 64}
    return {**named, "task": task, "family": family, **known}


MODELS = [
    _model("reviews@champion", "text-classification", "bert", "a", classes=["negative", "positive"]),
    _model("digits@champion", "image-classification", "cnn", "b", classes=list("0123456789"), image_size=[1, 28, 28]),
    _model("ui@champion", "translation", "transformer", "c"),
    _model("poems@champion", "language-modelling", "gpt", "d", max_new_tokens=200),
]


@dataclass
class FakeServer:
    """What it was asked, and how it is to answer.

    Attributes:
        address: Where it is.
        key: What has to be given; None: nothing.
        asked: Path and body of every question that was let in, with the key left out.
        failing: Path -> status, code and message of the failures to come, each once.
        questions: Open questions.
        board: What the board says.
        pieces: What a model writes, piece by piece.
        pause: Seconds between two pieces.
        broken: Whether a stream ends before its end.
        left: Set when somebody left a stream.
    """

    address: str = ""
    key: str | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    failing: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    questions: list[dict[str, Any]] = field(default_factory=list)
    board: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=lambda: ["疑是", "地上", "霜。"])
    pause: float = 0.0
    broken: bool = False
    left: threading.Event = field(default_factory=threading.Event)
    known: dict[str, Any] = field(default_factory=dict)

    def bodies(self, path: str) -> list[Any]:
        """What was sent there."""
        return [body for asked, body in self.asked if asked == path]


@contextlib.contextmanager
def faking() -> Iterator[FakeServer]:
    """Such a server, until the end."""
    fake = FakeServer(board=board(empty=True))
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows what failed."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        name = "index.html" if address.path == "/" else address.path.removeprefix("/assets/")
        if address.path == "/" or address.path.startswith("/assets/"):
            file = ASSETS / name
            if "/" in name or not file.is_file():
                self._send(404, {"error": {"message": "no such file", "code": "not_found"}})
                return
            self._send_bytes(200, file.read_bytes(), _TYPES[file.suffix])
            return
        self._answer(address.path, {key: each[0] for key, each in parse_qs(address.query).items()})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.headers["content-type"] == "application/json"
        self._answer(urlsplit(self.path).path, json.loads(body))

    def _answer(self, path: str, asked: Any) -> None:
        fake = self.fake
        if fake.key is not None and self.headers.get("authorization") != f"Bearer {fake.key}":
            self._send(401, _error("invalid_api_key", "this needs a key: Authorization: Bearer KEY"))
            return
        if fake.failing.get(path):
            status, code, message = fake.failing[path].pop(0)
            self._send(status, _error(code, message))
            return
        fake.asked.append((path, asked))
        if path == "/v1/completions":
            self._write()
            return
        routes = {"/v1/models": _models, "/predict": _predict, "/explain": _explain, "/feedback": _feedback}
        routes |= {"/label": _label, "/board": _board}
        if path not in routes:
            self._send(404, _error("not_found", "Not Found"))
            return
        self._send(*routes[path](fake, asked))

    def _write(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for place, piece in enumerate(self.fake.pieces):
                last = place == len(self.fake.pieces) - 1
                choice = {"index": 0, "text": piece, "finish_reason": "length" if last else None, "logprobs": None}
                self._event({"id": "req-w", "choices": [choice], "usage": None})
                time.sleep(self.fake.pause)
            if not self.fake.broken:
                usage = {"prompt_tokens": 5, "completion_tokens": len(self.fake.pieces)}
                self._event({"id": "req-w", "choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.fake.left.set()

    def _event(self, facts: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(facts, ensure_ascii=False)}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, facts: Any) -> None:
        self._send_bytes(status, json.dumps(facts, ensure_ascii=False).encode(), "application/json")

    def _send_bytes(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": f"{kind}; charset=utf-8",
            "content-length": str(len(content)),
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked has left
            self.wfile.write(content)


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


Answer = tuple[int, Any]


def _models(fake: FakeServer, asked: Any) -> Answer:  # noqa: ARG001  all routes have it
    return 200, {"object": "list", "data": MODELS}


def _predict(fake: FakeServer, asked: Any) -> Answer:
    model = next(each for each in MODELS if each["id"] == asked["model"])
    if model["task"] == "translation":
        found: dict[str, Any] = {"translation": f"译：{asked['inputs'][0]}"}
    else:
        classes = model["classes"]
        label = "7" if model["task"] == "image-classification" else "positive"
        rest = 0.0688 / (len(classes) - 1)
        shares = {name: 0.9312 if name == label else rest for name in classes}
        found = {"label": label, "probability": 0.9312, "probabilities": shares}
    number = len(fake.bodies("/predict"))
    return 200, {"id": f"req-{number}", "model": model["id"], "digest": model["digest"], "predictions": [found]}


def _explain(fake: FakeServer, asked: Any) -> Answer:  # noqa: ARG001
    model = next(each for each in MODELS if each["id"] == asked["model"])
    known = {"id": "req-e", "model": model["id"], "label": "positive", "probability": 0.9312}
    known["method"] = "integrated gradients, from a text whose tokens are hidden"
    if model["task"] == "image-classification":
        weights = [[(1 if x > 13 else -1) * x * y / 729 for x in range(28)] for y in range(28)]
        return 200, {**known, "label": "7", "height": 28, "width": 28, "weights": weights}
    text = asked["input"]
    spans = [
        {"text": letter, "start": at, "end": at + 1, "weight": round(((at * 7) % 11 - 4) / 10, 3)}
        for at, letter in enumerate(text)
        if not letter.isspace()
    ]
    return 200, {**known, "text": text, "spans": spans}


def _feedback(fake: FakeServer, asked: Any) -> Answer:
    content = {key: value for key, value in asked.items() if key != "id"}
    before = fake.known.setdefault(asked["id"], content)
    if before != content:
        return 409, _error("conflict", "another feedback has this id")
    known = len([body for body in fake.bodies("/feedback") if body["id"] == asked["id"]]) > 1
    return 200, {"id": asked["id"], "status": "known" if known else "recorded"}


def _label(fake: FakeServer, asked: Any) -> Answer:
    answered = {body["request"] for body in fake.bodies("/feedback")}
    still = [question for question in fake.questions if question["request"] not in answered]
    model = next(each for each in MODELS if each["id"] == asked["model"])
    known = {"model": model["id"], "name": model["id"].split("@")[0], "classes": model["classes"] or []}
    return 200, {**known, "n_open": len(still), "questions": still[: int(asked["n"])]}


def _board(fake: FakeServer, asked: Any) -> Answer:
    return 200, {**fake.board, "model": asked["model"], "now": time.time()}


def board(empty: bool = False) -> dict[str, Any]:
    """What a board says: of a model that nobody has asked yet, or of one that drifts while a better one is tried."""
    if empty:
        nothing: dict[str, Any] = dict.fromkeys(("estimated_accuracy", "experiment"))
        nothing |= {key: [] for key in ("traffic", "drift", "alerts", "history")} | {"confidence": [0] * 20}
        nothing |= {"labels": {}, "errors": 0, "windows": 0, "latency": {"p50": None, "p95": None, "p99": None}}
        nothing["bucket"] = 60.0
        nothing["feedback"] = {"n": 0, "right": 0, "wrong": 0, "corrected": 0}
        return {"name": "reviews", "digest": "a" * 64, **nothing}
    start = 60 * (int(time.time()) // 60 - 45)
    buckets = [
        {
            "start": start + 60 * k,
            "n": 20 + (k * 13) % 17 + (k > 30) * 12,
            "n_failed": (k % 9 == 4) + 2 * (k == 31),
            "p50": 0.011 + 0.0002 * (k % 7),
            "p95": 0.024 + 0.0008 * (k % 5) + (k > 30) * 0.006,
            "p99": 0.041 + 0.002 * (k % 6) + (k == 31) * 0.04,
        }
        for k in range(45)
    ]
    signals = [
        ("length", 0.061, 0.019, 0.81, False),
        ("characters", 0.312, 0.271, 0.0004, True),
        ("unknown", 0.021, 0.002, 1.0, False),
        ("embedding", 0.058, 0.049, 0.0021, True),
        ("classes", 0.037, 0.012, 1.0, False),
        ("latency", 0.041, None, None, False),
        ("confidence", 0.155, 0.118, 0.031, True),
    ]
    keys = ("signal", "effect", "excess", "p_adjusted", "alarm")
    plan = {"margin": 0.02, "budget": 2000, "level": 0.05, "mode": "live", "share": 0.5}
    known = {"n": 1240, "n_challenger": 628, "difference": 0.031, "low": -0.004, "high": 0.066, "decision": "continue"}
    known |= {"n_since": 0, "decided_at": None}
    began = {"id": "e1", "since": "2026-11-24T02:10:00Z", "by": "mei", "why": "the test says 1.4 points better"}
    began |= {"champion": "a" * 64, "challenger": "c" * 64}
    said = "characters are 0.312 from the reference, 0.271 beyond the usual (p = 0.0004)"
    alert = {
        "signal": "characters",
        "effect": 0.312,
        "excess": 0.271,
        "p_adjusted": 0.0004,
        "level": 0.05,
        "n": 1380,
        "window": 23,
    }
    history = [
        (1_763_800_000, "champion", "9" * 64, "the only one", "mei", []),
        (1_764_010_000, "champion", "a" * 64, "superior by 2.3 points on 1,800 users", "mei", ["e" * 64, "f" * 64]),
    ]
    entry = ("time", "alias", "digest", "reason", "by", "evidence")
    return {
        "name": "reviews",
        "digest": "a" * 64,
        "bucket": 60.0,
        "traffic": buckets,
        "latency": {"p50": 0.0118, "p95": 0.0287, "p99": 0.061},
        "errors": sum(bucket["n_failed"] for bucket in buckets),
        "drift": [dict(zip(keys, each, strict=True)) for each in signals],
        "windows": 23,
        "confidence": [0] * 10 + [14, 21, 25, 31, 44, 58, 90, 151, 340, 610],
        "labels": {"negative": 652, "positive": 732},
        "estimated_accuracy": {"value": 0.842, "low": 0.817, "high": 0.866},
        "alerts": [{"time": time.time() - 700, "name": "reviews", "digest": "9" * 64, "message": said, **alert}],
        "experiment": {**plan, **known, **began},
        "history": [dict(zip(entry, each, strict=True)) for each in reversed(history)],
        "feedback": {"n": 164, "right": 121, "wrong": 43, "corrected": 29},
    }
