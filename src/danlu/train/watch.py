"""What is worth telling of a training run while it goes on; nothing that it makes depends on it."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

from danlu.core.allocator import give_back_freed_memory
from danlu.train.checkpoint import State

__all__ = ["Watch", "forget_peak", "memory", "peak_memory"]

_MIB = 2**20
_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Watch:
    """The facts of a moment."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}
        """The last validation scores of this process."""
        self._losses: list[float] = []

    def add(self, loss: float) -> None:
        """A step has ended with this loss."""
        self._losses.append(loss)

    def facts(self, state: State, rate: float, speed: float) -> dict[str, float]:
        """What there is to say, by name; the loss is the mean over the steps since this was asked last.

        Args:
            state: Where the run stands.
            rate: The learning rate of the last step.
            speed: Tokens a second.
        """
        found = {"loss": sum(self._losses) / len(self._losses)}
        self._losses = []
        found |= {f"valid {name}": value for name, value in self.scores.items()}
        if state.best_score is not None and state.best_step is not None:
            found |= {"best score": state.best_score, "at step": state.best_step}
        found |= {"learning rate": rate, "tokens/s": speed}
        names = {"memory_bytes": "memory (MiB)", "gpu_memory_bytes": "GPU memory (MiB)"}
        return found | {names[name]: n_bytes / _MIB for name, n_bytes in memory().items()}


def memory() -> dict[str, int]:
    """The most memory so far, in bytes: ``memory_bytes`` of the process and, where there is one, of its GPU."""
    found = {"memory_bytes": peak_memory()}
    if torch.cuda.is_available():
        found["gpu_memory_bytes"] = torch.cuda.max_memory_reserved()
    return found


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes; since :func:`forget_peak`, where that is able."""
    if _STATUS.exists():
        line = next((line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Give freed memory back and count the peak anew: on Linux, if the system lets a process do so."""
    give_back_freed_memory()
    with contextlib.suppress(OSError):
        _PEAK.write_text("5")
