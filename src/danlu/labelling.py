"""Feedback from the command line: what there is, taking it in from files, writing it out; no model is read for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from danlu.core.artifact import Artifact
from danlu.core.config import Config
from danlu.core.errors import DataError, UsageError
from danlu.core.events import EventLog
from danlu.core.index import Index
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.improve.exchange import (
    Format,
    as_record,
    label_config,
    read_feedback,
    tasks_of,
    write_feedback,
    write_tasks,
)
from danlu.improve.feedback import Tally, complete, tally
from danlu.improve.selection import By

__all__ = [
    "EVERY",
    "Exported",
    "FeedbackConfig",
    "Imported",
    "bring_in",
    "champion_of",
    "current_index",
    "summary",
    "write_out",
]

EVERY = 1_000_000
"""More questions than there are."""


class FeedbackConfig(Config):
    """What is done with feedback; nothing: it is summed up."""

    import_: Path | None = Field(default=None, alias="import")
    """A file to be taken in: .jsonl, .csv, or .json (an export of Label Studio)."""
    export: Path | None = None
    """A file to write feedback to."""
    format: Format = "jsonl"
    """What is written: jsonl, csv, or label-studio (tasks: open questions, and what users said, to be checked)."""
    ask: int | None = Field(default=None, ge=1)
    """How many answered requests to have labelled."""
    by: By = "margin"
    """What makes one worth a label: margin, entropy or core-set; or random, which draws evenly, to measure by."""
    seed: int = 0
    """Of what is drawn at random: the same seed and requests give the same draw."""


@dataclass(frozen=True)
class Imported:
    """What came of a file: records that were new, and those that were there already."""

    n_new: int
    n_known: int


@dataclass(frozen=True)
class Exported:
    """What was written: records or tasks, cells kept from being formulas, and the interface for the tasks."""

    n: int
    n_neutralised: int = 0
    interface: str | None = None


def champion_of(workspace: Workspace, name: str) -> Artifact:
    """The model that a name means now.

    Raises:
        UsageError: There is none, or a name with an alias was given.
    """
    if "@" in name or "/" in name:
        advice = f"give the name alone: {name.partition('@')[0]}"
        raise UsageError(f"feedback belongs to a name, not to {name!r}", where="command line", advice=advice)
    return workspace.target(name, "model")


def summary(workspace: Workspace, name: str) -> tuple[Tally, int]:
    """What the feedback to a name comes to, and how many questions are open."""
    with current_index(workspace) as index:
        return tally(index.feedback(name)), index.n_open_questions(name)


def bring_in(workspace: Workspace, name: str, file: Path, progress: Progress) -> Imported:
    """Take a file of feedback in: all of it, or nothing.

    Args:
        workspace: Where it goes.
        name: The model that it is about.
        file: See :func:`danlu.improve.exchange.read_feedback`.
        progress: Told how many records are in.

    Raises:
        UsageError: No such file or name.
        DataError: A line is no record, or its id was used for something else; its place is told.
    """
    progress.stage(f"import {file}")
    records = read_feedback(file, name)
    new = []
    with current_index(workspace) as index:
        there = {str(each["id"]): each for each in index.events("feedback", name=name)}
        asked: dict[str, dict[str, Any] | None] = {}
        for given in records:
            if given.request is not None and given.request not in asked:
                asked[given.request] = index.request(given.request)
            about = asked.get(given.request or "")
            whole = complete(given, about)
            if (before := there.get(given.id)) is None:
                new.append(whole)
            elif not given.id.startswith("import-") and whole.plain() != complete(as_record(before), about).plain():
                what = f"the id {given.id!r} was used before, for something else"
                raise DataError(what, where=str(file), advice="give the record another id; nothing was taken in")
    log = EventLog(workspace.events, "feedback")
    for number, whole in enumerate(new, start=1):
        log.write("feedback", **whole.plain())
        progress.update(number, len(new), "records")
    return Imported(len(new), len(records) - len(new))


def write_out(workspace: Workspace, name: str, file: Path, kind: Format) -> Exported:
    """Write feedback to a file; see :mod:`danlu.improve.exchange`.

    Raises:
        UsageError: For tasks of Label Studio the name has no model.
        DanluError: The file cannot be written.
    """
    with current_index(workspace) as index:
        feedback = list(index.feedback(name))
        questions = index.open_questions(name, EVERY)
    if kind != "label-studio":
        return Exported(len(feedback), write_feedback(file, feedback, kind))
    facts = workspace.target(name, "model").json("model.json")
    settled = {(each["request"], each["index"]) for each in feedback if each["source"]["kind"] == "labeller"}
    unchecked = [
        each
        for each in feedback
        if each["source"]["kind"] == "user" and (each["request"], each["index"]) not in settled
    ]
    tasks = tasks_of([*questions, *unchecked], facts["task"])
    write_tasks(file, tasks)
    return Exported(len(tasks), interface=label_config(facts["task"], facts["classes"]))


@contextmanager
def current_index(workspace: Workspace) -> Iterator[Index]:
    """The index, with all that has happened until now."""
    with Index.open(workspace) as index:
        index.refresh()
        yield index
