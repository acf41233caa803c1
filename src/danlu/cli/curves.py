"""What ``danlu log`` says of trainings: the runs that have made no model yet, and curves that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from danlu.cli.tables import make_table
from danlu.cli.verb import Answer
from danlu.core.workspace import Workspace
from danlu.report.histories import History, unfinished

__all__ = ["overlaid", "running"]

_NONE = "–"


def running(workspace: Workspace) -> tuple[list[dict[str, Any]], Table]:
    """The runs that are under way or were interrupted: for programs, and for people."""
    listed = []
    table = make_table("run", "state", "step", "loss", "validation", "when")
    for run in unfinished(workspace):
        facts = _facts(run)
        valid = " · ".join(f"{name} {value:.4f}" for name, value in facts["valid"].items())
        table.add_row(run.path.name, run.state, _steps(run), _number(facts["loss"]), valid or _NONE, run.changed)
        listed.append(facts)
    return listed, table


def overlaid(workspace: Workspace, targets: Sequence[str]) -> Answer:
    """The training curves of models and runs over each other: a page, and what it says in a table.

    Args:
        workspace: Where they are.
        targets: Each as of :func:`danlu.report.histories.find`.

    Raises:
        UsageError: Nothing is called that, or they cannot be compared.
        DataError: There is no curve to show.
    """
    from danlu.report.stage import write_curves

    together, page = write_curves(workspace, targets)
    curve = together.curve
    best = f"{curve.best.en} {curve.name.en}"
    table = make_table(
        "name", "state", "step", "parameters", "seconds", "tokens/s", "last loss", best, "at step", "when"
    )
    for each in together.histories:
        seconds, n_tokens = each.cost or (None, 0)
        found = curve.write(curve.of(each.best[1])) if each.best else _NONE
        table.add_row(
            each.label,
            each.state,
            _steps(each),
            _count(each.size.get("n_parameters")),
            _NONE if seconds is None else f"{seconds:,.1f}",
            _count(n_tokens / seconds if seconds else None),
            _number(each.losses[-1][1] if each.losses else None),
            found,
            f"{each.best[0]:,}" if each.best else _NONE,
            each.changed,
        )
    differences = together.differences()
    differing = make_table("differs", *(each.label for each in together.histories))
    for key, values in differences.items():
        differing.add_row(key, *(_NONE if value is None else str(value) for value in values))
    cautions = [f"\n{caution.en.striptags()}" for caution in together.cautions()]
    differing_part: list[RenderableType] = ["", differing] if differences else []
    parts = [table, *differing_part, *cautions, f"\ncurves  {page}"]
    facts = {"page": str(page), "runs": [_facts(each) for each in together.histories], "differences": differences}
    return Answer(facts, Group(*parts))


def _facts(history: History) -> dict[str, Any]:
    """What is known of a training."""
    valid = [line["valid"] for line in history.lines if "valid" in line]
    seconds, n_tokens = history.cost or (None, None)
    return {
        "name": history.label,
        "path": str(history.path),
        "kind": history.kind,
        "task": history.task,
        "state": history.state,
        "step": history.step,
        "n_steps": history.size.get("n_steps"),
        "n_parameters": history.size.get("n_parameters"),
        "seconds": seconds,
        "n_tokens": n_tokens,
        "loss": history.losses[-1][1] if history.losses else None,
        "valid": valid[-1] if valid else {},
        "best_step": history.best[0] if history.best else None,
        "best_score": history.best[1] if history.best else None,
        "changed": history.changed,
    }


def _steps(history: History) -> str:
    planned = history.size.get("n_steps")
    return f"{history.step:,}" if planned is None else f"{history.step:,} of {planned:,}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _count(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.0f}"
