"""The self-check: is everything here that danlu needs, and does a small training work from end to end?"""

from __future__ import annotations

import csv
import platform
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from danlu.core.artifact import environment
from danlu.core.errors import DanluError
from danlu.core.progress import Progress, Silent
from danlu.core.workspace import Workspace

__all__ = ["Finding", "examine"]

_ENOUGH_GIB = 2.0

_RECIPE = """\
danlu: 1
name: doctor
task: text-classification
seed: 1
data: {source: texts.csv, split: {valid: 0.2, test: 0.2}, clean: {dedup: exact}}
tokenizer: {vocab_size: 400}
model: {family: bert, d_model: 32, n_layers: 1, n_heads: 2, d_ff: 64, dropout: 0.0, token_dropout: 0.0}
train: {epochs: 12, learning_rate: 0.005, batch_tokens: 512, patience: 12}
evaluate: {bootstrap: 200}
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    ok: bool


def examine(workspace: Workspace, progress: Progress) -> list[Finding]:
    """Look at the installation, then train a model on made-up data and ask it.

    Args:
        workspace: Whose disk is looked at; nothing is left in it.
        progress: Told what is looked at.
    """
    progress.stage("doctor")
    versions = environment()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: training runs on the CPU"
    existing = next(folder for folder in (workspace.root, *workspace.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    findings = [
        Finding("Python and packages", ", ".join(f"{name} {number}" for name, number in versions.items()), True),
        Finding("processors", f"{platform.machine()}, {torch.get_num_threads()} threads", True),
        Finding("GPU", device, True),
        Finding("disk", f"{free:.1f} GiB free at {existing}", free >= _ENOUGH_GIB),
        Finding("clients for danlu fetch", _clients(), True),
    ]
    for what, check in (("matrix products", _matrix_speed), ("made-up training", _made_up_training)):
        progress.note(what)
        try:
            findings.append(Finding(what, check(), True))
        except (DanluError, RuntimeError, OSError) as error:
            findings.append(Finding(what, str(error), False))
    return findings


def _clients() -> str:
    found = {name: shutil.which(name) for name in ("pip", "npm")}
    return ", ".join(f"{name} {'found' if path else 'not found'}" for name, path in found.items())


def _matrix_speed() -> str:
    """float32 matrix products of side 1024, the fastest of five."""
    side, best = 1024, float("inf")
    matrix = torch.randn(side, side)
    for _ in range(5):
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return f"{2 * side**3 / best / 1e9:.0f} GFLOP/s"


def _made_up_training() -> str:
    """Learn which of two sets of words a text draws from; anything short of nearly all right is a fault."""
    from danlu.model.predictor import load_predictor
    from danlu.pipeline import Job

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_texts(folder / "texts.csv")
        (folder / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
        started = time.perf_counter()
        model = Job.load(folder / "recipe.yaml", None, Workspace(folder / "workspace"), Silent()).models()["bert"]
        seconds = time.perf_counter() - started
        score = model.json("training.json")["best_score"]
        answer = load_predictor(model).predict_proba(["好 棒 赞 的 喜"])
        if score < 0.95 or not abs(float(answer.sum()) - 1) < 1e-5:
            raise RuntimeError(f"learnt too little: macro F1 {score:.3f} where 1.0 is easy")
    return f"macro F1 {score:.3f} in {seconds:.1f} s"


def _write_texts(path: Path) -> None:
    draw = random.Random(1).choices  # noqa: S311 - made-up texts, not a secret
    words = {"good": "好棒赞喜爱美快优", "bad": "差烂坏假脏慢贵退"}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(800):
            label = "good" if number % 2 else "bad"
            writer.writerow([" ".join(draw(words[label], k=3) + draw("的了我这个买很就是在到", k=8)), label])
