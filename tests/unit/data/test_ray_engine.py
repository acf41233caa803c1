"""The same dataset under Ray as here, whatever Ray does with the batches; and what happens where it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from danlu.core.artifact import Artifact, environment
from danlu.core.errors import DanluError, DataError, UsageError
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data import prepare, ray_cluster, ray_engine, stage
from danlu.data.engine import EngineName
from danlu.data.ray_engine import RayEngine, open_ray
from danlu.data.stage import DataConfig, build_dataset
from small import made_up, write_csv

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'danlu[ray]'")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings(r"ignore:::ray\b"),  # what Ray warns of in its own code
]

DIGITS = [pa.record_batch({"n": np.arange(first, first + 3)}) for first in range(0, 60, 3)]


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(ray_cluster, "_processors", lambda: 2)
        with open_ray(Silent()) as opened:
            yield opened


def numbers(batches: Iterator[pa.RecordBatch]) -> list[int]:
    return [n for batch in batches for n in batch.column("n").to_pylist()]


def write_texts(folder: Path) -> None:
    """Made-up reviews with what the stage has to find: bad ones, personal data, copies, near-copies, conflicts."""
    good = made_up(150, n_chars=(12, 30))
    bad = [("!!!", "good"), ("", "bad"), ("Ã©tÃ© Ã©tÃ©", "bad"), ("很好", ""), ("电话 13800138000，很慢", "bad")]
    copies = [*good[:9], *((text[:-1] + "呀", label) for text, label in good[9:18])]
    conflicts = [(text, "bad" if label == "good" else "good") for text, label in good[18:24]]
    write_csv(folder / "texts.csv", [*bad, *good, *copies, *conflicts, *bad])


def build(folder: Path, where: EngineName, name: str = "") -> Artifact:
    config = DataConfig(source="texts.csv", split={"valid": 0.2, "test": 0.2}, clean={"repair": True})
    return build_dataset(Workspace(folder / (name or where)), "tiny", config, folder, Silent(), where)


# What Ray returns, put in order


def tables(*parts: list[int]) -> list[pa.Table]:
    return [pa.table({"n": [10 * n for n in part], "_row": pa.array(part, pa.int64())}) for part in parts]


@pytest.mark.parametrize(
    "parts",
    [
        ([4, 5, 6], [7], [8, 9]),
        ([8, 9], [4, 5, 6], [7]),
        ([9], [8], [7], [6], [5], [4]),
        ([7, 8, 4, 5, 9], [6]),
        ([4, 5, 6, 7, 8, 9],),
    ],
)
def test_records_go_on_in_their_order_however_they_come(parts: tuple[list[int], ...]) -> None:
    batches = list(ray_engine._in_order(tables(*parts), range(4, 10)))
    assert numbers(iter(batches)) == [40, 50, 60, 70, 80, 90]
    assert {tuple(batch.schema.names) for batch in batches} == {("n",)}


@pytest.mark.parametrize("parts", [([4, 5],), ([4], [6]), ([5, 6],), ([4, 5, 6, 7],), ([4, 5, 6], [5])])
def test_records_that_are_lost_or_come_twice_are_noticed(parts: tuple[list[int], ...]) -> None:
    with pytest.raises(DanluError, match="did not return the records"):
        list(ray_engine._in_order(tables(*parts), range(4, 7)))


def test_windows_hold_so_many_batches_and_number_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [*DIGITS[:4], DIGITS[4].slice(0, 0), *DIGITS[4:7]]
    windows = list(ray_engine._windows(batches, 3))
    assert [[len(table) for table in window] for window in windows] == [[3, 3, 3], [3, 3, 3], [3]]
    assert [n for window in windows for table in window for n in table["_row"].to_pylist()] == list(range(21))
    monkeypatch.setattr(ray_engine, "_WINDOW_BYTES", 40)
    assert [len(window) for window in ray_engine._windows(batches, 3)] == [2, 2, 2, 1]
    with pytest.raises(DataError, match="'_row'"):
        list(ray_engine._windows([pa.record_batch({"_row": [1]})], 3))


def test_a_worker_with_other_versions_refuses() -> None:
    (batch,) = pa.table({"n": [1, 2], "_row": [0, 1]}).to_batches()
    given = pa.Table.from_batches([batch])
    same = ray_engine._apply(given, function=lambda batch: batch, versions=environment())
    assert same.to_pydict() == given.to_pydict()
    other = ray_engine._apply(given, function=lambda batch: batch, versions={**environment(), "pyarrow": "1.0"})
    with pytest.raises(DanluError, match=r"a worker has pyarrow .*, and this process 1\.0"):
        list(ray_engine._in_order([other], range(2)))


def test_pictures_are_refused(tmp_path: Path) -> None:
    config = DataConfig(source="pictures", columns={"image": "image", "label": "label"})
    with pytest.raises(UsageError, match="pictures are prepared by this process alone"):
        build_dataset(Workspace(tmp_path), "tiny", config, tmp_path, Silent(), "ray")


# Under Ray


@needs_ray
def test_order_does_not_depend_on_who_is_first(engine: RayEngine) -> None:
    def slow_at_first(batch: pa.RecordBatch) -> pa.RecordBatch:
        first = batch.column("n")[0].as_py()
        time.sleep(0.4 if first == 0 else 0)
        return pa.record_batch({"n": pa.array([n * n for n in batch.column("n").to_pylist()])})

    assert engine.workers == 2
    assert numbers(engine.map(slow_at_first, DIGITS)) == [n * n for n in range(60)]
    assert list(engine.map(slow_at_first, [])) == []


@needs_ray
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("batch_rows", [8192, 7, 61])
def test_the_dataset_is_the_same_to_the_byte(batch_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path)
    local = build(tmp_path, "local")
    monkeypatch.setattr(stage, "read_source", partial(stage.read_source, batch_rows=batch_rows))
    monkeypatch.setattr(ray_engine, "_BLOCKS_A_WORKER", 4)
    used: list[str] = []
    monkeypatch.setattr(RayEngine, "map", noting(RayEngine.map, used))
    under_ray = build(tmp_path, "ray")
    assert used == ["map", "map"]
    assert under_ray.manifest["files"] == local.manifest["files"]
    assert under_ray.digest == local.digest
    assert "ray" not in str(under_ray.manifest["config"])
    summary = local.json("summary.json")
    assert summary["dropped"].keys() >= {
        "exact_duplicate",
        "near_duplicate",
        "label_conflict",
        "no_text",
        "missing_value",
    }
    assert summary["pii"]["mobile"] == 2
    assert summary["repaired"] == 2
    assert summary["near_duplicates"]["n_pairs"] > 0


def noting(method: Callable[..., Iterator[pa.RecordBatch]], used: list[str]) -> Callable[..., Iterator[pa.RecordBatch]]:
    def noted(*arguments: object) -> Iterator[pa.RecordBatch]:
        used.append(method.__name__)
        return method(*arguments)

    return noted


@needs_ray
@pytest.mark.usefixtures("engine")
def test_what_a_worker_raises_is_told_here_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(_batch: pa.RecordBatch, **_config: object) -> pa.RecordBatch:
        raise DataError("this text is cursed", where="texts.csv:3", advice="burn it")

    def broken(_batch: pa.RecordBatch, **_config: object) -> pa.RecordBatch:
        raise ZeroDivisionError("by nothing")

    def forgetful(batch: pa.RecordBatch, **_config: object) -> pa.RecordBatch:
        return batch.slice(1)

    write_texts(tmp_path)
    monkeypatch.setattr(prepare, "clean_batch", unreadable)
    with pytest.raises(DataError, match="this text is cursed") as found:
        build(tmp_path, "ray")
    assert (found.value.where, found.value.advice) == ("texts.csv:3", "burn it")
    assert "in unreadable" in "".join(found.value.__notes__)

    monkeypatch.setattr(prepare, "clean_batch", broken)
    with pytest.raises(DanluError, match="a worker failed: ZeroDivisionError: by nothing") as wrong:
        build(tmp_path, "ray")
    assert wrong.value.where == "texts.csv:2 to texts.csv:185"
    assert "--engine ray" in str(wrong.value.advice)

    monkeypatch.setattr(prepare, "clean_batch", forgetful)
    with pytest.raises(DanluError, match="a worker failed: ArrowInvalid"):
        build(tmp_path, "ray")
    assert_nothing_was_made(tmp_path / "ray")


@needs_ray
def test_a_worker_that_dies_is_told_of(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(_batch: pa.RecordBatch) -> pa.RecordBatch:
        os._exit(1)

    monkeypatch.setattr(ray_engine, "RETRIES", 0)
    with pytest.raises(DanluError, match="Ray gave up: The worker died") as found:
        list(engine.map(dying, DIGITS))
    assert found.value.where == engine.where
    assert "memory" in str(found.value.advice)
    assert numbers(engine.map(lambda batch: batch, DIGITS)) == list(range(60)), "the engine works on"


@needs_ray
@pytest.mark.usefixtures("engine")
def test_a_ray_of_our_own_is_quiet_and_listens_to_this_machine_alone() -> None:
    import ray
    import ray.data

    assert not ray.data.DataContext.get_current().enable_progress_bars
    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    assert ray.cluster_resources()["CPU"] == 2
    around = Path(node["RayletSocketName"]).parents[3]
    assert around.name.startswith("danlu-")
    assert around.stat().st_mode & 0o077 == 0, "what it spills is for nobody else"
    with open_ray(Silent()):
        pass
    assert ray.is_initialized(), "one that was there before stays"


def assert_nothing_was_made(workspace: Path) -> None:
    assert [path.name for path in workspace.rglob("*") if path.is_file()] in ([], [".scratch.lock"])
