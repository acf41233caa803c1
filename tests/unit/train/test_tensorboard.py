from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.core.curves import read_lines
from danlu.core.progress import Silent
from danlu.train import loop
from danlu.train.checkpoint import Run
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from danlu.train.tensorboard import EventFile, record
from small import SCORE, make_dataset, make_training, spec_of

STARTED = 1_700_000_000.0


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def take_part(folder: Path, name: str, resumed: int, killed: int) -> None:
    """What a process does that takes up a run at a checkpoint and is killed after a step, in the middle of a write."""
    metrics, timing = folder / "metrics.jsonl", folder / "timing.jsonl"
    kept = [line for line in read_lines(metrics) if line["step"] <= resumed]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))
    file = EventFile(folder)
    file.rewrite(folder, resumed)
    for step in range(resumed, killed + 1):
        if step > resumed:
            lines = [{"step": step, "loss": 1 / step, "gradient_norm": 0.5, "learning_rate": 1e-3 * step}]
            lines += [{"step": step, "valid": {"score": step / 100, "loss": 2 / step}}] if step % 4 == 0 else []
            for line in lines:
                append(metrics, line)
                file.add(line)
        cost = {"seconds": 2.0 * (step - resumed), "n_tokens": 100 * (step - resumed), "memory_bytes": step}
        line = {"process": name, "step": step, "time": STARTED + step, **cost}
        append(timing, line)
        file.add(line)
    with newest(folder).open("ab") as written:
        written.write(record(b"cut off in the middle")[:-6])


def newest(folder: Path) -> Path:
    return max(folder.glob("events.out.tfevents.*"))


@pytest.fixture
def reader() -> Callable[[Path], Any]:
    """What TensorBoard sees of a folder whenever it looks again: steps, times and values by tag."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def reader(folder: Path) -> Callable[[], dict[str, Any]]:
        accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})

        def look() -> dict[str, Any]:
            accumulator.Reload()
            tags = accumulator.Tags()["scalars"]
            return {tag: [(p.wall_time, p.step, p.value) for p in accumulator.Scalars(tag)] for tag in tags}

        return look

    return reader


def points(found: dict[str, Any], tag: str) -> list[tuple[int, Any]]:
    return [(step, pytest.approx(value, rel=1e-6)) for _, step, value in found[tag]]


def test_a_record_has_the_sums_that_tensorflow_gives_it() -> None:
    written = record(bytes(24))
    assert written[:12] == b'\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7fK"'  # how every event file of TensorFlow begins
    crc = 0xE3069283  # CRC-32C of the nine digits: RFC 3720, and every catalogue of CRCs
    assert int.from_bytes(record(b"123456789")[-4:], "little") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_tensorboard_reads_every_value_at_its_step_and_time(tmp_path: Path, reader: Any) -> None:
    take_part(tmp_path, "a", 0, 300)
    found = reader(tmp_path)()
    every = list(range(1, 301))
    assert points(found, "train/loss") == [(step, 1 / step) for step in every]
    assert points(found, "train/gradient_norm") == [(step, 0.5) for step in every]
    assert points(found, "train/learning_rate") == [(step, 1e-3 * step) for step in every]
    assert points(found, "valid/score") == [(step, step / 100) for step in every if step % 4 == 0]
    assert points(found, "valid/loss") == [(step, 2 / step) for step in every if step % 4 == 0]
    assert points(found, "cost/tokens_per_second") == [(step, 50.0) for step in every]
    assert points(found, "cost/memory_bytes") == [(step, step) for step in range(301)]
    EventFile(tmp_path).rewrite(tmp_path)
    for tag, again in reader(tmp_path)().items():
        assert [point[1:] for point in again] == [point[1:] for point in found[tag]]
        assert [time for time, *_ in again] == [STARTED + step for _, step, _ in again], (
            "the time of the step, not ours"
        )


KILLS = [[(0, 8), (8, 8), (7, 9)], [(0, 9), (5, 7), (5, 12)], [(0, 0), (0, 3), (2, 3), (3, 11)]]


@pytest.mark.parametrize("processes", KILLS)
def test_after_kills_no_step_comes_twice_and_none_is_missing(
    tmp_path: Path, reader: Any, processes: list[tuple[int, int]]
) -> None:
    open_all_the_time = reader(tmp_path)
    for number, (resumed, killed) in enumerate(processes):
        take_part(tmp_path, f"process {number}", resumed, killed)
        for found in (open_all_the_time(), reader(tmp_path)()):
            steps = {tag: [step for step, _ in points(found, tag)] for tag in found}
            until = list(range(1, killed + 1))
            expected = {"cost/memory_bytes": [0, *until]}
            if killed:
                expected |= {f"train/{name}": until for name in ("loss", "gradient_norm", "learning_rate")}
                expected["cost/tokens_per_second"] = until
            if killed >= 4:
                expected |= {f"valid/{name}": until[3::4] for name in ("score", "loss")}
            assert steps == expected
            assert points(found, "cost/memory_bytes") == [(step, step) for step in [0, *until]]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "events.out.tfevents.1234567890.host.17.0"
    other.write_bytes(b"theirs")
    ours = tmp_path / "events.out.tfevents.9999999998"
    ours.write_bytes(b"ours, by a clock that was far ahead")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    EventFile(tmp_path).rewrite(tmp_path)
    assert newest(tmp_path).name == "events.out.tfevents.9999999999"
    assert other.read_bytes() == b"theirs"
    assert ours.read_bytes() == b""


def fitted(folder: Path, stop: int | None, *, tensorboard: bool) -> Run:
    """Train a tiny model from where it stopped, to the end or to a step at which the process ends."""
    work = make_training(checkpoint_seconds=4.0, tensorboard=tensorboard)
    batch = work.feed.batch

    def cut(step: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return batch(step)

    work.feed.batch = cut
    run = Run(folder, Silent(), work.config)
    if stop is None:
        loop.fit(work, run, Silent())
    else:
        with pytest.raises(KeyboardInterrupt):
            loop.fit(work, run, Silent())
    return run


def test_asked_for_half_way_it_holds_what_was_before(
    tmp_path: Path, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = itertools.count(0, 1.5)  # so that every step is told of
    now = SimpleNamespace(monotonic=lambda: next(passed), time=lambda: STARTED + next(passed))
    monkeypatch.setattr(loop, "time", now)
    fitted(tmp_path, 6, tensorboard=False)
    assert not list(tmp_path.glob("events*"))
    run = fitted(tmp_path, None, tensorboard=True)
    found = reader(tmp_path)()
    for tag in ("train/loss", "train/gradient_norm", "train/learning_rate", "valid/score", "valid/accuracy"):
        part, name = tag.split("/")
        lines = [(line["step"], line if part == "train" else line.get("valid", {})) for line in read_lines(run.metrics)]
        assert points(found, tag) == [(step, values[name]) for step, values in lines if name in values]
    for tag in found:
        times, steps, _ = zip(*found[tag], strict=True)
        assert list(times) == sorted(times)
        assert list(steps) == sorted(set(steps))
    assert [step for step, _ in points(found, "cost/memory_bytes")] == list(range(run_length(run) + 1))


def run_length(run: Run) -> int:
    return int(read_lines(run.metrics)[-1]["step"])


def test_it_is_no_part_of_what_a_model_is(tmp_path: Path, reader: Any) -> None:
    workspace, dataset = make_dataset(tmp_path)

    def trained(tensorboard: bool) -> Any:
        spec = spec_of(tmp_path, train={"epochs": 1, "tensorboard": tensorboard})
        return train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())

    model = trained(tensorboard=False)
    (folder,) = workspace.runs.glob("tiny-model-*")
    assert not list(folder.glob("events*"))
    assert trained(tensorboard=True).digest == model.digest
    losses = [line for line in read_lines(model.path / "metrics.jsonl") if "loss" in line]
    assert points(reader(folder)(), "train/loss") == [(line["step"], line["loss"]) for line in losses]
