"""The table of model families. Another package adds one through the entry-point group ``danlu.families``."""

from __future__ import annotations

from danlu.core.table import Table

__all__ = ["FAMILIES"]

FAMILIES = Table(
    "model family",
    "danlu.families",
    {
        "bert": "danlu.model.bert:Bert",
        "gru": "danlu.model.gru:Gru",
    },
)
