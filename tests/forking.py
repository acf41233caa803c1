"""Processes of their own that begin with the imports already done."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

__all__ = ["forking"]

_PRELOAD = [
    *("danlu.pipeline", "danlu.tuning", "danlu.improving", "danlu.promoting"),
    *("danlu.cli.answers", "danlu.cli.console", "danlu.cli.improving", "danlu.cli.promoting", "danlu.cli.verbs"),
    *("optuna", "sqlalchemy.dialects.sqlite.pysqlite", "torch.distributed.fsdp"),
    "torch._dynamo",  # what torch imports at the first step of an optimizer: three seconds a process
    *("small", "sudden_death", "killed_promotion"),
]
"""What any test wants: there is one server for all tests of a process, and whoever comes first starts it."""


def forking() -> ForkServerContext:
    """Where processes are forked off a server that has imported everything, within a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context
