"""What a server does when things go wrong: the table of outcomes. It ends with 1 if any of them is not as it should be.

    PYTHONPATH=src:tests python bench/serving/faults.py [--kills 200] [--swaps 1000 --minutes 30] [--only overload,...]

``danlu serve`` runs in a process of its own, with a tiny classifier and a tiny model that writes. After every fault it
must be healthy; whatever was answered with 200 must be among its events, whole; and no status from 500 on may have been
seen but 503. The kills between two writes use processes without torch (:mod:`made_process`): what is killed is the
server, which is the same. Changes of models, and memory: ``bench/swaps.py``, where --swaps asks for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from danlu.core.workspace import Workspace
from load import Answer, Asked, Connection, measure
from made_process import make_word
from served import Reply, Served, serving, until

POEMS, REVIEWS = "poems@champion", "reviews@champion"
QUEUE, STREAMS, BODY_SECONDS, SECONDS, CONNECTIONS = 8, 4, 3, 20, 64
WORDS = [
    POEMS, REVIEWS, f"limits.queue={QUEUE}", f"streams={STREAMS}", f"limits.body_seconds={BODY_SECONDS}",
    f"limits.seconds={SECONDS}", f"limits.connections={CONNECTIONS}",
]  # fmt: skip
WRITE = {"model": POEMS, "prompt": "好", "temperature": 1.0, "seed": 1}
LONG = {**WRITE, "max_tokens": 2000}
SHORT = {**WRITE, "max_tokens": 100}
OVER = 10
"""How many times as much is asked as can be answered."""


@dataclass
class Row:
    """A fault.

    Attributes:
        fault: What was done.
        expected: What should come of it.
        found: What came of it.
        n: How often it was done.
        right: Whether it is as it should be.
    """

    fault: str
    expected: str
    found: str
    n: int
    right: bool

    def __str__(self) -> str:
        return f"| {self.fault} | {self.n} | {self.expected} | {self.found} | {'yes' if self.right else '**NO**'} |"


@dataclass
class Scene:
    """A server, and what it has said so far.

    Attributes:
        server: It.
        statuses: How it answered.
        acknowledged: Ids of requests that were answered with 200.
        feedback: Ids of feedback that was acknowledged.
    """

    server: Served
    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    feedback: set[str] = field(default_factory=set)

    @property
    def so_far(self) -> tuple[Counter[int], set[str], set[str]]:
        """What it has said, for the next server of the workspace."""
        return self.statuses, self.acknowledged, self.feedback

    def ask(self, path: str, body: Any) -> Reply:
        """Ask, and keep in mind what was acknowledged."""
        reply = self.server.ask(path, body)
        self.heard(reply.status, reply.body if path != "/feedback" else b"")
        if path == "/feedback" and reply.status == 200:
            self.feedback.add(reply.json["id"])
        return reply

    def heard(self, status: int, body: bytes) -> None:
        """Keep in mind an answer."""
        self.statuses[status] += 1
        if status == 200 and body:
            self.acknowledged.add(json.loads(body)["id"])

    def classify(self) -> Reply:
        """An ordinary question."""
        return self.ask("/predict", {"model": REVIEWS, "inputs": ["好棒赞"]})

    def wrong(self) -> str:
        """What is not as it must always be; empty: nothing."""
        events = self.server.events()
        written = {each["id"] for each in events if each["event"] == "request" and each["status"] == 200}
        told = {each["id"] for each in events if each["event"] == "feedback"}
        found = []
        if lost := len(self.acknowledged - written) + len(self.feedback - told):
            found.append(f"LOST {lost} of {len(self.acknowledged) + len(self.feedback)}")
        if bad := {status: n for status, n in self.statuses.items() if status >= 500 and status != 503}:
            found.append(f"SEEN {bad}")
        if self.server.process.poll() is None and self.server.ask("/health/live").status != 200:
            found.append("NOT ALIVE")
        return "; ".join(found)


def overload(scene: Scene) -> Row:
    """Ten times as many requests as it can answer, at moments that do not wait for answers."""
    asked = Asked(scene.server.port, "/v1/completions", (json.dumps(SHORT).encode(),))
    full = asyncio.run(measure(asked, QUEUE, 1, 4))
    answers = asyncio.run(_sent(asked, OVER * full["per_second"], 8))
    for each in answers:
        scene.heard(each.status, each.body)
    fine = [each for each in answers if each.status == 200]
    refused = [each for each in answers if each.status == 503]
    told = sum(b"\r\nretry-after:" in each.head for each in refused)
    seconds = answers[-1].began - answers[0].began
    p99 = float(np.quantile([each.ended - each.began for each in fine], 0.99)) if fine else float("inf")
    quick = float(np.quantile([each.ended - each.began for each in refused], 0.99)) if refused else float("inf")
    over = len(answers) / seconds / full["per_second"]
    right = over >= 0.8 * OVER and len(fine) + len(refused) == len(answers) and told == len(refused)
    right = right and p99 <= 3 * full["p99"] and len(fine) >= 0.5 * full["per_second"] * seconds
    found = (
        f"asked {over:.1f} times the {full['per_second']:.0f} a second that it answers: {len(fine)} answered"
        f" ({len(fine) / seconds:.0f} a second, p99 {1000 * p99:.0f} ms; with a full queue and no more"
        f" {1000 * full['p99']:.0f} ms), {len(refused)} sent away in {1000 * quick:.0f} ms (p99)"
    )
    expected = "all answered or 503 with Retry-After; who is let in does not wait 3 times as long"
    return Row(f"{OVER} times overload", expected, found, len(answers), right)


async def _sent(asked: Asked, rate: float, seconds: float) -> list[Answer]:
    """Requests at a rate, whatever comes of those before; their answers in the order in which they were sent."""
    loop = asyncio.get_running_loop()
    request = next(asked.requests(0))
    free: list[Connection] = []

    async def one() -> Answer:
        connection = free.pop() if free else None
        if connection is None or not connection.open:
            _, connection = await loop.create_connection(lambda: Connection(False), "127.0.0.1", asked.port)
        answer = await connection.ask(request)
        free.append(connection)
        return answer

    began, under_way = time.monotonic(), []
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        under_way.append(asyncio.create_task(one()))
    answers = await asyncio.gather(*under_way)
    for connection in free:
        connection.close()
    return list(answers)


def slow_heads(scene: Scene) -> Row:
    """Connections whose heads come a byte at a time."""
    return _slow(
        scene, "heads that come a byte at a time", b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ", b""
    )


def slow_bodies(scene: Scene) -> Row:
    """Requests whose bodies come a byte at a time."""
    head = (
        b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
    )
    return _slow(scene, "bodies that come a byte at a time", head, b"HTTP/1.1 408")


def _slow(scene: Scene, fault: str, begins: bytes, answer: bytes) -> Row:
    """Half of the connections are slow ones: they lose them in time, and nobody else notices."""
    n = CONNECTIONS // 2
    ended: dict[int, tuple[float, bytes]] = {}
    began, longest, statuses = time.monotonic(), 0.0, Counter[int]()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", scene.server.port))) for _ in range(n)]
        for each in opened:
            each.sendall(begins)
            each.setblocking(False)
        while len(ended) < n and time.monotonic() < began + 4 * BODY_SECONDS + 10:
            for number, each in enumerate(opened):
                if number not in ended and (said := _over(each)) is not None:
                    ended[number] = (time.monotonic() - began, said)
            asked = time.monotonic()
            statuses[scene.classify().status] += 1
            longest = max(longest, time.monotonic() - asked)
            time.sleep(0.1)
    last = max((at for at, _ in ended.values()), default=float("inf"))
    right = len(ended) == n and all(said.startswith(answer) for _, said in ended.values()) and set(statuses) == {200}
    right = right and last <= BODY_SECONDS + 4
    words = "408, then closed" if answer else "closed"
    found = f"{len(ended)} {words} after at most {last:.1f} s; {sum(statuses.values())} others: {_told(statuses)}"
    expected = f"{words} after {BODY_SECONDS} s; others are answered meanwhile"
    return Row(fault, expected, f"{found}, {1000 * longest:.0f} ms at most", n, right)


def _over(opened: socket.socket) -> bytes | None:
    """What a connection said before it ended; None: it goes on. A byte more is sent."""
    try:
        said = opened.recv(4096)
        return said
    except BlockingIOError:
        pass
    except ConnectionError:
        return b""
    with contextlib.suppress(OSError):
        opened.send(b"x")
    return None


def slow_readers(scene: Scene) -> Row:
    """Streams that nobody reads: their places are for others, and the connections end."""
    # more than buffers hold: what is likely at every place of a long prompt
    body = {**LONG, "prompt": "好" * 3000, "max_tokens": 1, "stream": True, "logprobs": 20, "echo": True, "n": 4}
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(STREAMS):
            each = stack.enter_context(socket.socket())
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            each.settimeout(60)
            each.connect(("127.0.0.1", scene.server.port))
            each.sendall(_post("/v1/completions", body))
            opened.append(each)
        until(lambda: scene.server.under_way(POEMS) == STREAMS, 30)
        other = scene.ask("/v1/completions", SHORT).status
        waited = time.monotonic() - began
        most = SECONDS + 2 * BODY_SECONDS + 10
        gone = _within(lambda: scene.server.under_way(POEMS) == 0 and _connections(scene.server) <= 1, began + most)
        took = time.monotonic() - began
        n_whole = sum(b"[DONE]" in _rest(each) for each in opened)
    expected = f"another text is written meanwhile; they are cut off within {most} s"
    found = f"another: {other} after {waited:.1f} s; cut off after {took:.1f} s; {n_whole} had been sent as a whole"
    right = other == 200 and gone and n_whole == 0
    return Row("streams that nobody reads", expected, found, STREAMS, right)


def deep(scene: Scene) -> Row:
    """JSON that is deeper than any parser should follow."""
    bodies = [b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"[" * 10_000]
    bodies.append(
        b'{"model":"poems@champion","prompt":"' + b"[" * 10_000 + b'","max_tokens":1}'
    )  # a string is not deep
    routes = ["/predict", "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/explain", "/feedback"]
    statuses = Counter(scene.ask(path, body).status for path, body in itertools.product(routes, bodies[:3]))
    inside = scene.ask("/v1/completions", bodies[3])
    right = set(statuses) == {400} and inside.code == "context_length_exceeded"
    found = f"{_told(statuses)}; the same brackets in a string: {inside.code}"
    return Row("JSON 10,000 deep", "400", found, sum(statuses.values()) + 1, right)


def large(scene: Scene) -> Row:
    """Bodies of 100 MB, with and without their length said before."""
    process = psutil.Process(scene.server.process.pid)
    before, most, statuses = process.memory_info().rss, 0, Counter[int]()
    for chunked, _ in itertools.product((True, False), range(5)):
        status, rss = _flooded(scene.server.port, process, chunked)
        statuses[status] += 1
        most = max(most, rss)
    scene.statuses += statuses
    grown = (most - before) / 2**20
    found = f"{_told(statuses)}; memory grew by {grown:.1f} MiB at most"
    return Row("bodies of 100 MB", "413 before they are read; memory grows by less than 32 MiB", found, 10,
               set(statuses) == {413} and grown < 32)  # fmt: skip


def _flooded(port: int, process: psutil.Process, chunked: bool) -> tuple[int, int]:
    """Send 100 MB as long as they are taken; how that was answered, and what the server held at most."""
    how = "transfer-encoding: chunked" if chunked else f"content-length: {100 * 2**20}"
    head = f"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{how}\r\n\r\n"
    piece = b" " * 2**20
    if chunked:
        piece = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    most, said = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as opened:
        with contextlib.suppress(OSError):
            opened.sendall(head.encode())
            for _ in range(100):
                opened.sendall(piece)
                most = max(most, process.memory_info().rss)
        with contextlib.suppress(OSError):
            said = opened.recv(4096)
    return int(said[9:12] or 0), most


def greedy(scene: Scene) -> Row:
    """Requests for more than anybody may have."""
    asked = [{**WRITE, **more} for more in ({"n": 10**6}, {"n": 10**18}, {"max_tokens": 10**9}, {"logprobs": 10**6},
             {"stop": ["x"] * 10**4}, {"prompt": ["好"] * 10**4}, {"prompt": "好" * 200_000})]  # fmt: skip
    statuses = Counter(scene.ask("/v1/completions", body).status for body in asked)
    return Row("n=1e6, max_tokens=1e9, ...", "400", _told(statuses), len(asked), set(statuses) == {400})


def no_numbers(scene: Scene) -> Row:
    """Parameters that are no numbers."""
    names = ["temperature", "top_p", "min_p", "repetition_penalty", "max_tokens", "seed", "n"]
    values = ["NaN", "Infinity", "-Infinity", "1e999", '"1"', "true"]
    pairs = itertools.product(names, values)
    asked = [f'{{"model":"{POEMS}","prompt":"x","{name}":{value}}}'.encode() for name, value in pairs]
    statuses = Counter(scene.ask("/v1/completions", body).status for body in asked)
    return Row("parameters NaN, Infinity, strings", "400", _told(statuses), len(asked), set(statuses) == {400})


def disconnects(scene: Scene) -> Row:
    """Clients that leave in the middle of a stream."""
    n, slowest = 20, 0.0
    for _ in range(n // STREAMS):
        with contextlib.ExitStack() as stack:
            for _ in range(STREAMS):
                opened = stack.enter_context(scene.server.raw("/v1/completions", {**LONG, "stream": True}))
                opened.recv(64)
        left = time.monotonic()
        _within(lambda: scene.server.under_way(POEMS) == 0, left + 20)
        slowest = max(slowest, time.monotonic() - left)
    after = scene.ask("/v1/completions", SHORT).status
    found = f"all places free after at most {slowest:.2f} s; the next request: {after}"
    right = slowest < 2 and after == 200
    return Row("clients that leave mid-stream", "their places are free within 2 s", found, n, right)


def broken_model(scene: Scene) -> Row:
    """A model that cannot be read is put up."""
    from made_serving import make_served

    workspace = Workspace(scene.server.workspace)
    before = scene.classify().json["digest"]
    damaged = make_served(workspace, "broken", "text-classification", d_model=32)
    (damaged.path / "model.json").write_text("{}")
    workspace.ledger.set_alias("reviews", "champion", damaged, reason="a mistake")
    statuses: Counter[int] = Counter()

    def told() -> bool:
        statuses[scene.classify().status] += 1
        return any(each["event"] == "swap failed" for each in scene.server.events())

    failed = _within(told, time.monotonic() + 120)
    after = scene.classify().json["digest"]
    found = f"swap failed: {failed}; {sum(statuses.values())} requests meanwhile: {_told(statuses)}"
    right = failed and before == after and set(statuses) == {200}
    return Row("a broken model is put up", "an event says so; the old one answers on", found, 1, right)


def killed_processes(scene: Scene) -> Row:
    """The process of a model is killed while it writes."""
    n, back, codes = 5, 0.0, Counter[str]()
    for _ in range(n):
        with contextlib.ExitStack() as stack:
            bodies = ({**LONG, "stream": True}, LONG)
            streamed, waiting = (stack.enter_context(scene.server.raw("/v1/completions", body)) for body in bodies)
            streamed.recv(64)
            until(lambda: scene.server.under_way(POEMS) == 2, 30)
            for child in scene.server.children():
                os.kill(child, signal.SIGKILL)
            killed = time.monotonic()
            codes["503" if _rest(waiting).startswith(b"HTTP/1.1 503") else "OTHER"] += 1
            codes["error event" if b'"worker_lost"' in _rest(streamed) else "OTHER"] += 1
        _within(lambda: scene.server.ask("/health/ready").status == 200, killed + 120)
        back = max(back, time.monotonic() - killed)
        codes[str(scene.ask("/v1/completions", SHORT).status)] += 1
    right = codes == {"503": n, "error event": n, "200": n}
    found = f"waiting: {codes['503']} times 503; streams: {codes['error event']} error events"
    found += f"; after it: {codes['200']} answered"
    return Row("SIGKILL of the models' processes", "503 worker_lost, then new processes",
               f"{found}; back after at most {back:.1f} s", n, right)  # fmt: skip


def the_end(scene: Scene) -> Row:
    """SIGTERM while texts are being written."""
    with contextlib.ExitStack() as stack:
        body = {**LONG, "stream": True, "max_tokens": 1000}
        opened = [stack.enter_context(scene.server.raw("/v1/completions", body)) for _ in range(STREAMS)]
        begun = [each.recv(64) for each in opened]
        scene.server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        try:
            socket.create_connection(("127.0.0.1", scene.server.port), timeout=5).close()
            closed = False
        except ConnectionRefusedError:
            closed = True
        whole = [content for each in opened if b"data: [DONE]" in (content := _rest(each))]
        done = len(whole)
        scene.acknowledged |= {
            found[1].decode() for each in whole if (found := re.search(rb'"id": "(req-[^"]+)"', each))
        }
    code = scene.server.process.wait(60)
    found = f"{done} of {len(begun)} ended with [DONE]; new connections {'refused' if closed else 'TAKEN'}; exit {code}"
    return Row("SIGTERM with open streams", "they are written to their ends, nobody new comes in, exit 0", found,
               STREAMS, done == STREAMS and closed and code == 0)  # fmt: skip


def killed_servers(folder: Path, n: int) -> Row:
    """The server is killed while it writes events, again and again; whatever it acknowledged is in the files."""
    workspace = Workspace(folder / "workspace")
    workspace.ledger.set_alias("reviews", "champion", make_word(workspace, "yes"), reason="a test")
    draw, n_halves, acknowledged = random.Random(1), 0, 0
    scene: Scene | None = None
    for number in range(n):
        with serving(workspace.root, REVIEWS, folder=folder / "block", program="made_process") as server:
            scene = Scene(server, *(scene.so_far if scene else ()))
            with _asking(scene, f"f{number}"):
                time.sleep(draw.uniform(0.05, 0.4))
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait()
            server.process.returncode = 0  # this end was meant
        n_halves = sum(not path.read_bytes().endswith(b"\n") for path in workspace.events.glob("*.jsonl"))
        acknowledged = len(scene.acknowledged) + len(scene.feedback)
    wrong = scene.wrong() if scene else "NOTHING DONE"
    found = f"{acknowledged} acknowledged, {wrong or 'all in the files'}; {n_halves} files end in half a line"
    return Row("SIGKILL of the server while it writes events", "all that was acknowledged is in the files", found, n,
               not wrong and acknowledged > n)  # fmt: skip


@contextlib.contextmanager
def _asking(scene: Scene, mark: str) -> Iterator[None]:
    """Four clients that ask and give feedback until the server is gone."""
    done = threading.Event()

    def ask(mine: str) -> None:
        for number in itertools.count():
            try:
                reply = scene.classify()
                given = {"id": f"{mark}-{mine}-{number}", "request": reply.json["id"], "correct": True}
                scene.ask("/feedback", given)
            except (OSError, ValueError, KeyError):  # it is gone
                return
            if done.is_set():
                return

    import http.client

    def safely(mine: str) -> None:
        with contextlib.suppress(http.client.HTTPException):
            ask(mine)

    threads = [threading.Thread(target=safely, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def swaps(n: int, minutes: float) -> Row:
    """Changes of models, and memory over time: bench/swaps.py."""
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "swaps.py"),
        "--swaps",
        str(n),
        "--minutes",
        str(minutes),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if re.match(r"\s*[\d.]+\s+\d+\s+\d+\s", line)]
    if done.returncode or len(lines) < 2:
        return Row("changes of models", "all", f"exit {done.returncode}: {done.stderr[-300:]}", n, False)
    middle, last = lines[len(lines) // 2], lines[-1]
    grown = float(last[4]) / float(middle[4]) - 1
    found = f"{last[1]} changes, {last[3]} of {last[2]} requests failed; {done.stdout.splitlines()[-1]} ({grown:+.1%})"
    expected = "no request fails; memory of the second half grows by less than 2%"
    right = int(last[1]) == n and int(last[3]) == 0 and grown < 0.02
    return Row(f"changes of models over {last[0]} minutes", expected, found, n, right)


def _post(path: str, body: Any) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


def _rest(opened: socket.socket) -> bytes:
    """All that comes until an answer is over."""
    found = b""
    with contextlib.suppress(OSError):
        while piece := opened.recv(2**16):
            found += piece
            if b"[DONE]" in found[-64:] or b'"worker_lost"' in found:
                break
    return found


def _within(true: Callable[[], bool], end: float) -> bool:
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def _connections(server: Served) -> int:
    open_now = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in open_now)


def _told(statuses: Counter[int]) -> str:
    return ", ".join(f"{n} times {status}" for status, n in sorted(statuses.items()))


FAULTS: dict[str, Callable[[Scene], Row]] = {
    each.__name__: each
    for each in (overload, slow_heads, slow_bodies, slow_readers, deep, large, greedy, no_numbers, disconnects,
                 broken_model, killed_processes, the_end)
}  # fmt: skip


def rows(folder: Path, wanted: set[str], kills: int) -> Iterator[Row]:
    """All faults that are wanted, one after another."""
    if wanted & FAULTS.keys():
        from made_serving import make_served

        workspace = Workspace(folder / "workspace")
        make_served(workspace, "poems", "language-modelling", max_len=4000)
        make_served(workspace, "reviews", "text-classification")
        with serving(workspace.root, *WORDS, folder=folder / "block") as server:
            scene = Scene(server)
            for name, fault in FAULTS.items():
                if name in wanted:
                    row = fault(scene)
                    if wrong := scene.wrong():
                        row.found, row.right = f"{row.found}; {wrong}", False
                    yield row
    if "kills" in wanted:
        yield killed_servers(folder / "kills", kills)


def main() -> None:
    """All faults; the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--only", help=f"some of {', '.join([*FAULTS, 'kills'])}")
    given = parser.parse_args()
    every = {*FAULTS, "kills"}
    wanted = every if given.only is None else set(given.only.split(","))
    if unknown := wanted - every:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    found = []
    print("| fault | n | expected | found | right |\n|---|---:|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for row in rows(Path(name), wanted, given.kills):
            found.append(row)
            print(row, flush=True)
    if given.swaps:
        found.append(swaps(given.swaps, given.minutes))
        print(found[-1])
    sys.exit(any(not row.right for row in found))


if __name__ == "__main__":
    main()
