"""The train stage: a dataset artifact in, a model artifact out.

Work under way lives in the workspace's ``runs`` folder under a name that follows from everything that went in, so that
the same command finds it again and goes on; the artifact appears when the run has ended.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import SerializeAsAny
from tokenizers import Tokenizer

from danlu.core.artifact import Artifact
from danlu.core.batch import Batch
from danlu.core.config import Config
from danlu.core.files import digest_of, explained, lock, read_json, write_atomic, write_json
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.batches import Tokens, collate
from danlu.data.stage import class_names
from danlu.data.tokenizer import PAD, TokenizerConfig, load_tokenizer, train_tokenizer
from danlu.model.base import FamilyConfig, Model
from danlu.model.classifier import NeuralClassifier, build_module
from danlu.model.init import initialise
from danlu.train.checkpoint import Run
from danlu.train.examples import Examples, Score, load_examples, write_model
from danlu.train.feed import PlannedFeed
from danlu.train.loop import TrainConfig, fit
from danlu.train.warmstart import cooccurrence_vectors

__all__ = [
    "Examples",
    "Prepared",
    "Score",
    "TrainingSpec",
    "load_examples",
    "prepare_run",
    "train_baseline",
    "train_model",
]


class TrainingSpec(Config):
    """Everything besides the data that decides what a training run makes."""

    model: SerializeAsAny[FamilyConfig]
    tokenizer: TokenizerConfig
    train: TrainConfig
    seed: int | None


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to take its first step.

    Attributes:
        classifier: The module with its initial weights, and its tokenizer.
        feed: Every step's batch.
        valid: The validation split.
        seeds: The run's seeds.
    """

    classifier: NeuralClassifier
    feed: PlannedFeed
    valid: Examples
    seeds: Seeds


def train_model(
    workspace: Workspace, name: str, dataset: Artifact, spec: TrainingSpec, score: Score, progress: Progress
) -> Artifact:
    """Train a neural model, or find the one that the same work made before.

    Args:
        workspace: Where the run and the artifact go.
        name: The model's name.
        dataset: What to train on; its test split is not touched.
        spec: The model, its tokenizer and its training.
        score: Judges the validation split.
        progress: Told of every step.

    Raises:
        BusyError: Another process is at work on this very run.
        DanluError: The loss is not finite, or the disk is full.
    """
    family = spec.model.family
    progress.stage(f"train: {family} on {dataset.path.name}")
    key = digest_of({"dataset": dataset.digest, **spec.plain()})
    if found := workspace.with_key("model", key):
        progress.note(f"{found.path.name} is there already")
        return found
    folder = workspace.runs / f"{name}-{family}-{key[:12]}"
    with lock(folder / "lock", holder=f"the run {folder.name}"):
        prepared = prepare_run(dataset, spec, folder)
        module, feed = prepared.classifier.module, prepared.feed
        _begin(folder, key, spec, dataset, prepared.seeds, progress)
        progress.note(f"{module.n_parameters():,} parameters · {feed.n_steps:,} steps")

        def evaluate(trained: Model) -> dict[str, float]:
            classifier = NeuralClassifier(trained, prepared.classifier.tokenizer, prepared.classifier.n_classes)
            return score(prepared.valid.labels, classifier.predict_proba(prepared.valid.texts))

        run = Run(folder, progress)
        fitted = fit(module, feed, spec.train, run=run, seeds=prepared.seeds, evaluate=evaluate, progress=progress)
        facts = {**_timing(folder), **asdict(fitted), "n_parameters": module.n_parameters()}
        commitments = prepared.seeds.commitments()
        with workspace.create(
            "model", name, key=key, config=spec.plain(), parents={"dataset": dataset.digest}, commitments=commitments
        ) as draft:
            write_model(draft.folder, prepared.classifier, family, dataset, facts)
            shutil.copyfile(folder / "metrics.jsonl", draft.folder / "metrics.jsonl")
        shutil.rmtree(run.checkpoints)
    return draft.artifact


def prepare_run(dataset: Artifact, spec: TrainingSpec, folder: Path | None) -> Prepared:
    """Everything that comes before the first step.

    Args:
        dataset: What to train on.
        spec: The model, its tokenizer and its training.
        folder: The run's folder, where seeds and tokenizer are kept from one process to the next; None keeps nothing.

    Raises:
        DataError: There is nothing to train on.
    """
    classes = class_names(dataset)
    train, valid = (load_examples(dataset, split, classes) for split in ("train", "valid"))
    seeds = _kept_seeds(folder, spec.seed)
    tokenizer = _kept_tokenizer(folder, train.texts, spec.tokenizer)
    module = build_module(spec.model, tokenizer, len(classes))
    initialise(module, seeds)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = NeuralClassifier(module.to(device), tokenizer, len(classes))
    tokens = classifier.encode(train.texts)
    if spec.train.warm_start == "cooccurrence":
        _warm_start(module, tokens, seeds)

    def make(rows: np.ndarray) -> Batch:
        return collate(tokens, rows, PAD, train.labels).to(device)

    return Prepared(classifier, PlannedFeed(tokens.lengths, make, spec.train, seeds), valid, seeds)


def _warm_start(module: Model, tokens: Tokens, seeds: Seeds) -> None:
    """Replace the drawn token vectors by those of the training texts' co-occurrences, at the same scale."""
    weight = module.embedding.weight.weight
    vectors = cooccurrence_vectors(tokens, *weight.shape, float(weight.std()), seeds.at("init", "cooccurrence"))
    with torch.no_grad():
        weight.copy_(torch.from_numpy(vectors))


def _kept_seeds(folder: Path | None, seed: int | None) -> Seeds:
    if folder is None:
        return Seeds.new(seed)
    path = folder / "seeds.json"
    if not path.exists():
        Seeds.new(seed).save(path)
    return Seeds.load(path)


def _kept_tokenizer(folder: Path | None, texts: list[str], config: TokenizerConfig) -> Tokenizer:
    if folder is None:
        return train_tokenizer(texts, config)
    path = folder / "tokenizer.json"
    if not path.exists():
        write_atomic(path, train_tokenizer(texts, config).to_str(pretty=True).encode())
    return load_tokenizer(path)


def _begin(folder: Path, key: str, spec: TrainingSpec, dataset: Artifact, seeds: Seeds, progress: Progress) -> None:
    """Write what the run is and its commitments before step 0; on a later start, take up its number of threads."""
    path = folder / "run.json"
    if not path.exists():
        facts = {"key": key, "dataset": dataset.digest, "spec": spec.plain(), "commitments": seeds.commitments()}
        write_json(path, {**facts, "n_threads": torch.get_num_threads()})
    n_threads = int(read_json(path)["n_threads"])
    if n_threads != torch.get_num_threads():
        progress.note(f"the run began with {n_threads} threads and goes on with as many, to stay exact")
        torch.set_num_threads(n_threads)


def _timing(folder: Path) -> dict[str, Any]:
    """Seconds and tokens of all the processes that worked on a run, steps done again after a kill included."""
    last: dict[int, dict[str, Any]] = {}
    with explained(folder), (folder / "timing.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                facts = json.loads(line)
                last[facts["process"]] = facts
    return {
        name: round(sum(facts[name] for facts in last.values()), 3) for name in ("seconds", "n_tokens", "n_positions")
    }
