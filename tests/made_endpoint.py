"""An OpenAI-compatible server on this machine, for tests: answers as told, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Answer", "Asked", "completion", "completions", "served"]

Asked = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


def completion(choice: dict[str, Any], status: int = 200, **headers: str) -> Answer:
    """An answer with one choice."""
    return status, headers, json.dumps({"model": "m", "choices": [{"index": 0, **choice}]}).encode()


def completions(
    answers: Callable[[Sequence[str]], list[str]],
    nats: Callable[[Sequence[str]], Sequence[float]],
) -> Callable[[Asked], Answer]:
    """What a well-behaved server answers: next tokens, and the log-probabilities of an echoed prompt."""

    def answer(asked: Asked) -> Answer:
        prompt = asked["prompt"]
        if not asked.get("echo"):
            return completion({"text": answers([prompt])[0]})
        logprobs = [None, *[-float(nats([prompt])[0]) / (len(prompt) - 1)] * (len(prompt) - 1)]
        return completion({"text": prompt, "logprobs": {"tokens": list(prompt), "token_logprobs": logprobs}})

    return answer


@contextlib.contextmanager
def served(answer: Callable[[Asked], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """A server, its address up to ``/v1``, and what it was asked: bodies with the path and the headers."""
    heard: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            status, headers, content = answer(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", heard
        finally:
            server.shutdown()
            thread.join()
