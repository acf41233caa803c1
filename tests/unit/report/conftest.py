"""Whole runs of every task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from made_runs import Run
from made_tasks import RUNS


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A factory of whole runs, each in a workspace of its own; the same wishes give the same run."""
    made: dict[str, Run] = {}

    def run_of(task: str = "text-classification", **wanted: Any) -> Run:
        key = repr((task, sorted(wanted.items())))
        if key not in made:
            made[key] = RUNS[task](tmp_path_factory.mktemp("run"), **wanted)
        return made[key]

    return run_of
