"""The lineage benchmark's tables count what is right as right and nothing else."""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[3] / "bench" / "lineage"))
plan: Any = importlib.import_module("plan")
tables: Any = importlib.import_module("tables")

ITEMS = {item.name: item for item in plan.items_of(plan.SCALES["full"])}


def row(suspect: str, types: tuple[str, ...] = (), layer_map: tuple[int, ...] = ()) -> dict[str, str]:
    known = {"suspect": suspect, "reference": "s00", "relation": "kin", "verdict": "PROVEN"}
    told = {"types": json.dumps(types), "layer_map": json.dumps(layer_map) if layer_map else ""}
    return defaultdict(str, known | told)


def blocks(suspect: str, layer_map: tuple[int, ...]) -> tuple[int, int]:
    figures = {each["what"]: each for each in tables.fractions([row(suspect, (), layer_map)], ITEMS)}
    found = figures["block of the reference right"]
    return found["k"], found["n"]


@pytest.mark.parametrize(
    ("suspect", "right"),
    [
        ("s00.copy", (0, 1, 2, 3)),
        ("s00.depth-prune", (0, 1, 3)),
        ("s00.depth-upscale", (0, 1, 2, 1, 2, 3)),
        ("s00.upcycle", (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)),
    ],
)
def test_the_blocks_of_the_reference(suspect: str, right: tuple[int, ...]) -> None:
    assert blocks(suspect, right) == (len(right), len(right))
    assert blocks(suspect, (*right[:-1], right[-1] - 1)) == (len(right) - 1, len(right))


def test_types_count_where_weights_were_changed() -> None:
    rows = [
        row("s00.fine-tuned", ("trained further",)),
        row("s00.continued-50-same", ("noise added",)),
        row("s00.copy.noise-0.1", ("noise added",)),
        row("s00.fine-tuned.noise-0.5", ("noise added", "trained further")),
        row("s00.copy.t1", ("trained further",)),
    ]
    found = {each["name"]: each for each in tables.kinds(rows, ITEMS) if each["what"] == "types"}
    told = {name: tuple(each[key] for key in ("due", "named", "right")) for name, each in found.items()}
    assert told == {"trained further": (3, 2, 2), "noise added": (2, 3, 2)}
