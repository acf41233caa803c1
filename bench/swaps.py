"""Does a server whose models change again and again stay as it is? Memory, threads and open files over time.

    PYTHONPATH=src:tests python bench/swaps.py [--swaps 1000] [--minutes 30] [--model word|tiny] [--clients 4]

``danlu serve`` runs in a process of its own; the alias is moved between two models as fast as their processes start,
while clients ask all the time, every third for a stream where the model has them. After the last change the clients go
on until the time is over. Now and then it prints what the server's process holds (RSS without its children, threads,
open files) and how many requests failed; at the end the slope of RSS over the second half, in KiB a swap and a minute.

``tiny`` are real models (a classifier), whose processes take seconds to start; ``word`` are processes without torch
(:mod:`made_process`), so that a thousand changes take minutes: what the server itself holds is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace
from made_process import make_word
from served import Served, serving

NAME = "reviews"
EVERY = 20.0
"""Seconds between lines."""


def two_models(workspace: Workspace, kind: str) -> list[Artifact]:
    """The models that take turns."""
    if kind == "word":
        found = [make_word(workspace, word, NAME, seconds=0.01) for word in ("one", "other")]
        workspace.ledger.set_alias(NAME, "champion", found[0], reason="the first")
        return found
    from made_serving import make_served

    return [make_served(workspace, NAME, "text-classification", d_model=width) for width in (24, 16)][::-1]


@contextlib.contextmanager
def asking(server: Served, n_clients: int, statuses: Counter[int]) -> Iterator[None]:
    """Clients that ask until the block ends; how they were answered is counted."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.05):
            statuses[server.ask("/predict", {"model": NAME, "inputs": ["这个很好"]}).status] += 1

    threads = [threading.Thread(target=ask) for _ in range(n_clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def held(process: psutil.Process) -> dict[str, float]:
    """What the server's process holds."""
    return {
        "rss_mib": process.memory_info().rss / 2**20,
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "processes": len(process.children()),
    }


def changed(server: Served, model: Artifact) -> bool:
    """Whether the name means a model by now."""
    return bool(server.ask(f"/v1/models/{NAME}").json["digest"] == model.digest)


def run(server: Served, workspace: Workspace, models: list[Artifact], asked: argparse.Namespace) -> None:
    """Change models, ask, and print."""
    process = psutil.Process(server.process.pid)
    began = told = time.monotonic()
    statuses: Counter[int] = Counter()
    rows: list[tuple[float, int, float]] = []
    n_swaps = 0
    print("minutes  swaps  requests  failed  RSS MiB  threads  files  processes", flush=True)
    with asking(server, asked.clients, statuses):
        while n_swaps < asked.swaps or time.monotonic() < began + 60 * asked.minutes:
            if n_swaps < asked.swaps:
                model = models[(n_swaps + 1) % 2]
                workspace.ledger.set_alias(NAME, "champion", model, reason=f"turn {n_swaps}")
                while not changed(server, model):
                    time.sleep(0.02)
                n_swaps += 1
            else:
                time.sleep(1)
            if (now := time.monotonic()) >= told + EVERY or n_swaps in (1, asked.swaps):
                told = now if n_swaps < asked.swaps or now >= told + EVERY else told
                rows.append(line(process, statuses, (now - began) / 60, n_swaps))
    slope(rows)


def line(process: psutil.Process, statuses: Counter[int], minutes: float, n_swaps: int) -> tuple[float, int, float]:
    """Print how things are; when, after how many changes, and RSS in MiB."""
    now = held(process)
    n, n_fine = sum(statuses.values()), statuses[200]
    print(
        f"{minutes:7.1f} {n_swaps:6d} {n:9d} {n - n_fine:7d} {now['rss_mib']:8.1f} {now['threads']:8.0f} "
        f"{now['files']:6.0f} {now['processes']:10.0f}",
        flush=True,
    )
    return minutes, n_swaps, now["rss_mib"]


def slope(rows: list[tuple[float, int, float]]) -> None:
    """Print how RSS grew over the second half."""
    minutes, swaps, rss = (np.array(column, float) for column in zip(*rows[len(rows) // 2 :], strict=True))
    if len(rss) < 3:
        print("too few lines for a slope")
        return
    print(f"RSS over the second half: {1024 * np.polyfit(minutes, rss, 1)[0]:+.1f} KiB a minute", end="")
    print(f", {1024 * np.polyfit(swaps, rss, 1)[0]:+.2f} KiB a swap" if np.ptp(swaps) else "")


def main() -> None:
    """Serve, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", choices=["word", "tiny"], default="word")
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = Workspace(folder / "workspace")
        models = two_models(workspace, asked.model)
        program = "made_process" if asked.model == "word" else "danlu"
        with serving(workspace.root, NAME, folder=folder / "block", program=program) as server:
            run(server, workspace, models, asked)


if __name__ == "__main__":
    main()
