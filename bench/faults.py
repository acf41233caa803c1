"""Faults of the disk under a training run: what it says, what it goes on from, and whether it ends with the same bytes.

    PYTHONPATH=src:tests python bench/faults.py [--disks]

A tiny GPT with gradient accumulation and a mean of its weights is killed half-way. Then, fault by fault, each on a copy
of what was left: a flipped byte, a lost end and a missing file, for every file of the newest checkpoint, of one process
and of two that share the tensors (FSDP2); a disk that fills up or becomes read-only, and a folder that takes nothing
(as root alone: the disk is a small tmpfs, the folder made immutable). The run that goes on is compared with one that
was left alone: by the SHA-256 of its weights and its curve, or, in two processes, by the largest difference of a loss.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from crew import Crew, difference, digests
from small import make_dataset, recipe_text

TRAIN = {"epochs": 4, "accumulate": 2, "ema_decay": 0.99, "batch_tokens": 256, "checkpoint_seconds": 0}
CUT = 8
DISK = "1m"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped byte": flip, "lost end": cut, "missing": Path.unlink}


@dataclass(frozen=True)
class Begun:
    """A run that was killed half-way, and the one that was left alone.

    Attributes:
        crew: Trains in the folder; every fault has it as it was when it was killed.
        kept: A copy of that.
        n: Processes.
        words: How they share the work.
        whole: The digests of the run that was left alone.
        curve: Its curve.
    """

    crew: Crew
    kept: Path
    n: int
    words: tuple[str, ...]
    whole: dict[str, str]
    curve: list[dict[str, object]]

    @classmethod
    def make(cls, folder: Path, n: int, *words: str) -> Begun:
        """Train one to its end, and kill another half-way."""
        folder.mkdir()
        make_dataset(folder, task="language-modelling")
        (folder / "recipe.yaml").write_text(recipe_text("gpt", "language-modelling", train=TRAIN))
        crew, kept = Crew(folder), folder.with_name(f"{folder.name} kept")
        shutil.copytree(folder, kept)
        crew.train(n, *words)
        whole, curve = digests(crew.workspace), crew.curve()
        begun = cls(crew, kept, n, words, whole, curve)
        begun.fresh()
        assert crew.kill(n, lambda: crew.at(CUT), 0, *words)
        shutil.rmtree(kept)
        shutil.copytree(folder, kept)
        return begun

    def fresh(self) -> None:
        """The folder as it was kept; in its own place, for a dataset knows its source."""
        shutil.rmtree(self.crew.folder)
        shutil.copytree(self.kept, self.crew.folder)

    def newest(self) -> Path:
        """The newest checkpoint."""
        return max(self.crew.workspace.glob("runs/tiny-model-*/checkpoints/step-*"))

    def ends(self) -> str:
        """Go on to the end; what came of it."""
        for path in self.crew.folder.glob("log-*.txt"):
            path.unlink()
        self.crew.train(self.n, *self.words)
        resumed = re.search(r"resumed at step (\d+)", self.crew.log())
        after = f"went on from step {resumed[1]}" if resumed else "began again"
        if self.n == 1:
            return f"{after}; {'the same bytes' if digests(self.crew.workspace) == self.whole else 'OTHER BYTES'}"
        return f"{after}; largest difference of a loss {difference(self.crew.curve(), self.curve):.2g}"


def damaged_files(begun: Begun) -> Iterator[tuple[str, str, str]]:
    """Every file of the newest checkpoint, damaged in every way."""
    names = sorted(path.relative_to(begun.newest()) for path in begun.newest().rglob("*") if path.is_file())
    for name in names:
        for kind, damage in DAMAGES.items():
            begun.fresh()
            newest = begun.newest()
            damage(newest / name)
            outcome = begun.ends()
            said = re.search(rf"{newest.name} is damaged \((.+?): ", begun.crew.log())
            yield f"{kind}: {name}", said[1] if said else "NOTHING", outcome


def bad_disks(begun: Begun) -> Iterator[tuple[str, str, str]]:
    """A workspace on a disk that does not let itself be written to; mended, the run goes on."""
    for fault, broken in (("full disk", full), ("read-only disk", read_only), ("folder not to be written to", closed)):
        begun.fresh()
        runs = begun.crew.workspace / "runs"
        with small_disk(begun.crew.workspace) if broken is not closed else nullcontext():
            newest = begun.newest().name
            with broken(begun.crew.workspace):
                done = trained(begun)
            left = [path.name for path in runs.glob("*/checkpoints/.scratch-*")]
            whole = "nothing half-written" if begun.newest().name >= newest and not left else f"LOST, or LEFT {left}"
            error = next((line for line in done.stderr.splitlines() if line.startswith("error:")), "NOTHING")
            yield fault, f"exit {done.returncode}; {error}; {whole}", begun.ends()


def trained(begun: Begun) -> subprocess.CompletedProcess[str]:
    """``danlu train`` as anybody types it."""
    folder, workspace = begun.crew.folder, begun.crew.workspace
    command = [sys.executable, "-B", "-m", "danlu", "train", str(folder / "recipe.yaml"), "-w", str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def full(workspace: Path) -> Iterator[None]:
    """The disk has room for a checkpoint or two."""
    filler = workspace / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(workspace).free - 64 * 1024))
    yield
    filler.unlink()


@contextmanager
def read_only(workspace: Path) -> Iterator[None]:
    """The disk is mounted for reading."""
    subprocess.run(["mount", "-o", "remount,ro", str(workspace)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(workspace)], check=True)


@contextmanager
def closed(workspace: Path) -> Iterator[None]:
    """The folder of checkpoints takes nothing, not even from root."""
    (folder,) = workspace.glob("runs/tiny-model-*/checkpoints")
    subprocess.run(["chattr", "+i", str(folder)], check=True)
    yield
    subprocess.run(["chattr", "-i", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """What is in a folder, on a small disk of its own."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disks", action="store_true", help="bad disks alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        one = Begun.make(Path(name) / "one", 1)
        may_mount = os.geteuid() == 0
        parts = []
        if not given.disks:
            two = Begun.make(Path(name) / "two", 2, "train.parallel=fsdp")
            parts = [("one process", damaged_files(one)), ("two processes, FSDP2", damaged_files(two))]
        parts += [("one process", bad_disks(one))] if may_mount else []
        print("| | fault | what it said | what came of it |\n|---|---|---|---|")
        for who, rows in parts:
            for fault, said, outcome in rows:
                print(f"| {who} | {fault} | {said} | {outcome} |", flush=True)
        if not may_mount:
            print("full, read-only and foreign disks: left out, only root may mount a disk")


if __name__ == "__main__":
    main()
