"""What the loop works with: ``danlu`` as a command, and questions over HTTP, of which every failed one counts."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Client", "Commands", "LoopError", "Request", "Server", "Stream", "wait_for"]

_CLIENTS = 4
_TIMEOUT = 120


class LoopError(Exception):
    """A step did not show what it should."""


class Commands:
    """The command line in one workspace.

    Args:
        workspace: Where everything is.
        cwd: The folder in which commands run.
    """

    def __init__(self, workspace: Path, cwd: Path) -> None:
        self.workspace, self.cwd = workspace, cwd

    def line(self, *words: str) -> list[str]:
        """A command as a process is started with."""
        return [sys.executable, "-m", "danlu", *words, "-w", str(self.workspace)]

    def __call__(self, *words: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a verb; the facts of ``--json``, with ``exit_code`` and ``seconds``.

        Args:
            words: The verb and what follows it.
            codes: How it may end.

        Raises:
            LoopError: It ends otherwise.
        """
        print(f"  $ danlu {' '.join(words)}", flush=True)
        start, worked = time.monotonic(), _cpu_seconds()
        done = subprocess.run(
            [*self.line(*words), "--json"], capture_output=True, text=True, check=False, cwd=self.cwd, env=environment()
        )
        seconds = time.monotonic() - start
        print(f"    ({seconds:.0f} s, of CPU {_cpu_seconds() - worked:.0f} s)", flush=True)
        if done.returncode not in codes:
            told = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise LoopError(f"danlu {' '.join(words)} ended with {done.returncode}, not {codes}:\n{told}")
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**facts, "exit_code": done.returncode, "seconds": seconds}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def environment() -> dict[str, str]:
    """That of this process, with nothing that would take the commands to another workspace or index."""
    return {key: value for key, value in os.environ.items() if key not in ("DANLU_HOME", "DANLU_INDEX")}


class Server:
    """``danlu serve`` in a process of its own, on a free port.

    Args:
        commands: The command line.
        name: What is served.
        log: A file for what it says.
    """

    def __init__(self, commands: Commands, name: str, log: Path) -> None:
        words = ("serve", name, "port=0")
        print(f"  $ danlu {' '.join(words)} &", flush=True)
        self._log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(
                commands.line(*words), stdout=subprocess.PIPE, stderr=said, text=True, env=environment()
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        if found is None:
            self.process.wait()
            raise LoopError(f"the server did not begin: {line}\n{log.read_text()[-2000:]}")
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """SIGTERM; how it ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def kill(self) -> None:
        """End it if it still runs: the loop has failed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()


@dataclass(frozen=True)
class Request:
    """A question: who asks, what, and the class that is right."""

    user: str
    text: str
    truth: str


@dataclass(frozen=True)
class Answer:
    """What a request came to."""

    asked: Request
    id: str
    digest: str
    label: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the class is the right one."""
        return self.label == self.asked.truth


@dataclass
class Client:
    """Whoever asks the server. Every answer but 200, and every broken connection, is a failed request.

    Attributes:
        port: Of the server.
        name: The model that is asked.
        n: Requests so far.
        failed: What the failed ones were told.
    """

    port: int
    name: str
    n: int = 0
    failed: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, path: str, body: Any = None, user: str | None = None, again: Any = None) -> Any:
        """One request; what it answers, or None where it failed. ``again`` is a connection that is open already."""
        connection = again or http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        headers = {"content-type": "application/json"} | ({"x-danlu-user": user} if user else {})
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        told = None
        try:
            connection.request("GET" if body is None else "POST", path, content, headers)
            reply = connection.getresponse()
            read = reply.read()
            if reply.status == 200:
                found = read.decode() if path == "/metrics" else json.loads(read)
            else:
                told = f"{path}: {reply.status} {read[:300].decode(errors='replace')}"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            told = f"{path}: {type(error).__name__} {error}"
        finally:
            if again is None:
                connection.close()
        with self._lock:
            self.n += 1
            if told is not None:
                self.failed.append(told)
                return None
        return found

    def predict(self, request: Request, again: Any = None) -> Answer | None:
        """Ask for the class of a text."""
        body = {"model": self.name, "inputs": [request.text]}
        found = self.ask("/predict", body, request.user, again)
        if found is None:
            return None
        (answer,) = found["predictions"]
        return Answer(request, found["id"], found["digest"], answer["label"], answer["probability"])

    def replay(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask for many, a few at a time; the answers that came, in the order of the requests."""
        found: list[Answer | None] = [None] * len(requests)

        def run(first: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
            for place in range(first, len(requests), _CLIENTS):
                found[place] = self.predict(requests[place], connection)
            connection.close()

        with ThreadPoolExecutor(_CLIENTS) as pool:
            list(pool.map(run, range(_CLIENTS)))
        return [answer for answer in found if answer is not None]

    def say(self, answer: Answer, source: dict[str, str], **said: Any) -> Any:
        """Feedback to an answer; its id follows from what it is about, so that sent again it counts once."""
        number = f"{source['kind']}-{source['id']}-{answer.id}"[:100]
        return self.ask("/feedback", {"id": number, "request": answer.id, "source": source, **said})

    def gauge(self, name: str) -> float:
        """A number of ``GET /metrics`` of this model."""
        text = self.ask("/metrics") or ""
        found = re.search(rf'^{name}{{model="{re.escape(self.name)}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0


class Stream:
    """Requests that go on in the background, a few a second, while something else happens.

    Args:
        client: Who asks.
        requests: What is asked, from the beginning again when all were.
        pause: Seconds between two.
    """

    def __init__(self, client: Client, requests: Sequence[Request], pause: float = 0.1) -> None:
        self.answers: list[Answer] = []
        self._client, self._requests, self._pause = client, requests, pause
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._done.wait(self._pause):
            answer = self._client.predict(self._requests[number % len(self._requests)])
            number += 1
            if answer is not None:
                self.answers.append(answer)

    def answered_by(self, digest: str) -> bool:
        """Whether the newest answer is of this model."""
        return bool(self.answers) and self.answers[-1].digest == digest


def wait_for(what: str, true: Any, seconds: float = 300) -> float:
    """Wait for something; after how many seconds it came about.

    Raises:
        LoopError: It did not.
    """
    start = time.monotonic()
    while not true():
        if time.monotonic() > start + seconds:
            raise LoopError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(0.2)
    return time.monotonic() - start
