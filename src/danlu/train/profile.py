"""Where the time of a step goes: a trace for Perfetto or TensorBoard, and a table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from danlu.core.files import write_json

__all__ = ["TABLE", "TRACE", "Profiler"]

TRACE = "steps.pt.trace.json.gz"
TABLE = "profile.json"
_SKIPPED = 3
"""Steps that are let by first: they set things up."""
_ROWS = 20


class Profiler:
    """Records some steps of a run, from the fourth of a process on.

    It writes into the run's folder ``steps.pt.trace.json.gz``, and ``profile.json``: ``device``, ``steps``, ``seconds``
    (of the recorded steps, which the recording slows), and ``rows``, the costliest operations first: ``name``,
    ``calls`` and ``seconds`` of their own (without what they call), and their ``share`` of all such seconds.

    Args:
        folder: The run's folder.
        n_steps: Steps to record; 0: none.
    """

    def __init__(self, folder: Path, n_steps: int) -> None:
        self._folder, self._left, self._skip = folder, n_steps, _SKIPPED
        self._profile: profile | None = None
        self._n_recorded = 0
        self._started = 0.0

    def begin(self) -> None:
        """A step begins."""
        if self._skip:
            self._skip -= 1
        elif self._left and self._profile is None:
            activities = [ProfilerActivity.CPU]
            activities += [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=activities)
            self._profile.start()
            self._started = time.perf_counter()

    def end(self, *, last: bool = False) -> None:
        """A step has ended; after the last one that is to be recorded, or of all, what was seen is written."""
        if self._profile is None:
            return
        self._left -= 1
        self._n_recorded += 1
        if self._left and not last:
            return
        seconds = time.perf_counter() - self._started
        self._profile.stop()
        self._profile.export_chrome_trace(str(self._folder / TRACE))
        write_json(self._folder / TABLE, {"steps": self._n_recorded, "seconds": seconds, **_table(self._profile)})
        self._profile, self._left = None, 0


def _table(seen: profile) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    own = {
        event.key: (event.count, (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6)
        for event in seen.key_averages()
    }
    total = sum(seconds for _, seconds in own.values())
    rows = [
        {"name": name, "calls": calls, "seconds": seconds, "share": seconds / total if total else 0.0}
        for name, (calls, seconds) in sorted(own.items(), key=lambda item: -item[1][1])[:_ROWS]
    ]
    return {"device": "cuda" if on_gpu else "cpu", "rows": rows}
