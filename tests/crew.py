"""Processes that train, to be waited for or killed."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import sleep
from typing import Any

from forking import forking
from small import danlu_in_child

__all__ = ["Crew", "difference", "digests"]

_KINDS = ("pretrained", "model")


class Crew:
    """Starts ``danlu train`` in a folder with a recipe and a workspace, in so many processes.

    The imports are done before, once for all: a process is at work within a moment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        self._context = forking()

    def start(self, n: int, *words: str) -> list[ForkServerProcess]:
        """Start them, each as torchrun would."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["train", str(self.folder / "recipe.yaml"), "-w", str(self.workspace), *words]
        members = [
            self._context.Process(target=_member, args=(rank, n, port, command, self.folder / f"log-{rank}.txt"))
            for rank in range(n)
        ]
        for process in members:
            process.start()
        return members

    def train(self, n: int, *words: str) -> None:
        """Let them train to the end."""
        for process in (members := self.start(n, *words)):
            process.join()
        assert [process.exitcode for process in members] == [0] * n, self.log()

    def kill(self, n: int, ready: Callable[[], bool], delay: float, *words: str) -> bool:
        """Kill all so long after they are ready; whether they were still at work."""
        members = self.start(n, *words)
        while all(process.is_alive() for process in members) and not ready():
            sleep(0.0005)
        sleep(delay)
        for process in members:
            process.kill()
        for process in members:
            process.join()
        assert all(process.exitcode in (0, -9) for process in members) or n > 1, self.log()
        return any(process.exitcode == -9 for process in members)

    def at(self, step: int, kind: str = "model") -> bool:
        """Whether there is a checkpoint of a step."""
        return any(self.workspace.glob(f"runs/tiny-{kind}-*/checkpoints/step-{step:08d}"))

    def begun(self, kind: str = "model") -> bool:
        """Whether there is any checkpoint."""
        return any(self.workspace.glob(f"runs/tiny-{kind}-*/checkpoints/step-*"))

    def saving(self, kind: str, step: int) -> Callable[[], bool]:
        """Whether a checkpoint at or after a step is being written now."""

        def now() -> bool:
            (*before,) = self.workspace.glob(f"runs/tiny-{kind}-*/checkpoints/step-*")
            last = max((int(path.name.removeprefix("step-")) for path in before), default=-1)
            return last >= step and any(self.workspace.glob(f"runs/tiny-{kind}-*/checkpoints/.scratch-*"))

        return now

    def log(self) -> str:
        """What they said."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log-*.txt")))

    def curve(self) -> list[dict[str, Any]]:
        """Every line of the model's curve."""
        (path,) = self.workspace.glob("artifacts/model/tiny-*/metrics.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


def _member(rank: int, n: int, port: int, words: list[str], log: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    danlu_in_child(words, log)


def difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    """The largest difference of a loss or a validation score of two curves."""
    assert [point["step"] for point in one] == [point["step"] for point in other]
    return max(abs(_value(a) - _value(b)) for a, b in zip(one, other, strict=True))


def _value(point: dict[str, Any]) -> float:
    return float(point["loss"] if "loss" in point else point["valid"]["score"])


def digests(workspace: Path) -> dict[str, str]:
    """Of the weights and the curve of every phase."""
    found = {}
    for kind in _KINDS:
        for folder in (workspace / "artifacts" / kind).glob("tiny-*"):
            for name in ("model.safetensors", "metrics.jsonl"):
                found[f"{kind}/{name}"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found
