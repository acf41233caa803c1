"""What every verb shares: three options, progress, one answer, errors with advice, exit codes."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from danlu.core.errors import DanluError

if TYPE_CHECKING:
    from danlu.core.progress import Progress
    from danlu.core.workspace import Workspace

__all__ = ["Answer", "Call", "app", "verb"]

app = typer.Typer(
    name="danlu",
    help="From raw data to a served, monitored model whose origin can be proved.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130


@dataclass(frozen=True)
class Call:
    """What a verb is called with besides its own arguments."""

    workspace: Workspace
    progress: Progress


@dataclass(frozen=True)
class Answer:
    """What a verb answers.

    Attributes:
        facts: For programs: the JSON object of ``--json``.
        text: For people: text, or anything that rich can print.
        exit_code: 0, or 3 where a gate refused.
    """

    facts: dict[str, Any]
    text: Any
    exit_code: int = 0


def verb(function: Callable[..., Answer]) -> Callable[..., None]:
    """Make a verb of a function that takes a :class:`Call` and its own arguments, and returns an :class:`Answer`."""

    @functools.wraps(function)
    def command(workspace: Path | None, as_json: bool, debug: bool, **arguments: Any) -> None:
        from danlu.cli import console
        from danlu.core.workspace import Workspace

        try:
            with console.listener() as progress:
                answer = function(Call(Workspace(workspace), progress), **arguments)
        except DanluError as error:
            if debug:
                raise
            console.print_error(error, as_json=as_json)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
            raise typer.Exit(_INTERRUPTED) from None
        if as_json:
            console.print_json(answer.facts)
        else:
            console.print_text(answer.text)
        raise typer.Exit(answer.exit_code)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = [
        _option("workspace", Path | None, None, "-w", "--workspace", help="Where everything is kept.", metavar="DIR"),
        _option("as_json", bool, False, "--json", help="One JSON object as the last line of stdout."),
        _option("debug", bool, False, "--debug", help="Show the traceback of an error."),
    ]
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]  # typer reads it from here
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared]}
    app.command(function.__name__.rstrip("_"))(command)
    return command


def _option(name: str, kind: Any, default: Any, *flags: str, **words: str) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(*flags, **words)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
