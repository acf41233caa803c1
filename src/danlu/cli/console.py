"""What the command line says and how: progress, results, errors.

Everything for people goes to stderr; stdout carries results alone, so that ``--json`` output can be piped.
"""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from danlu.core.errors import DanluError

__all__ = ["LinePrinter", "Panel", "listener", "print_error", "print_json", "print_text"]

_PIPE_WIDTH = 160
"""Columns of a table where there is no terminal to fit it to."""


class Panel:
    """A live line for the stage under way, and a finished line for each before it. For a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, facts="", visible=False)
        self._live = Live(self._progress, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Panel:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def stage(self, title: str) -> None:
        """A stage begins: its title stays on the screen."""
        self._progress.reset(self._task, total=None, description="", facts="", visible=False)
        self._console.print(title, style="bold", markup=False, highlight=False)

    def update(self, done: int, total: int | None, facts: str = "") -> None:
        """So much of it is done."""
        self._progress.update(self._task, completed=done, total=total, facts=facts, visible=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", markup=False, highlight=False)


class LinePrinter:
    """One line a stage, one a note, and one every few seconds of progress. For logs and pipes."""

    _EVERY_SECONDS = 5.0

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __enter__(self) -> LinePrinter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def stage(self, title: str) -> None:
        """A stage begins."""
        self._told = time.monotonic()
        print(title, file=sys.stderr, flush=True)

    def update(self, done: int, total: int | None, facts: str = "") -> None:
        """So much of it is done."""
        now = time.monotonic()
        if now - self._told >= self._EVERY_SECONDS:
            self._told = now
            share = f"{done:,}/{total:,} ({done / total:.0%})" if total else f"{done:,}"
            print(f"  {share}  {facts}".rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        print(f"  {text}", file=sys.stderr, flush=True)


def listener() -> Panel | LinePrinter:
    """The right progress display for where stderr goes."""
    console = Console(stderr=True, emoji=False)
    return Panel(console) if console.is_terminal else LinePrinter()


def print_text(text: Any) -> None:
    """Print an answer for people to stdout."""
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH)
    console.print(text, markup=False)


def print_json(value: Any) -> None:
    """One JSON object as the last line of stdout."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def print_error(error: DanluError, *, as_json: bool) -> None:
    """Say what went wrong, where, and what to do."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    if as_json:
        print_json({"error": error.what, "where": error.where, "advice": error.advice, "exit_code": error.exit_code})
