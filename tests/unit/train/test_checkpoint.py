from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from danlu.core.errors import BusyError, CorruptError, DanluError
from danlu.core.files import lock
from danlu.core.progress import Silent
from danlu.train.checkpoint import Run, State
from danlu.train.engine import Engine
from danlu.train.loop import fit
from danlu.train.prepare import Sources
from danlu.train.stage import train_model
from small import SCORE, Listener, make_dataset, make_training, spec_of

FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def names(run: Run) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir() if not path.name.startswith("."))


def saved(folder: Path, *steps: int, best: int | None = None) -> tuple[Run, Listener]:
    """A run with a checkpoint at each step, its weights filled with the step's number."""
    told = Listener()
    run = Run(folder, told)
    for step in steps:
        work = make_training()
        engine = Engine(work)
        engine.step(work.feed.batch(0), 0, 1e-3)
        with torch.no_grad():
            for parameter in work.module.parameters():
                parameter.fill_(step)
        run.report(step=step)
        run.save(engine.tensors(), State(step=step, best_step=best if best and best < step else None))
    return run, told


def restored(run: Run) -> tuple[State, float]:
    """The state that a run goes back to, and the value of its weights (of the initial ones: 0)."""
    work = make_training()
    before = next(work.module.parameters()).clone()
    state = run.restore(Engine(work))
    now = next(work.module.parameters())
    return state, 0.0 if torch.equal(now, before) else float(now.flatten()[0].item())


def test_everything_comes_back_bit_for_bit(tmp_path):
    run, told = saved(tmp_path, 1)
    work, again = make_training(), make_training()
    engine, engine_again = Engine(work), Engine(again)
    for step in range(3):
        engine.step(work.feed.batch(0), step, 1e-3)
    state = State(3, 2, 1, 0.1 + 0.2, 1, 1 / 3, 7)
    run.save(engine.tensors(), state)
    assert run.restore(engine_again) == state
    for name, tensor in work.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[name], tensor)
    theirs = engine_again.optimizer.state_dict()["state"]
    for number, slots in engine.optimizer.state_dict()["state"].items():
        assert all(torch.equal(theirs[number][slot], tensor) for slot, tensor in slots.items())
    assert told.notes == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, name, damage):
    run, told = saved(tmp_path, 1, 2)
    path = run.checkpoints / "step-00000002" / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(flipped if damage == "flip" else content[:middle])
    state, value = restored(run)
    assert (state.step, value) == (1, 1.0)
    assert len(told.notes) == 1
    assert told.notes[0].startswith("step-00000002 is damaged (")
    assert told.notes[0].endswith("going back to the one before")
    assert names(run) == ["damaged-step-00000002", "step-00000001"]
    assert run.metrics.read_text() == '{"step": 1}\n'  # the curve too goes back to where it was


def test_every_byte_counts(tmp_path):
    run, _ = saved(tmp_path, 1, 2)
    folder, curve = run.checkpoints / "step-00000002", run.metrics.read_bytes()
    for name in FILES:
        content = (folder / name).read_bytes()
        for place in range(0, len(content), max(1, len(content) // 25)):
            (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
            assert restored(run)[0].step == 1, (name, place)
            (run.checkpoints / "damaged-step-00000002").rename(folder)
            (folder / name).write_bytes(content)
            run.metrics.write_bytes(curve)
    assert restored(run)[0].step == 2


def test_with_every_checkpoint_damaged_it_begins_again(tmp_path):
    run, told = saved(tmp_path, 1, 2)
    for step in (1, 2):
        (run.checkpoints / f"step-0000000{step}" / "state.json").unlink()
    assert restored(run) == (State(), 0.0)
    assert len(told.notes) == 2
    assert run.metrics.read_bytes() == b""


def test_a_checkpoint_is_of_no_use_without_the_best_one_that_it_refers_to(tmp_path):
    run, told = saved(tmp_path, 1, 2, 3, best=2)
    (run.checkpoints / "step-00000002" / "model.safetensors").write_bytes(b"")
    assert restored(run)[0].step == 1
    assert [note.split(" is damaged")[0] for note in told.notes] == ["step-00000003", "step-00000002"]
    assert all("step-00000002" in note for note in told.notes)


def test_the_same_step_may_be_damaged_twice(tmp_path):
    for _ in range(2):
        run, _ = saved(tmp_path, 1, 2)
        (run.checkpoints / "step-00000002" / "state.json").unlink()
        assert restored(run)[0].step == 1


def test_a_curve_that_has_lost_lines_is_not_filled_up_with_nothing(tmp_path):
    run, told = saved(tmp_path, 1, 2)
    run.metrics.write_text('{"step": 1}\n')
    assert restored(run)[0].step == 1
    assert "metrics.jsonl has lost lines" in told.notes[0]


def test_a_line_of_the_timing_that_a_crash_cut_short_does_no_harm(tmp_path):
    run, _ = saved(tmp_path, 1)
    run.timing.write_text('{"a": 1}\n{"a": ')
    restored(run)
    run.report_timing(a=2)
    assert run.timing.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_the_last_two_and_the_best_are_kept(tmp_path):
    run, _ = saved(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert names(run) == ["step-00000002", "step-00000004", "step-00000005"]
    (tmp_path / "no best").mkdir()
    run, _ = saved(tmp_path / "no best", 1, 2, 3)
    assert names(run) == ["step-00000002", "step-00000003"]


def test_the_best_weights_are_checked_when_they_are_loaded(tmp_path):
    run, _ = saved(tmp_path, 1)
    (run.checkpoints / "step-00000001" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError, match=r"model\.safetensors is not what was written") as found:
        run.read(1)
    assert "run the same command again" in str(found.value.advice)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a small disk")
def test_a_full_disk_leaves_the_checkpoints_before_it_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DanluError, match=r"could not write.*No space left on device") as found:
            saved(disk, *range(1, 30))
        assert "free some space" in str(found.value.advice)
        run = Run(disk, Listener())
        assert len(names(run)) == 2
        assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".scratch-")]
        step = int(names(run)[-1].removeprefix("step-"))
        assert step == 2
        assert restored(run)[1] == step
    finally:
        subprocess.run(["umount", str(disk)], check=True)


TOO_LARGE = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import pytest
from small import make_training
from danlu.core.errors import DanluError
from danlu.core.progress import Silent
from danlu.train.checkpoint import Run
from danlu.train.loop import fit
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    fit(make_training(), Run(Path(sys.argv[1]), Silent()), Silent())
except DanluError as error:
    print(error)
"""


def test_a_file_that_may_not_grow_so_large(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-B", "-c", TOO_LARGE, str(tmp_path), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not write" in done.stdout
    assert "File too large" in done.stdout
    assert not list((tmp_path / "checkpoints").glob("step-*"))
    fit(make_training(), Run(tmp_path, Silent()), Silent())  # and once it may, the run goes on


def test_the_second_trainer_of_one_run_refuses(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    spec = spec_of(tmp_path)

    class Second(Silent):
        tried = False

        def note(self, text):
            if "steps" in text:  # the first is inside its run now
                self.tried = True
                with pytest.raises(BusyError, match=r"another process \(pid \d+\) is at work on the run tiny-model-"):
                    train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent())

    second = Second()
    model = train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, second)
    assert second.tried
    assert train_model(workspace, "tiny", dataset, spec, Sources(), SCORE, Silent()).digest == model.digest


def test_the_lock_of_a_process_that_died_is_free(tmp_path):
    code = "import fcntl, os, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "lock")], check=False)
    assert done.returncode == -9
    with lock(tmp_path / "lock", holder="the run"):
        pass


def test_an_old_checkpoint_that_cannot_be_removed_is_told_of(tmp_path, monkeypatch):
    run, _ = saved(tmp_path, 1, 2)

    def refuse(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr("danlu.train.checkpoint.shutil.rmtree", refuse)
    work = make_training()
    with pytest.raises(DanluError, match=r"could not write: Operation not permitted") as found:
        run.save(Engine(work).tensors(), State(step=3))
    assert "choose a folder" in str(found.value.advice)
    assert {"step-00000001", "step-00000002", "step-00000003"} <= set(names(run))
