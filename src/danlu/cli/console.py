"""What the command line says and how: progress, results, errors.

Everything for people goes to stderr; stdout carries results alone, so that ``--json`` output can be piped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from danlu.cli.gauges import Pace, Sparkline, clock, written
from danlu.core.errors import DanluError

__all__ = ["LinePrinter", "Panel", "listener", "print_error", "print_json", "print_text"]

_PIPE_WIDTH = 160
"""Columns of a table where there is no terminal to fit it to."""
_CURVE = "loss"
"""The fact whose curve is drawn."""
_BETWEEN = " · "
"""What stands between two facts."""


class Panel:
    """A live bar for the stage under way and what there is to say of it; a line for each before it. For a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn(" {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", style="cyan", markup=False),
            TextColumn("{task.fields[what]}", style="dim", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, visible=False, left="", what="")
        self._pace, self._curve = Pace(), Sparkline()
        self._live = Live(self._bar, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> Panel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def stage(self, title: str) -> None:
        """A stage begins: its title stays on the screen."""
        self._live.start()  # not before: a command that only starts others leaves the screen to them
        self._pace, self._curve = Pace(), Sparkline()
        self._bar.reset(self._task, total=None, description="", visible=False, left="", what="")
        self._live.update(self._bar)
        self._console.print(title, style="bold", markup=False, highlight=False)

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """So much of it is done."""
        left = self._pace.left(time.monotonic(), done, total)
        shown = "" if left is None else f"{clock(left)} left"
        self._bar.update(self._task, completed=done, total=total, visible=True, left=shown, what=what)
        if facts:
            if _CURVE in facts:
                self._curve.add(facts[_CURVE])
            can_draw = self._console.encoding.startswith("utf")
            self._live.update(Group(self._bar, _Facts(facts, str(self._curve) if can_draw else "")))

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"  {text}", markup=False, highlight=False)


@dataclass(frozen=True)
class _Facts:
    """Facts in as few lines as the terminal is wide enough for, one with a curve on a line of its own."""

    facts: Mapping[str, float]
    curve: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for name, value in self.facts.items():
            fact = Text.assemble((f"{name} ", "dim"), written(value))
            alone = name == _CURVE and self.curve
            if line and (alone or line.cell_len + len(_BETWEEN) + fact.cell_len > options.max_width):
                yield line
                line = Text()
            line.append_text(Text.assemble((_BETWEEN if line else "  ", "dim"), fact))
            if alone:
                line.append(f"  {self.curve}", "dim")
                line.truncate(options.max_width)
                yield line
                line = Text()
        yield line


class LinePrinter:
    """One line a stage, one a note, and one every few seconds of progress. For logs and pipes."""

    _EVERY_SECONDS = 5.0

    def __init__(self) -> None:
        self._told = time.monotonic()
        self._pace = Pace()

    def __enter__(self) -> LinePrinter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def stage(self, title: str) -> None:
        """A stage begins."""
        self._told = time.monotonic()
        self._pace = Pace()
        print(title, file=sys.stderr, flush=True)

    def update(self, done: int, total: int | None, what: str = "", facts: Mapping[str, float] | None = None) -> None:
        """So much of it is done."""
        now = time.monotonic()
        left = self._pace.left(now, done, total)
        if now - self._told < self._EVERY_SECONDS:
            return
        self._told = now
        share = f"{done:,}/{total:,} ({done / total:.0%})" if total else f"{done:,}"
        parts = [share, what, "" if left is None else f"{clock(left)} left"]
        parts.append(_BETWEEN.join(f"{name} {written(value)}" for name, value in (facts or {}).items()))
        print("  " + "  ".join(part for part in parts if part), file=sys.stderr, flush=True)

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
