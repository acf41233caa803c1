"""How many threads a model computes with, where nobody says."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from danlu.serve.batcher import Batcher

__all__ = ["settle"]

_CHEAP = 0.004
"""Seconds of one thread for an answer, or for a token. The server itself takes about one millisecond for a request."""
_TRIES = 3
_TEXT = 64
"""Characters of the text that is tried."""


def settle(batchers: Mapping[str, Batcher], facts: Mapping[str, Any], cores: int) -> int:
    """Try how long an answer takes, and set the threads: all cores, or all but one where it takes next to nothing.

    Of a model whose answers are as cheap as what the server does for them, many answers a second are asked, and the
    server needs a core as much as it does; threads that wait for each other would take that core away.

    Args:
        batchers: What works on each kind of request.
        facts: What callers may know of the model.
        cores: Cores that it may use.

    Returns:
        The threads.
    """
    torch.set_num_threads(1)
    seconds = min(_tried(batchers, facts) for _ in range(_TRIES))  # the first takes longer than any later one
    n = max(1, cores - 1) if seconds < _CHEAP else cores
    torch.set_num_threads(n)
    return n


def _tried(batchers: Mapping[str, Batcher], facts: Mapping[str, Any]) -> float:
    kind = next(each for each in ("write", "predict", "embed") if each in batchers)
    batchers[kind].add({"id": 0, "kind": kind, **_asked(kind, facts)})
    steps = []
    while batchers[kind].busy:
        began = time.perf_counter()
        batchers[kind].step()
        steps.append(time.perf_counter() - began)
    return steps[-1] if kind == "write" else sum(steps)


def _asked(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "write":
        decode = {"max_new_tokens": 2, "temperature": 0.0}
        asked = {"prompts": ["好"], "decode": decode, "n": 1, "max_tokens": None}
        return {**asked, "stream": False, "echo": False, "logprobs": None}
    if facts["image_size"] is None:
        return {"inputs": ["好" * _TEXT]}
    file = io.BytesIO()
    _, height, width = facts["image_size"]
    Image.new("RGB", (width, height)).save(file, "PNG")
    return {"inputs": [base64.b64encode(file.getvalue()).decode()]}
