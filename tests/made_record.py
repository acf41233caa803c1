"""A workspace with a model, a baseline, an evaluation and their records, made by the real pipeline."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from danlu.audit.record.signing import Envelope
from danlu.core.artifact import Artifact, identity_digest
from danlu.core.files import canonical_json, digest_of, read_json, sha256_file, write_json
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.evaluate.stage import validation_scores
from danlu.model.families import TFIDF
from danlu.pipeline import Job, evaluate_target
from danlu.recording import record
from danlu.train.baseline import train_baseline

__all__ = ["Noting", "make_workspace", "model_of", "rechained", "remanifested", "restated", "write_recipe"]

RECIPE = """\
danlu: 1
name: tiny
task: text-classification
data: {source: texts.jsonl, split: {valid: 0.2, test: 0.2}, clean: {dedup: exact}}
tokenizer: {vocab_size: 300}
model: {family: bert, d_model: 16, n_layers: 1, n_heads: 2, d_ff: 32, dropout: 0.0, token_dropout: 0.0}
train: {epochs: 3, learning_rate: 0.005, batch_tokens: 512, patience: 12}
pretrain: {epochs: 1}
"""


class Noting(Silent):
    """Remembers what stays on the screen."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_recipe(folder: Path) -> Path:
    """Write a recipe and its texts."""
    draw = random.Random(3).choices
    words = {"good": "好棒赞喜爱美快优", "bad": "差烂坏假脏慢贵退"}
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(240):
            label = "good" if number % 2 else "bad"
            text = " ".join(draw(words[label], k=3) + draw("的了我这个买很就是在到", k=8))
            file.write(json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


def make_workspace(folder: Path) -> Workspace:
    """Carry out the recipe: in ``<folder>/workspace``."""
    workspace = Workspace(folder / "workspace")
    job = Job.load(write_recipe(folder), None, workspace, Silent())
    job.models()
    simple = train_baseline(workspace, "tiny-tfidf-lr", job.dataset, TFIDF, validation_scores, Silent())
    record(workspace, simple, Silent())
    evaluate_target(workspace, "tiny@latest", ["bootstrap=100"], Silent())
    return workspace


def model_of(workspace: Workspace, name: str = "tiny") -> Artifact:
    """The model of a name."""
    return next(model for model in workspace.all("model") if model.name == name)


def restated(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a statement says, and leave its signature."""
    path = folder / "record" / "statement.dsse.json"
    envelope = Envelope.read(path)
    statement = envelope.statement()
    change(statement)
    path.write_bytes(Envelope(canonical_json(statement), envelope.payload_type, envelope.signatures).written())


def remanifested(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Change what a manifest says, and let files and digest agree with it again, as who hides something would."""
    manifest = read_json(folder / "manifest.json")
    for name in manifest["files"]:
        path = folder / name
        manifest["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    change(manifest)
    manifest["digest"] = identity_digest(manifest)
    write_json(folder / "manifest.json", manifest)


def rechained(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change lines of a chain, and compute its hashes anew, as who hides something would."""
    path = folder / "chain.jsonl"
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(entries)
    before = "0" * 64
    for number, entry in enumerate(entries):
        entry |= {"seq": number, "prev": before}
        entry.pop("hash")
        entry["hash"] = before = digest_of(entry)
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
