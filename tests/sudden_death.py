"""A command in a process that is killed at a chosen moment: no clock decides which."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from pathlib import Path
from typing import Any

from small import danlu_in_child

__all__ = ["danlu_until_killed"]


def danlu_until_killed(words: list[str], log: Path, moment: tuple[str, str, int] | None) -> None:
    """Run a command in a process that was made for it; what it prints goes to the end of a file.

    Args:
        words: The command.
        log: The file.
        moment: ``before`` or ``after``, which method (``module:Class.method``), and at which call of it, from 1 on, the
            process sends itself SIGKILL; None lets it end.
    """
    if moment is not None:
        when, place, at = moment
        module, _, path = place.partition(":")
        owner, _, name = path.partition(".")
        known = getattr(importlib.import_module(module), owner)
        setattr(known, name, _dying(getattr(known, name), when, at))
    danlu_in_child(words, log)


def _dying(method: Any, when: str, at: int) -> Any:
    calls = itertools.count(1)

    @functools.wraps(method)
    def dying(*args: Any, **named: Any) -> Any:
        now = next(calls) == at
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = method(*args, **named)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return dying
