"""A run that has ended, and all that it was made from, found again in a workspace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.chain import RunChain
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.token_store import TokenStore
from danlu.train import pretrain
from danlu.train.machine import machine
from danlu.train.prepare import Material, Prepared, Score, Start, TrainingSpec
from danlu.train.tasks import TRAINING, read_spec

__all__ = ["PastRun"]


@dataclass(frozen=True)
class PastRun:
    """A run that has ended, and all that it was made from.

    Attributes:
        model: What it made.
        chain: What it wrote down.
        folder: Its own folder, which may be gone.
        spec: The model and its training.
        seeds: Its seeds.
        dataset: What it was trained on.
        held_out: The dataset trained on later, for a run that pre-trains.
        start: The weights that it started from.
        store: Where what texts were cut into is kept.
    """

    model: Artifact
    chain: RunChain
    folder: Path
    spec: TrainingSpec
    seeds: Seeds
    dataset: Artifact
    held_out: Artifact | None
    start: Path | None
    store: TokenStore

    @classmethod
    def find(
        cls, workspace: Workspace, model: Artifact, seeds: Path | None = None, start: Start | None = None
    ) -> PastRun | str:
        """What a finished model was made from, or in a sentence what of it is not here.

        Args and errors as of :func:`danlu.train.replay.reopened`.
        """
        if "chain.jsonl" not in model.manifest["files"]:
            return "it has no chain.jsonl: it was not trained in steps, or by an earlier danlu"
        folder = workspace.runs / f"{model.name}-{model.kind}-{str(model.manifest['key'])[:12]}"
        path = seeds or folder / "seeds.json"
        if not path.is_file():
            return "the seeds of its run are not here"
        parents, pretrains = model.manifest["parents"], model.kind == "pretrained"
        datasets: list[Artifact] = []
        for role in ("dataset", "texts") if pretrains and "texts" in parents else ("dataset",):
            if (dataset := _at_hand(workspace, parents[role])) is None:
                return f"the dataset {parents[role][:12]} that it was trained on is not in this workspace"
            datasets.append(dataset)
        digest = parents.get("start") if pretrains else parents.get("pretrained", parents.get("start"))
        weights = None if digest is None else _start_path(workspace, digest, start)
        if digest is not None and weights is None:
            return f"the checkpoint {digest[:12]} that it started from is not here"
        return cls(
            model=model,
            chain=RunChain.read(model.path / "chain.jsonl"),
            folder=folder,
            spec=_spec(model.config),
            seeds=Seeds.load(path),
            dataset=datasets[-1],
            held_out=datasets[0] if pretrains else None,
            start=weights,
            store=TokenStore(workspace.tokens),
        )

    def prepared(self, folder: Path, score: Score) -> Prepared:
        """The run, ready to take its first step again, in an empty folder."""
        self.seeds.save(folder / "seeds.json")
        material = Material(
            dataset=self.dataset, spec=self.spec, folder=folder, start=self.start, score=score, store=self.store
        )
        if self.held_out is not None:
            return pretrain.prepare(material, held_out=self.held_out)
        return TRAINING[self.spec.task].prepare(material)

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The machines that worked on it."""
        machines: list[dict[str, Any]] = self.model.json("training.json").get("machines", [])
        return machines

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """What differs between those machines and this one."""
        here = machine(1)
        names = [name for name in here if name not in ("n_threads", "n_processes")]
        there = {name: list(dict.fromkeys(str(found[name]) for found in self.machines)) for name in names}
        return tuple(
            f"{name} {', '.join(there[name])}, here {here[name]}" for name in names if there[name] != [str(here[name])]
        )

    def unrepeatable(self) -> str | None:
        """Why nothing of it can be done again bit for bit, where that is so."""
        if not self.machines:
            return "it does not say on what machine it ran"
        if "changes" in self.model.config or any(entry["event"] == "changed" for entry in self.chain.entries):
            return "it went on with another recipe half way"
        if self.chain.start["step"]:
            return "it was begun by an earlier danlu, which kept no chain"
        if any(found["n_processes"] > 1 for found in self.machines):
            return "several processes trained together"
        if any(found["device"] != "cpu" for found in self.machines) or machine(1)["device"] != "cpu":
            return "a GPU does not add in the same order twice"
        return None

    def begin(self, segment: int) -> int:
        """The step at which a segment begins."""
        return int(self.chain.checkpoints[segment - 1]["step"]) if segment else 0


def _at_hand(workspace: Workspace, digest: str) -> Artifact | None:
    """The artifact with a digest, every file checked, if it is in the workspace."""
    if any(found.digest == digest for found in workspace.all()):
        return workspace.with_digest(digest)
    return None


def _start_path(workspace: Workspace, digest: str, given: Start | None) -> Path | None:
    """The checkpoint with a digest: the one that was given, or a model of the workspace."""
    if given is not None and given.digest == digest:
        return given.path
    found = _at_hand(workspace, digest)
    return None if found is None else found.path


def _spec(config: Mapping[str, Any]) -> TrainingSpec:
    """The spec that the config of a model tells of; nothing is said of how the run is carried out."""
    values = {name: config[name] for name in TrainingSpec.model_fields if name in config}
    spec = read_spec({"train": {}, **values})  # what only pre-trained says nothing of the training after
    often = {"checkpoint_seconds": math.inf}
    pretrain_config = None if spec.pretrain is None else spec.pretrain.model_copy(update=often)
    return spec.model_copy(update={"train": spec.train.model_copy(update=often), "pretrain": pretrain_config})
