"""The train stage: a dataset artifact in, a model artifact out.

Work under way lives in the workspace's ``runs`` folder under a name that follows from everything that went in, so that
the same command finds it again and goes on; the artifact appears when the run has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of, lock, read_json, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.train import pretrain
from danlu.train.adapt import fold_adapters
from danlu.train.checkpoint import Run
from danlu.train.examples import write_model
from danlu.train.loop import fit
from danlu.train.prepare import Material, Prepared, Score, Sources, TrainingSpec
from danlu.train.tasks import TRAINING
from danlu.train.tensorboard import EventFile
from danlu.train.watch import peak_memory

__all__ = ["pretrain_model", "train_model"]

_REPLAYED = 4
"""Batches by which the merging of adapters is checked."""


@dataclass(frozen=True)
class _Work:
    """A run to be carried out: what it makes, under which name, from what."""

    kind: str
    name: str
    config: dict[str, Any]
    parents: dict[str, str]

    @property
    def key(self) -> str:
        return digest_of({"kind": self.kind, "config": self.config, "parents": self.parents})


def train_model(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    spec: TrainingSpec,
    sources: Sources,
    score: Score,
    progress: Progress,
    tensorboard: bool = False,
) -> Artifact:
    """Train a neural model, pre-training it first if the spec says so, or find the one made before.

    Args:
        workspace: Where the run and the artifact go.
        name: The model's name.
        dataset: What to train on; its test split is not touched.
        spec: The model, its tokenizer and its training.
        sources: What else it is made from.
        score: Judges a classifier on the validation split.
        progress: Told of every step.
        tensorboard: Whether the run's curves are also written for TensorBoard.

    Raises:
        BusyError: Another process is at work on this very run.
        DanluError: The loss is not finite, or the disk is full.
        UsageError: The family cannot be trained for the task.
    """
    family = spec.model.family
    pretrained = (
        pretrain_model(workspace, name, dataset, spec, sources, score, progress, tensorboard)
        if spec.pretrains
        else None
    )
    progress.stage(f"train: {family} on {dataset.path.name}")
    parents = {"dataset": dataset.digest} | sources.parents
    parents |= {"pretrained": pretrained.digest} if pretrained else {}
    start = pretrained or sources.start

    def prepare(folder: Path) -> Prepared:
        path = None if start is None else start.path
        material = Material(dataset=dataset, spec=spec, folder=folder, start=path, score=score, progress=progress)
        return TRAINING[spec.task].prepare(material)

    def write(folder: Path, prepared: Prepared, facts: dict[str, Any]) -> None:
        if spec.train.adapt.mode == "lora":
            batches = [prepared.feed.batch(step) for step in range(min(_REPLAYED, prepared.feed.n_steps))]
            facts |= fold_adapters(folder, prepared.module, batches, spec.train.adapt)
        if pretrained:
            before = pretrained.json("training.json")
            facts = {**facts, "seconds": facts["seconds"] + before["seconds"], "pretraining": before}
        write_model(folder, prepared.answerer, (spec.task, family), dataset, facts)

    work = _Work("model", name, spec.plain() | {"family": family}, parents)
    return _carry_out(workspace, work, prepare, write, progress, tensorboard)


def pretrain_model(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    spec: TrainingSpec,
    sources: Sources,
    score: Score,
    progress: Progress,
    tensorboard: bool = False,
) -> Artifact:
    """Train a backbone to name hidden tokens of texts without labels, or find the one made before.

    Args and errors as for :func:`train_model`.
    """
    texts = sources.texts or dataset
    progress.stage(f"pre-train: {spec.model.family} on {texts.path.name}")

    def prepare(folder: Path) -> Prepared:
        path = None if sources.start is None else sources.start.path
        material = Material(dataset=texts, spec=spec, folder=folder, start=path, score=score, progress=progress)
        return pretrain.prepare(material, held_out=dataset)

    def write(folder: Path, prepared: Prepared, facts: dict[str, Any]) -> None:
        prepared.answerer.save(folder)
        write_json(folder / "training.json", facts)

    config = {key: value for key, value in spec.plain().items() if key != "train"}
    parents = {"dataset": dataset.digest} | sources.parents
    return _carry_out(workspace, _Work("pretrained", name, config, parents), prepare, write, progress, tensorboard)


def _carry_out(
    workspace: Workspace,
    work: _Work,
    prepare: Callable[[Path], Prepared],
    write: Callable[[Path, Prepared, dict[str, Any]], None],
    progress: Progress,
    tensorboard: bool,
) -> Artifact:
    """Run the loop in the run's folder, from where it stopped; then write the artifact and drop the checkpoints."""
    folder = workspace.runs / f"{work.name}-{work.kind}-{work.key[:12]}"
    if found := workspace.with_key(work.kind, work.key):
        progress.note(f"{found.path.name} is there already")
        if tensorboard:
            EventFile(folder).rewrite(found.path)
        return found
    with lock(folder / "lock", holder=f"the run {folder.name}"):
        prepared = prepare(folder)
        commitments = prepared.seeds.commitments()
        n_parameters = prepared.module.n_parameters()
        _begin(folder, work, {"n_parameters": n_parameters, "n_steps": prepared.feed.n_steps}, commitments, progress)
        n_trained = prepared.module.n_trained()
        of_them = "" if n_trained == n_parameters else f", {n_trained:,} of them trained"
        progress.note(f"{n_parameters:,} parameters{of_them} · {prepared.feed.n_steps:,} steps")
        run = Run(folder, progress, tensorboard=tensorboard)
        fitted = fit(prepared, run, progress)
        facts = {**_timing(run.timing), **asdict(fitted), "n_trained": n_trained, "memory_bytes": peak_memory()}
        with workspace.create(
            work.kind, work.name, key=work.key, config=work.config, parents=work.parents, commitments=commitments
        ) as draft:
            write(draft.folder, prepared, {**facts, "n_parameters": n_parameters})
            shutil.copyfile(run.metrics, draft.folder / "metrics.jsonl")
            shutil.copyfile(run.timing, draft.folder / "timing.jsonl")
        shutil.rmtree(run.checkpoints)
    return draft.artifact


def _begin(folder: Path, work: _Work, size: dict[str, int], commitments: dict[str, str], progress: Progress) -> None:
    """Write what the run is and its commitments before step 0; on a later start, take up its number of threads."""
    path = folder / "run.json"
    if not path.exists():
        facts = {**asdict(work), "key": work.key, "commitments": commitments}
        write_json(path, {**facts, **size, "n_threads": torch.get_num_threads()})
    n_threads = int(read_json(path)["n_threads"])
    if n_threads != torch.get_num_threads():
        progress.note(f"the run began with {n_threads} threads and goes on with as many, to stay exact")
        torch.set_num_threads(n_threads)


def _timing(timing: Path) -> dict[str, Any]:
    """Seconds and tokens of all the processes that worked on a run, steps done again after a kill included."""
    last: dict[str, dict[str, Any]] = {}
    for line in timing.read_text(encoding="utf-8").splitlines():
        facts = json.loads(line)
        last[facts["process"]] = facts
    return {
        name: round(sum(facts[name] for facts in last.values()), 3) for name in ("seconds", "n_tokens", "n_positions")
    }
