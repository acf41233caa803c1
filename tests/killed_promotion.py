"""A promotion in a process that is killed at a chosen line, or in the middle of a chosen write; and two at once."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from danlu.cli import main
from danlu.core.ledger import Ledger
from danlu.core.workspace import Workspace
from danlu.promoting import promote
from made_trial import NAME

__all__ = ["MIDDLE", "WATCHED", "promoted_beside", "promoted_until"]

WATCHED = {
    *("promote", "_decide", "_test", "_trial", "_held_back", "_go_back", "_stopped", "_try", "_void"),
    *("set_alias", "unchanged", "start", "alone", "end", "not_yet", "append", "fsync_folder"),
}
"""The functions of the modules below whose every line is a moment."""
_MODULES = ("danlu/promoting.py", "danlu/core/ledger.py", "danlu/core/experiments.py", "danlu/core/chain.py")
_MODULES += ("danlu/core/files.py",)
MIDDLE = {"a byte": lambda _: 1, "half": lambda n: n // 2, "all but the end": lambda n: n - 1, "all": lambda n: n}
"""How many bytes of a line are written before the process dies."""


def promoted_until(root: Path, words: list[str], log: Path, line: int | None, write: tuple[int, str] | None) -> None:
    """Promote, until the line of this number is to be run, or in the middle of the write of this number.

    Args:
        root: The workspace.
        words: Values of the promotion.
        log: Where the line at which it ends is told; or, where it lives, how many there were.
        line: From 1 on; None lets it live.
        write: Which line of a chain is being written, from 1 on, and how much of it there is (``MIDDLE``).
    """
    if write is not None:
        _tear(*write)
    moments = itertools.count(1)

    def moment(frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and (now := next(moments)) == line:
            log.write_text(f"{now}: {frame.f_code.co_name}, line {frame.f_lineno}")
            os.kill(os.getpid(), signal.SIGKILL)
        return moment

    def called(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        watched = event == "call" and code.co_name in WATCHED and code.co_filename.endswith(_MODULES)
        return moment if watched else None

    sys.settrace(called)
    promote(Workspace(root), NAME, words)
    sys.settrace(None)
    log.write_text(str(next(moments) - 1))


def promoted_beside(root: Path, words: list[str], log: Path, barrier: Any, last_moment: bool) -> None:
    """The command, begun together with another one, or come to its last step together with it."""
    if last_moment:
        real = Ledger.set_alias

        def together(*args: Any, **named: Any) -> Any:
            with contextlib.suppress(Exception):
                barrier.wait(30)
            return real(*args, **named)

        Ledger.set_alias = together  # type: ignore[method-assign]  # in this process alone
    with log.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        if not last_moment:
            barrier.wait(30)
        main(["promote", NAME, *words, "-w", str(root)])


def _tear(at: int, part: str) -> None:
    """Let the process die while it writes."""
    real, opened = Path.open, itertools.count(1)

    def torn(path: Path, mode: str = "r", *args: Any, **named: Any) -> Any:
        file = real(path, mode, *args, **named)
        return _Torn(file, part) if mode == "a+b" and next(opened) == at else file

    Path.open = torn  # type: ignore[method-assign, assignment]  # in this process alone


class _Torn:
    def __init__(self, file: Any, part: str) -> None:
        self._file, self._part = file, part

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: bytes) -> None:
        """Some of it, and no more."""
        os.write(self._file.fileno(), content[: MIDDLE[self._part](len(content))])
        os.kill(os.getpid(), signal.SIGKILL)
