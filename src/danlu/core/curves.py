"""The curves of a training run on disk: metrics.jsonl, which follows from the steps, and timing.jsonl, which does not.

metrics.jsonl   {"step": 120, "loss": ..., "gradient_norm": ..., "learning_rate": ...} | {"step": 120, "valid": {...}}
timing.jsonl    {"process": ..., "step": 120, "time": ..., "seconds": ..., "n_tokens": ..., ...}: what the steps of this
                process have cost so far; ``time`` is in seconds since 1970
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from danlu.core.errors import CorruptError

__all__ = ["lasting", "read_lines"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a file of curves; none where there is no file, and not a last one that is still being written.

    Raises:
        CorruptError: A line is not JSON.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise CorruptError("not valid JSON", where=f"{path}:{number}", advice="remove this line") from error
    return found


def lasting(timing: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of timing.jsonl in order of step: those of steps that were done again after a kill are left out."""
    found: list[Mapping[str, Any]] = []
    for line in timing:
        while found and found[-1]["step"] > line["step"]:
            found.pop()
        found.append(line)
    return found
