"""Verbs that train: alone, in several processes that they start, or as one of those."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from danlu.cli.verb import Answer
from danlu.core.errors import DanluError

if TYPE_CHECKING:
    from danlu.pipeline import Job

__all__ = ["in_crew"]

_MOMENT = 30
"""Tenths of a second."""


def in_crew(job: Job, answer: Callable[[Job], Answer]) -> Answer:
    """Answer, training in as many processes as the recipe asks for, or as torchrun has started.

    The first process answers; the others train along and say nothing.

    Args:
        job: What is to be done.
        answer: Does it.

    Raises:
        DanluError: A process died.
        typer.Exit: Another process has answered.
    """
    train = job.recipe.train
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started < 2 and train.processes < 2:
        return answer(job)
    from danlu.pipeline import attend
    from danlu.train.launch import ENDED, launch
    from danlu.train.world import World, alone_explained

    if started < 2:
        raise typer.Exit(launch(sys.argv[1:], train.processes, train.restarts))
    ended = Path(os.environ[ENDED]) if ENDED in os.environ else None
    if ended is not None and ended.exists():  # started again although the first one knew why it ended
        raise typer.Exit(1)
    with World.joined() as world, alone_explained():
        if not world.leads:
            try:
                attend()
            except DanluError:
                if _ends(ended):  # it has met the same error, and told it
                    raise typer.Exit(1) from None
                raise
            raise typer.Exit
        try:
            answered = answer(job)
        except DanluError as error:
            if ended is not None:
                ended.write_text(str(error.exit_code))
            raise
        world.message(None)
    if ended is not None:
        ended.write_text(str(answered.exit_code))
    return Answer(answered.facts, answered.text)


def _ends(ended: Path | None) -> bool:
    """Whether the first process says, within a moment, that it has come to its end."""
    for _ in range(_MOMENT):
        if ended is not None and ended.exists():
            return True
        time.sleep(0.1)
    return False
