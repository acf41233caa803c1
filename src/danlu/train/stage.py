"""The train stage: a dataset artifact in, a model artifact out.

Work under way lives in the workspace's ``runs`` folder under a name that follows from everything that went in, so that
the same command finds it again and goes on; the artifact appears when the run has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from danlu.core.artifact import Artifact
from danlu.core.files import lock, read_json, write_json
from danlu.core.progress import Progress, Silent
from danlu.core.workspace import Workspace
from danlu.data.token_store import TokenStore
from danlu.model.weights import weights_root
from danlu.train import pretrain
from danlu.train.adapt import fold_adapters
from danlu.train.checkpoint import Run
from danlu.train.config import RunConfig
from danlu.train.engine import Engine
from danlu.train.examples import write_model
from danlu.train.loop import fit
from danlu.train.machine import machine
from danlu.train.prepare import Material, Prepared, Score, Sources, TrainingSpec
from danlu.train.profile import TABLE, TRACE
from danlu.train.tasks import TRAINING, read_spec
from danlu.train.tensorboard import EventFile
from danlu.train.watch import peak_memory
from danlu.train.work import Work
from danlu.train.world import World

__all__ = ["attend", "pretrain_model", "train_model"]

_REPLAYED = 4
"""Batches by which the merging of adapters is checked."""


@dataclass(frozen=True)
class _Order:
    """A run to be prepared, in words that other processes understand.

    Attributes:
        material: What it is prepared from.
        before: The dataset to be trained on later, where this run pre-trains; None: it does not.
    """

    material: Material
    before: Artifact | None = None

    def prepared(self) -> Prepared:
        """The run, ready to take its first step."""
        if self.before is not None:
            return pretrain.prepare(self.material, held_out=self.before)
        return TRAINING[self.material.spec.task].prepare(self.material)

    def told(self) -> dict[str, Any]:
        """All of it but who judges and who listens."""
        material = self.material
        paths = {"dataset": material.dataset.path, "folder": material.folder, "start": material.start}
        paths["store"] = material.store.folder
        paths["before"] = None if self.before is None else self.before.path
        plain = {name: None if path is None else str(path) for name, path in paths.items()}
        return {**plain, "spec": material.spec.plain(), "n_threads": torch.get_num_threads()}

    @classmethod
    def heard(cls, told: Mapping[str, Any], score: Score) -> _Order:
        """What the first process told, as this one is to prepare it."""
        names = ("dataset", "folder", "start", "before", "store")
        paths = {name: None if told[name] is None else Path(told[name]) for name in names}
        opened = {name: Artifact.open(path) for name in ("dataset", "before") if (path := paths[name]) is not None}
        torch.set_num_threads(told["n_threads"])
        material = Material(
            dataset=opened["dataset"],
            spec=read_spec(told["spec"]),
            folder=paths["folder"],
            start=paths["start"],
            score=score,
            store=TokenStore(paths["store"]),
        )
        return cls(material, opened.get("before"))


def train_model(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    spec: TrainingSpec,
    sources: Sources,
    score: Score,
    progress: Progress,
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

    Raises:
        BusyError: Another process is at work on this very run.
        DanluError: The loss is not finite, or the disk is full.
        UsageError: The family cannot be trained for the task.
    """
    family = spec.model.family
    pretrained = pretrain_model(workspace, name, dataset, spec, sources, score, progress) if spec.pretrains else None
    progress.stage(f"train: {family} on {dataset.path.name}")
    parents = {"dataset": dataset.digest} | sources.parents
    parents |= {"pretrained": pretrained.digest} if pretrained else {}
    start, store = pretrained or sources.start, TokenStore(workspace.tokens)

    def order(folder: Path) -> _Order:
        path = None if start is None else start.path
        return _Order(
            Material(dataset=dataset, spec=spec, folder=folder, start=path, score=score, progress=progress, store=store)
        )

    def write(folder: Path, prepared: Prepared, facts: dict[str, Any]) -> None:
        if spec.train.adapt.mode == "lora":
            device = next(prepared.module.parameters()).device
            batches = [prepared.feed.batch(step).to(device) for step in range(min(_REPLAYED, prepared.feed.n_steps))]
            facts |= fold_adapters(folder, prepared.module, batches, spec.train.adapt)
        if pretrained:
            before = pretrained.json("training.json")
            facts = {**facts, "seconds": facts["seconds"] + before["seconds"], "pretraining": before}
        write_model(folder, prepared.answerer, (spec.task, family), dataset, facts)

    work = Work("model", name, spec.made() | {"family": family}, parents)
    return _carry_out(workspace, work, order, write, spec.train, progress)


def pretrain_model(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    spec: TrainingSpec,
    sources: Sources,
    score: Score,
    progress: Progress,
) -> Artifact:
    """Train a backbone to name hidden tokens of texts without labels, or find the one made before.

    Args and errors as for :func:`train_model`.
    """
    texts, store = sources.texts or dataset, TokenStore(workspace.tokens)
    progress.stage(f"pre-train: {spec.model.family} on {texts.path.name}")

    def order(folder: Path) -> _Order:
        path = None if sources.start is None else sources.start.path
        material = Material(
            dataset=texts, spec=spec, folder=folder, start=path, score=score, progress=progress, store=store
        )
        return _Order(material, before=dataset)

    def write(folder: Path, prepared: Prepared, facts: dict[str, Any]) -> None:
        prepared.answerer.save(folder)
        write_json(folder / "training.json", facts)

    config = {key: value for key, value in spec.made().items() if key != "train"}
    parents = {"dataset": dataset.digest} | sources.parents
    assert spec.pretrain is not None
    work = Work("pretrained", name, config, parents)
    return _carry_out(workspace, work, order, write, spec.pretrain, progress)


def _carry_out(
    workspace: Workspace,
    work: Work,
    order: Callable[[Path], _Order],
    write: Callable[[Path, Prepared, dict[str, Any]], None],
    how: RunConfig,
    progress: Progress,
) -> Artifact:
    """Run the loop in the run's folder, from where it stopped; then write the artifact and, if so, drop checkpoints."""
    if found := workspace.with_key(work.kind, work.key):
        progress.note(f"{found.path.name} is there already")
        if how.tensorboard:
            EventFile(work.folder(workspace.runs)).rewrite(found.path)
        return found
    work = work.taken_up(workspace.runs, how.resume, progress)
    folder = work.folder(workspace.runs)
    with lock(folder / "lock", holder=f"the run {folder.name}"):
        ordered = order(folder)
        prepared = ordered.prepared()
        commitments = prepared.seeds.commitments()
        n_parameters = prepared.module.n_parameters()
        _begin(folder, work, {"n_parameters": n_parameters, "n_steps": prepared.feed.n_steps}, commitments, progress)
        n_trained = prepared.module.n_trained()
        of_them = "" if n_trained == n_parameters else f", {n_trained:,} of them trained"
        progress.note(f"{n_parameters:,} parameters{of_them} · {prepared.feed.n_steps:,} steps")
        train = prepared.config
        progress.note(
            f"{train.optimizer}, learning rate {train.learning_rate:g}, {train.batch_tokens:,} tokens a batch at most"
        )
        world = World.now()
        world.message(ordered.told())
        run = Run(folder, progress, prepared.config, world)
        fitted = fit(prepared, run, progress, world)
        if world.size > 1 and prepared.config.parallel == "fsdp":  # this process has a share of the weights only
            prepared = ordered.prepared()
            Engine(prepared).load_weights(run.read(fitted.best_step))
        run.end(fitted.step, fitted.best_step, weights_root(prepared.module.state_dict()))
        facts = {**_timing(run.timing), **asdict(fitted), "n_trained": n_trained, "memory_bytes": peak_memory()}
        facts |= {"machines": read_json(folder / "run.json")["machines"]}
        facts |= {"changes": work.changes} if work.changes else {}
        config = work.config | ({"changes": list(work.changes)} if work.changes else {})
        with workspace.create(
            work.kind, work.name, key=work.key, config=config, parents=work.parents, commitments=commitments
        ) as draft:
            write(draft.folder, prepared, {**facts, "n_parameters": n_parameters})
            if "start" in work.parents and ordered.material.start is not None:
                draft.measured["start"] = str(ordered.material.start)  # where to look for it: its digest is a parent
            recorded = [folder / name for name in (TRACE, TABLE) if (folder / name).exists()]
            for path in (run.metrics, run.timing, run.chain.path, *recorded):
                shutil.copyfile(path, draft.folder / path.name)
        if not how.keep_checkpoints:
            shutil.rmtree(run.checkpoints)
    return draft.artifact


def attend(score: Score) -> None:
    """Train along with the first process, run after run, until it has no more.

    Args:
        score: Judges a classifier on the validation split.
    """
    world = World.now()
    while (told := world.message()) is not None:
        ordered = _Order.heard(told, score)
        prepared = ordered.prepared()
        assert ordered.material.folder is not None
        fit(prepared, Run(ordered.material.folder, Silent(), prepared.config, world), Silent(), world)


def _begin(folder: Path, work: Work, size: dict[str, int], commitments: dict[str, str], progress: Progress) -> None:
    """Write what the run is and its commitments before step 0; on a later start, take up its number of threads."""
    path = folder / "run.json"
    if not path.exists():
        facts = {**asdict(work), "key": work.key, "commitments": commitments}
        write_json(path, {**facts, **size, "n_threads": torch.get_num_threads(), "n_processes": World.now().size})
    begun = read_json(path)
    n_processes, n_threads = int(begun["n_processes"]), int(begun["n_threads"])
    if n_processes != World.now().size:
        progress.note(
            f"the run began with {n_processes} processes and goes on with {World.now().size}: the data come in the "
            "same order, sums are taken in another"
        )
    elif n_threads != torch.get_num_threads():
        progress.note(f"the run began with {n_threads} threads and goes on with as many, to stay exact")
        torch.set_num_threads(n_threads)
    machines, here = begun.get("machines", []), machine(World.now().size)
    if here not in machines:
        write_json(path, {**begun, "machines": [*machines, here]})


def _timing(timing: Path) -> dict[str, Any]:
    """Seconds and tokens of all the processes that worked on a run, steps done again after a kill included."""
    last: dict[str, dict[str, Any]] = {}
    for line in timing.read_text(encoding="utf-8").splitlines():
        facts = json.loads(line)
        last[facts["process"]] = facts
    return {
        name: round(sum(facts[name] for facts in last.values()), 3) for name in ("seconds", "n_tokens", "n_positions")
    }
