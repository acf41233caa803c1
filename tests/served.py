"""A server in a process of its own, and plain questions to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.core.events import read_events
from network import attempts, no_network_env

__all__ = ["Reply", "Served", "serving", "until"]


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error that it holds; every error has the same four parts."""
        error = self.json["error"]
        assert sorted(error) == ["code", "message", "param", "type"]
        return str(error["code"])


@dataclass
class Served:
    """A server."""

    process: subprocess.Popen[str]
    port: int
    workspace: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Up to the first slash."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        """One request; a body that is no bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", **self.headers, **headers}
        request = urllib.request.Request(f"{self.address}{path}", content, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def raw(self, path: str, body: Any) -> socket.socket:
        """A connection on which a request was sent, and nothing read."""
        content = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"content-length: {len(content)}", "", ""]
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        opened.sendall("\r\n".join(lines).encode() + content)
        return opened

    def under_way(self, model: str) -> float:
        """Requests that a model's process has."""
        text = self.ask("/metrics").body.decode()
        found = re.search(rf'^danlu_requests_under_way{{model="{re.escape(model)}"}} (\S+)$', text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    def events(self) -> list[dict[str, Any]]:
        """What was written down."""
        return list(read_events(self.workspace / "events"))

    def children(self) -> list[int]:
        """The processes that hold models."""
        found = []
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        for number in " ".join((thread / "children").read_text() for thread in threads).split():
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
                    found.append(int(number))
        return found


@contextlib.contextmanager
def serving(workspace: Path, *words: str, folder: Path, program: str = "danlu") -> Iterator[Served]:
    """``danlu serve`` on a free port, with no way to another machine; it has to end well.

    Args:
        workspace: Where the models are.
        words: Which, and values of the server.
        folder: For what it says.
        program: The module that is run; of tests, if it is not danlu itself.
    """
    environment = {**no_network_env(folder), "OMP_NUM_THREADS": "1"}
    if program != "danlu":
        environment["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent}"
    command = [sys.executable, "-m", program, "serve", *words, "port=0", "threads=1", "-w", str(workspace)]
    with (folder / "stderr.txt").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        assert found is not None, (line, (folder / "stderr.txt").read_text())
        yield Served(process, int(found[1]), workspace)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert attempts(folder) == []
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that has to come about."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
