"""How the answers to each task are judged: by which metric, and which way is up.

Another package judges a task of its own through the entry-point group ``danlu.tasks``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.table import Table
from danlu.evaluate.config import EvaluateConfig

__all__ = ["TASKS", "Task"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """How predictions of one task are evaluated and compared.

    Attributes:
        primary: The metric that decides whether one model is better than another.
        higher_is_better: Whether more of it is better.
        evaluate: From a predictions file to the facts of an evaluation.
        compare: From two predictions files, A's and B's, and their names to the facts of a comparison; the primary
            metric's have ``difference``, ``low``, ``high`` and ``p_permutation``.
    """

    primary: str
    higher_is_better: bool
    evaluate: Callable[[Path, EvaluateConfig, np.random.Generator], dict[str, Any]]
    compare: Callable[[Path, Path, tuple[str, str], EvaluateConfig, np.random.Generator], dict[str, Any]]

    def verdict(self, difference: float, p: float, alpha: float) -> str:
        """What a difference A - B of the primary metric says of A: ``better``, ``worse``, ``no difference shown``."""
        if p >= alpha:
            return "no difference shown"
        return "better" if (difference > 0) == self.higher_is_better else "worse"


TASKS = Table(
    "task to be judged",
    "danlu.tasks",
    {
        "text-classification": "danlu.evaluate.comparison:CLASSIFICATION",
        "image-classification": "danlu.evaluate.comparison:CLASSIFICATION",
        "language-modelling": "danlu.evaluate.language:LANGUAGE_MODELLING",
        "translation": "danlu.evaluate.translation:TRANSLATION",
    },
)
"""Task -> :class:`Task`."""
