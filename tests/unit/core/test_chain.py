"""Chained files: append-only, and a run's says where it ends. The ledger's tests try more ways of tampering."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from danlu.core.chain import Chain, RunChain
from danlu.core.errors import CorruptError
from danlu.core.files import digest_of

BEGUN = {"event": "begun", "step": 0, "weights": "w", "order_root": "o", "n_steps": 8, "commitments": {"init": "c"}}
CHANGED = {"event": "changed", "step": 4, "order_root": "p", "n_steps": 12}


def checkpoint(step: int) -> dict[str, Any]:
    facts = {"files": {"model.safetensors": "f"}, "loss": 0.1 + 0.2, "learning_rate": 1e-3, "valid": {"score": 1.0}}
    return {"event": "checkpoint", "step": step, **facts, "metrics": "m"}


ENDED = {"event": "ended", "step": 8, "kept": 4, "weights": "v"}
WHOLE = (BEGUN, checkpoint(4), checkpoint(8), ENDED)


def written(folder: Path, *facts: dict[str, Any]) -> Path:
    path = folder / "chain.jsonl"
    path.unlink(missing_ok=True)
    for each in facts:
        Chain(path).append(each)
    return path


def test_the_chain_is_what_the_docstring_says(tmp_path: Path) -> None:
    path = written(tmp_path, *WHOLE)
    before = "0" * 64
    for number, line in enumerate(path.read_text().splitlines()):
        entry = json.loads(line)
        stored = entry.pop("hash")
        assert entry == {"seq": number, **WHOLE[number], "prev": before}
        assert stored == digest_of(entry)
        before = stored
    found = RunChain.read(path)
    assert found.head == before
    assert found.start["commitments"] == {"init": "c"}
    assert [entry["step"] for entry in found.checkpoints] == [4, 8]
    assert found.end["kept"] == 4
    assert found.planned is found.start


def test_hashes_never_drift(tmp_path: Path) -> None:
    head = RunChain.read(written(tmp_path, *WHOLE)).head
    assert head == "f6c4e05fcaef7859f15f3e8d9787930994a12fe09e29e703c516bff448f0a4bf"


def test_a_run_that_went_on_with_another_recipe(tmp_path: Path) -> None:
    for at in (4, 6, 8):  # also where a checkpoint was saved, and not evaluated yet
        found = RunChain.read(written(tmp_path, BEGUN, checkpoint(4), {**CHANGED, "step": at}, checkpoint(8), ENDED))
        assert found.planned["order_root"] == "p"
        assert [entry["step"] for entry in found.checkpoints] == [4, 8]


def test_a_line_that_a_crash_cut_short_is_dropped_by_who_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, BEGUN, checkpoint(4))
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 2, len(whole), 37):
        path.write_bytes(whole[:cut])
        assert len(Chain(path).entries(growing=True)) == 1
        with pytest.raises(CorruptError, match="line 2 was cut short"):
            Chain(path).entries()
        Chain(path).append(checkpoint(4))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("field", ["step", "event", "seq", "prev", "hash"])
def test_a_changed_line_is_named(tmp_path: Path, number: int, field: str) -> None:
    path = written(tmp_path, *WHOLE)
    lines = path.read_text().splitlines(keepends=True)
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), field: "x"}) + "\n"
    path.write_text("".join(lines))
    with pytest.raises(
        CorruptError, match=f"the chain of the training run is broken: line {number} was changed"
    ) as found:
        RunChain.read(path)
    assert found.value.where == f"{path}:{number}"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ([1, 2, 3], "line 1 does not follow"),
        ([0, 2, 3], "line 2 does not follow"),
        ([0, 2, 1, 3], "line 2 does not follow"),
        ([0, 1, 1, 2, 3], "line 3 does not follow"),
        ([0, 1, 2], "line 4 is missing: the chain stops before the end"),
        ([0], "line 2 is missing"),
        ([], "line 1 is missing"),
    ],
)
def test_lines_removed_swapped_repeated_or_cut_off_are_named(tmp_path: Path, order: list[int], said: str) -> None:
    path = written(tmp_path, *WHOLE)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(CorruptError, match=said):
        RunChain.read(path)


def test_the_last_line_cut_anywhere_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, *WHOLE)
    whole = path.read_bytes()
    for cut in range(whole[:-1].rindex(b"\n") + 2, len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(CorruptError, match="line 4 was cut short"):
            RunChain.read(path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ([checkpoint(4), ENDED], "line 1 is not the beginning"),
        ([BEGUN, BEGUN, checkpoint(8), ENDED], "line 2 begins the run again"),
        ([BEGUN, checkpoint(8), ENDED, checkpoint(9)], "line 4 comes after the end"),
        ([BEGUN, checkpoint(4), checkpoint(4), ENDED], "line 3 goes back"),
        ([BEGUN, checkpoint(4), checkpoint(2), ENDED], "line 3 goes back"),
        ([BEGUN, checkpoint(4), CHANGED, checkpoint(4), ENDED], "line 4 goes back"),
        ([BEGUN, checkpoint(0), checkpoint(8), ENDED], "line 2 goes back"),
        ([BEGUN, ENDED], "line 2 ends the run at another step than that of its last checkpoint"),
        ([BEGUN, checkpoint(4), ENDED], "line 3 ends the run at another step"),
        ([BEGUN, {**checkpoint(8), "step": "8"}, ENDED], "line 2 goes back"),
        ([BEGUN, {"event": "checkpoint", "step": 8}, ENDED], "line 2 is not an entry of a training run"),
        ([BEGUN, {"event": "rested", "step": 8}, ENDED], "line 2 is not an entry of a training run"),
        ([{"what": "something else"}], "line 1 is not an entry of a training run"),
    ],
)
def test_a_chain_that_tells_of_no_run_is_refused_though_its_hashes_fit(
    tmp_path: Path, facts: list[dict[str, Any]], said: str
) -> None:
    path = written(tmp_path, *facts)
    assert len(Chain(path).entries()) == len(facts)
    with pytest.raises(CorruptError, match=said):
        RunChain.read(path)


def test_no_chain_at_all(tmp_path: Path) -> None:
    assert Chain(tmp_path / "chain.jsonl").entries() == []
    with pytest.raises(CorruptError, match="is missing"):
        RunChain.read(tmp_path / "chain.jsonl")
