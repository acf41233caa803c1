"""Made-up traffic and feedback: the events that a server would write, and a champion that answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.events import EventLog
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.model.base import Task
from danlu.recording import record
from danlu.train.baseline import train_baseline
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from small import FAMILY, SCORE, made_up, make_dataset, spec_of

__all__ = ["asked", "champion", "feedback_of", "fresh", "tell"]


def fresh(n: int, seed: int = 7) -> list[tuple[str, str]]:
    """Texts with their labels that no dataset of :func:`small.make_dataset` holds."""
    return made_up(n, seed=seed)


def champion(
    folder: Path,
    task: Task = "text-classification",
    rows: list[tuple[str, str]] | None = None,
    simple: str | None = None,
    **sections: Any,
) -> tuple[Workspace, Artifact]:
    """A workspace in which ``tiny@champion`` means a tiny model, or a simple one, trained on made-up records."""
    workspace, dataset = make_dataset(folder, rows, task)
    if simple is not None:
        model = train_baseline(workspace, "tiny", dataset, simple, SCORE, Silent())
    else:
        spec = spec_of(folder, FAMILY[task], task=task, **sections)
        model = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())
    workspace.ledger.set_alias("tiny", "champion", record(workspace, model, Silent()), reason="a test")
    return workspace, model


def asked(workspace: Workspace, digest: str, answers: Iterable[tuple[str, dict[str, Any]]], **facts: Any) -> list[str]:
    """Requests of one input each, written as the server does; their ids."""
    log, ids = EventLog(workspace.events, "serve"), []
    for number, (content, answer) in enumerate(answers):
        ids.append(f"request-{digest[:4]}-{number}-{len(content)}")
        log.write(
            "request",
            id=ids[-1],
            name="tiny",
            route="/predict",
            status=200,
            seconds=0.01,
            model="tiny",
            digest=digest,
            inputs=[content],
            answers=[answer],
            **facts,
        )
    return ids


_NUMBERS = itertools.count()


def feedback_of(request: str | None, source: str, **said: Any) -> dict[str, Any]:
    """A feedback event: ``source`` is ``kind:id``, ``said`` what it says and, for imports, its ``input``."""
    kind, _, by = source.partition(":")
    values = {"id": f"feedback-{next(_NUMBERS)}", "name": "tiny", "request": request, "index": 0}
    return {**values, "source": {"kind": kind, "id": by}, **said}


def tell(workspace: Workspace, records: Iterable[dict[str, Any]]) -> None:
    """Write feedback as the server does."""
    log = EventLog(workspace.events, "serve")
    for each in records:
        log.write("feedback", **each)
