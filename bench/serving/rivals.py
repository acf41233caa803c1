"""Serving beside others, of the same weights on the same machine: answers a second, and how long one takes.

    python bench/serving/rivals.py FOLDER [--samples SAMPLES] [--rounds 4] [--seconds 7] [--only classify|write]

classify: ``danlu serve``, a plain FastAPI with a pipeline of transformers, and LitServe with its batches; each request
asks for the class of one held-out review. write: ``danlu serve``, and ``transformers serve`` with and without its
continuous batching; each request continues the beginning of a held-out poem by up to 64 tokens, greedily, as a stream.
A token of the model is a character, and characters are what is counted.

In FOLDER it makes, once, the models (:mod:`models`) and a virtual environment with what danlu does not need itself. All
sides are first asked the same; where one answers otherwise than danlu, there is nothing to compare, and it stops. danlu
is served as it comes; every other side is tried with one and with two threads (LitServe also with and without waiting
for its batch), and goes on with what suits it better at eight clients, or at the first of --levels. Then they take
turns, A B C A B C; who has no turn is halted. The generator (:mod:`load`) shares the two cores with the server; it
tells how much of them it took. A ratio is that of two turns of one round, the interval that of the mean of its
logarithm over the rounds (Student's t, 95%). What every turn came to is in FOLDER/turns.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import psutil
from scipy import stats

import models

HERE = Path(__file__).parent
NEEDED = ("litserve==0.2.19",)
LEVELS = {"classify": (1, 8, 64), "write": (1, 8, 32)}
N_COMPARED = {"classify": 200, "write": 24}
PATHS = {"classify": "/predict", "write": "/v1/completions"}
NEW = 64
"""Tokens that are asked."""
PATIENCE = 120.0
"""Seconds in which a server has to be ready."""
CLOSE = 1e-4
"""How far probabilities may be apart: their pipelines and ours sum up in another order."""

Way = dict[str, float]
"""How a server is started: threads, and what else there is."""


@dataclass(frozen=True)
class Side:
    """A server.

    Attributes:
        name: What it is called.
        command: From its port and a way to start it to the command.
        bodies: What it is asked, all that may be asked of it.
        ways: How it may be started.
    """

    name: str
    command: Callable[[int, Way], list[str]]
    bodies: list[dict[str, Any]]
    ways: tuple[Way, ...]


class Running:
    """A server that has been started.

    Args:
        side: Which.
        way: How.
        task: What it is for.
        folder: For what it says, and for the bodies.
    """

    def __init__(self, side: Side, way: Way, task: str, folder: Path) -> None:
        self.side, self.way, self.task = side, way, task
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._bodies = folder / f"{task}-{side.name}.jsonl"
        lines = (json.dumps(body, ensure_ascii=False) + "\n" for body in side.bodies)
        self._bodies.write_text("".join(lines), encoding="utf-8")
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment["OMP_NUM_THREADS"] = str(int(way["threads"]))
        with (folder / f"{task}-{side.name}.log").open("w") as said:
            command = side.command(self.port, way)
            self._process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
        self._wait()

    def ask(self, body: dict[str, Any]) -> Any:
        """One question, and its answer as it comes."""
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{PATHS[self.task]}", content, headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def load(self, clients: int, seconds: float, number: int) -> dict[str, Any]:
        """Ask it from a process of its own; what came of it, and the processor time that the server took."""
        words = ["--port", str(self.port), "--path", PATHS[self.task], "--bodies", str(self._bodies)]
        words += ["--clients", str(clients), "--seconds", str(seconds), "--seed", str(number)]
        words += ["--stream"] if self.task == "write" else []
        before, began = self._used(), time.monotonic()
        done = subprocess.run(
            [sys.executable, str(HERE / "load.py"), *words], capture_output=True, text=True, check=True
        )
        cores = (self._used() - before) / (time.monotonic() - began)
        return {**json.loads(done.stdout), "server_cores": round(cores, 3)}

    def halt(self) -> None:
        """It stands still, and takes nothing of the machine."""
        for each in self._every():
            each.suspend()

    def go_on(self) -> None:
        """It goes on."""
        for each in self._every():
            each.resume()

    def stop(self) -> None:
        """It ends."""
        for each in self._every():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        self._process.wait()

    def _every(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _used(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._every())

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            why = ""
            try:
                self.ask({**self.side.bodies[0], "stream": False} if self.task == "write" else self.side.bodies[0])
                return
            except urllib.error.HTTPError as error:
                why = f"{error.code}: {error.read().decode()}" if error.code != 503 else ""
            except OSError:  # it does not listen yet
                pass
            ended = self._process.poll() is not None
            if why or ended or time.monotonic() > end:
                if not ended:
                    self.stop()
                said = self._bodies.with_suffix(".log").read_text()
                raise SystemExit(f"{self.side.name} cannot be asked: {why} {said[-2000:]}")
            time.sleep(0.2)


def sides_of(task: str, made: models.Made, python: str) -> list[Side]:
    """All of them, ours first."""
    threads: tuple[Way, ...] = ({"threads": 1}, {"threads": 2})
    as_it_comes: tuple[Way, ...] = ({"threads": 2},)
    name = "reviews@latest" if task == "classify" else "poems@latest"

    def danlu(port: int, _: Way) -> list[str]:
        words = [f"port={port}", "-w", str(made.workspace)]
        return [sys.executable, "-m", "danlu", "serve", name, *words]

    if task == "classify":
        bodies: list[dict[str, Any]] = [{"inputs": [text]} for text in made.texts]

        def plain(port: int, _: Way) -> list[str]:
            return [python, str(HERE / "their_fastapi.py"), str(made.reviews), str(port)]

        def lit(port: int, way: Way) -> list[str]:
            return [python, str(HERE / "their_litserve.py"), str(made.reviews), str(port), str(way["wait"])]

        waits = tuple({**way, "wait": wait} for way, wait in product(threads, (0.0, 0.005)))
        return [Side("danlu", danlu, bodies, as_it_comes), Side("fastapi", plain, bodies, threads),
                Side("litserve", lit, bodies, waits)]  # fmt: skip

    asked = {"max_tokens": NEW, "temperature": 0, "stream": True}

    def theirs(*more: str) -> Callable[[int, Way], list[str]]:
        serve = [python, "-m", "transformers.cli.transformers", "serve", str(made.poems), "--device", "cpu"]
        return lambda port, _: [*serve, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", *more]

    def of(model: str) -> list[dict[str, Any]]:
        return [{"model": model, "prompt": prompt, **asked} for prompt in made.prompts]

    return [
        Side("danlu", danlu, of(name), as_it_comes),
        Side("transformers", theirs(), of(str(made.poems)), threads),
        Side("transformers-cb", theirs("--continuous-batching"), of(str(made.poems)), threads),
    ]


def answers(running: Running, n: int) -> list[Any]:
    """What a server says to the first questions: labels and probabilities, or texts."""
    found = []
    for body in running.side.bodies[:n]:
        if running.task == "classify":
            (each,) = running.ask(body)["predictions"]
            found.append((each["label"], each.get("probability", each.get("score"))))
        else:
            found.append(running.ask({**body, "stream": False})["choices"][0]["text"])
    return found


def differences(ours: Sequence[Any], theirs: Sequence[Any]) -> list[str]:
    """Where two sides answer otherwise: another label, a probability too far off, another text."""
    found = []
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        same = one == other
        if isinstance(one, tuple):
            same = one[0] == other[0] and abs(one[1] - other[1]) <= CLOSE
        if not same:
            found.append(f"{number}: {one!r} and {other!r}")
    return found


def better_way(side: Side, task: str, folder: Path, seconds: float, clients: int) -> tuple[Running, list[Any]]:
    """A side in the way that suits it at so many clients, and what it answers."""
    tried: list[tuple[float, int]] = []
    for number, way in enumerate(side.ways):
        running = Running(side, way, task, folder)
        tried.append((score(running.load(clients, seconds, 0), task), number))
        print(f"  {side.name} {way}: {tried[-1][0]:.1f} a second at {clients}", file=sys.stderr, flush=True)
        if number + 1 < len(side.ways) or max(tried)[1] != number:
            running.stop()
    if max(tried)[1] != len(side.ways) - 1:
        running = Running(side, side.ways[max(tried)[1]], task, folder)
    return running, answers(running, N_COMPARED[task])


def score(found: dict[str, Any], task: str) -> float:
    """What is more where a side is better: requests, or characters, a second."""
    return float(found["per_second"] if task == "classify" else found.get("chars_per_second", 0.0))


@contextlib.contextmanager
def started(task: str, sides: Sequence[Side], folder: Path, seconds: float, clients: int) -> Iterator[list[Running]]:
    """All sides, halted; their answers have been found to be the same."""
    every: list[Running] = []
    try:
        ours: list[Any] = []
        for side in sides:
            running, found = better_way(side, task, folder, seconds, clients)
            every.append(running)
            running.halt()
            ours = ours or found
            if wrong := differences(ours, found):
                n, told = len(wrong), "\n".join(wrong[:5])
                raise SystemExit(f"{side.name} answers {n} of {len(found)} questions otherwise; void:\n{told}")
            print(f"{side.name}: {len(found)} answers as ours", file=sys.stderr, flush=True)
        yield every
    finally:
        for running in every:
            running.go_on()
            running.stop()


def rounds(every: Sequence[Running], task: str, n: int, seconds: float, levels: Sequence[int]) -> list[dict[str, Any]]:
    """The turns of all rounds."""
    found = []
    for number, clients in product(range(n), levels):
        for running in every:
            running.go_on()
            turn = running.load(clients, seconds, number)
            running.halt()
            found.append({"task": task, "round": number, "side": running.side.name, "clients": clients, **turn})
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The mean ratio over rounds, by its logarithm, and its interval; no number where a side answered nothing."""
    if not all(each > 0 for each in (*ours, *theirs)):
        return math.nan, math.nan, math.nan
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    middle = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(middle), 0.0, math.inf
    half = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def table(turns: Sequence[dict[str, Any]], task: str) -> str:
    """All of it in Markdown; times in milliseconds."""
    stream = task == "write"
    keys = ["first_p50", "first_p99", "p50", "p99"] if stream else ["p50", "p99"]
    rate = "chars_per_second" if stream else "per_second"
    names = list(dict.fromkeys(turn["side"] for turn in turns))
    head = ["clients", "side", "tokens a second" if stream else "requests a second", *keys]
    lines = [
        [
            *head,
            "n",
            "failed",
            "server's cores",
            "generator's",
            "CPU ms for one",
            "danlu over it: rate",
            "danlu over it: p99",
        ]
    ]
    for clients, name in product(dict.fromkeys(turn["clients"] for turn in turns), names):

        def of(key: str, who: str = name, at: int = clients) -> list[float]:
            return [turn.get(key, math.nan) for turn in turns if (turn["side"], turn["clients"]) == (who, at)]

        row = [str(clients), name, f"{statistics.mean(of(rate)):.1f}"]
        row += [f"{1000 * statistics.mean(of(key)):.1f}" for key in keys]
        row += [f"{sum(of('n')):.0f}", f"{sum(of('failed')):.0f}"]
        row += [f"{statistics.mean(of(key)):.2f}" for key in ("server_cores", "generator_cores")]
        row.append(f"{1000 * statistics.mean(of('server_cores')) / (statistics.mean(of(rate)) or math.nan):.2f}")
        for key in (rate, "first_p99" if stream else "p99"):
            shown = "" if name == names[0] else "{:.2f} ({:.2f} to {:.2f})".format(*ratio(of(key, names[0]), of(key)))
            row.append(shown)
        lines.append(row)
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _levels(given: str) -> tuple[int, ...]:
    return tuple(int(each) for each in given.split(","))


def environment(folder: Path) -> str:
    """Python with the packages of others; it sees ours too, so that torch and transformers are the same."""
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        (there,) = folder.glob("lib/python*/site-packages")
        (there / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *NEEDED], check=True)
        (folder / ".ready").touch()
    return str(python)


def main() -> None:
    """Make, compare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=Path, default=Path("danlu-workspace/samples"))
    parser.add_argument("--steps", type=int, default=60, help="of training each model")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=7)
    parser.add_argument("--trial", type=float, default=4, help="seconds for which a way to start a side is tried")
    parser.add_argument("--levels", type=_levels, help="numbers of clients; 1,8,64, and 1,8,32 for streams")
    parser.add_argument("--only", choices=list(LEVELS))
    parser.add_argument("--sides", help="these alone, beside danlu: fastapi,litserve,transformers,transformers-cb")
    given = parser.parse_args()
    folder = given.folder.resolve()
    made = models.make(folder, given.samples, given.steps)
    python = environment(folder / "environment")
    print(f"parameters: {made.sizes}; texts: {len(made.texts)}, prompts: {len(made.prompts)}", flush=True)
    wanted = None if given.sides is None else {"danlu", *given.sides.split(",")}
    turns: list[dict[str, Any]] = []
    for task in [given.only] if given.only else LEVELS:
        sides = [side for side in sides_of(task, made, python) if wanted is None or side.name in wanted]
        levels = given.levels or LEVELS[task]
        tried_at = 8 if 8 in levels else levels[0]
        with started(task, sides, folder, given.trial, tried_at) as every:
            found = rounds(every, task, given.rounds, given.seconds, levels)
            print(f"\n{task}: " + "; ".join(f"{each.side.name} {each.way}" for each in every))
        turns += found
        print(table(found, task), flush=True)
    (folder / "turns.json").write_text(json.dumps(turns, indent=1))


if __name__ == "__main__":
    main()
