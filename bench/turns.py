"""Ways that take turns: each in a process of its own, one running at a time, so that no thread pool disturbs another.

A busy machine then slows all of them; a ratio is that of two turns of one round.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Spread", "Turn", "Way", "describe", "keep", "machine", "rounds", "spread"]

CONTEXT = multiprocessing.get_context("spawn")
Turn = Callable[[Any], dict[str, Any]]
"""Does what is measured, told the number of the round (0, 1, ...) or what else it needs, and says how it went."""


class Way:
    """One way of doing what is measured.

    Args:
        make: Called in the way's process: gets everything ready, and returns facts about it and what a turn does.
        arguments: What it is called with.
        n_threads: Threads of torch in that process.

    Attributes:
        facts: What ``make`` said.
    """

    def __init__(self, make: Callable[..., tuple[dict[str, Any], Turn]], *arguments: Any, n_threads: int) -> None:
        self._here, there = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_answer, args=(there, make, arguments, n_threads), daemon=True)
        self._process.start()
        there.close()
        self.facts: dict[str, Any] = self._here.recv()

    def __call__(self, asked: Any) -> dict[str, Any]:
        """Its turn, told what it is to do; not None."""
        self._here.send(asked)
        said: dict[str, Any] = self._here.recv()
        return said

    def end(self) -> None:
        """Let it go."""
        self._here.send(None)
        self._process.join()


def _answer(
    pipe: Any, make: Callable[..., tuple[dict[str, Any], Turn]], arguments: tuple[Any, ...], n_threads: int
) -> None:
    """What runs in the process of a way."""
    torch.set_num_threads(n_threads)
    facts, turn = make(*arguments)
    pipe.send(facts)
    while (asked := pipe.recv()) is not None:
        pipe.send(turn(asked))


def rounds(ways: Mapping[str, Way], n_rounds: int) -> Iterator[dict[str, dict[str, Any]]]:
    """What every way said in a round; round 0, which comes first, is to warm up."""
    for number in range(n_rounds + 1):
        said = {name: way(number) for name, way in ways.items()}
        yield {**said, "machine": {"load": os.getloadavg()[0]}}


@dataclass(frozen=True)
class Spread:
    """Some values, one a round.

    Attributes:
        median: Of them.
        low: Their first quartile.
        high: Their third quartile.
    """

    median: float
    low: float
    high: float

    def __format__(self, how: str) -> str:
        return f"{self.median:{how}} ({self.low:{how}} to {self.high:{how}})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    return Spread(statistics.median(values), float(low), float(high))


def machine(n_threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """What it was measured on, and with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return {
        "processor": " ".join(sorted(names)) or platform.processor(),
        "n_cores": os.cpu_count(),
        "n_threads": n_threads,
        "versions": {package: version(package) for package in packages},
    }


def describe(of: Mapping[str, Any]) -> str:
    """A machine in a few words."""
    versions = ", ".join(f"{package} {version}" for package, version in of["versions"].items())
    return f"{of['n_threads']} threads on {of['processor']}, {of['n_cores']} cores; {versions}"


def keep(path: Path, found: Mapping[str, Any]) -> None:
    """Write what came out, so that it can be shown again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
