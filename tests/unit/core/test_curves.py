from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from danlu.core.curves import lasting, read_lines
from danlu.core.errors import CorruptError


def test_lines_are_read_up_to_one_that_is_still_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(CorruptError) as error:
        read_lines(path)
    assert error.value.where == f"{path}:2"


def test_what_was_done_again_replaces_what_had_been_done() -> None:
    def lines(process: str, *steps: int) -> list[dict[str, Any]]:
        return [{"process": process, "step": step} for step in steps]

    first, second, third = lines("a", 0, 3, 6, 9), lines("b", 6, 7), lines("c", 5, 8, 8)
    assert lasting(first) == first
    assert lasting([*first, *second]) == [*first[:3], *second]
    assert lasting([*first, *second, *third]) == [*first[:2], *third]
