"""Artifacts as runs leave them, for every task: simulated answers, judged by the real evaluation and data code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from danlu.core.artifact import Artifact
from danlu.core.files import write_json
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.image_sources import Picture
from danlu.data.prepare import CleanConfig, SplitConfig, prepare
from danlu.data.prepare_images import prepare_images
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.tasks import TASKS
from danlu.report.stage import Entry, write_data_card, write_report

CONFIG = EvaluateConfig(bootstrap=100, permutations=1000)
Answer = Callable[[Path, list[dict[str, Any]], str, float], None]
"""Writes what a model of a family and of a skill answers to the test split."""


@dataclass(frozen=True)
class Run:
    """What a run made."""

    workspace: Workspace
    dataset: Artifact
    entries: list[Entry]
    comparison: Artifact
    gate: dict[str, Any]
    plan: dict[str, Any] | None
    recipe: dict[str, Any]

    def report(self) -> Artifact:
        """Write the report."""
        return write_report(
            self.workspace,
            recipe=self.recipe,
            dataset=self.dataset,
            entries=self.entries,
            comparison=self.comparison,
            gate=self.gate,
            plan=self.plan,
            progress=Silent(),
        )

    @cached_property
    def written(self) -> Path:
        """The folder of its report."""
        return self.report().path

    @cached_property
    def page(self) -> str:
        """The report."""
        return (self.written / "report.html").read_text(encoding="utf-8")

    @cached_property
    def model_card(self) -> str:
        """The model card."""
        return (self.written / "card.md").read_text(encoding="utf-8")

    @cached_property
    def data_card(self) -> str:
        """The page about its data."""
        card = write_data_card(self.workspace, self.dataset, Silent())
        return (card.path / "card.html").read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Made:
    """What is to be simulated.

    Attributes:
        task: What the models do.
        dataset: Their data.
        rows: Its test split.
        answer: Simulates the answers of a model.
        valid: What is measured on the validation split, from a made-up macro F1 and loss.
        classes: The model's classes.
        change: What is done to an evaluation or a comparison afterwards, as the evaluate stage does.
        training: What is added to the facts of the recipe's own training.
        start: Whether the recipe's own model starts from a checkpoint.
        few_shot: Points of few-shot curves for the comparison.
    """

    task: str
    dataset: Artifact
    rows: list[dict[str, Any]]
    answer: Answer
    valid: Callable[[float, float], dict[str, float]]
    classes: Sequence[str] = ()
    change: Callable[[dict[str, Any], str], None] = lambda _facts, _family: None
    training: Mapping[str, Any] = field(default_factory=dict)
    start: bool = False
    few_shot: Sequence[Mapping[str, Any]] = ()


def make_dataset(workspace: Workspace, name: str, columns: dict[str, list[str]], **clean_as: Any) -> Artifact:
    """The real data stage on texts, each with a label or a target or neither."""
    sources = [f"{name}.csv:{row + 2}" for row in range(len(columns["text"]))]
    batch = pa.RecordBatch.from_pydict({"source": sources, **columns})
    clean, split = CleanConfig(**clean_as), SplitConfig(valid=0.1, test=0.4)
    config = {"source": f"{name}.csv", "columns": {role: role for role in columns}}
    config |= {"clean": clean.plain(), "split": split.plain()}
    parents = {f"{name}.csv": "a" * 64}
    with workspace.create("dataset", name, key="d", config=config, parents=parents) as draft:
        write_json(draft.folder / "summary.json", prepare([batch], clean, split, draft.folder))
    return draft.artifact


def make_pictures(workspace: Workspace, pictures: Iterable[Picture]) -> Artifact:
    """The real data stage on pictures."""
    clean, split = CleanConfig(), SplitConfig(valid=0.1, test=0.4)
    config = {"source": "digits", "columns": {"image": "image", "label": "folder"}}
    config |= {"clean": clean.plain(), "split": split.plain()}
    with workspace.create("dataset", "digits", key="d", config=config, parents={"digits": "a" * 64}) as draft:
        write_json(draft.folder / "summary.json", prepare_images(pictures, ["label"], clean, split, draft.folder))
    return draft.artifact


def read_test(dataset: Artifact) -> list[dict[str, Any]]:
    """The records of the test split."""
    rows: list[dict[str, Any]] = pq.read_table(dataset.path / "test.parquet").to_pylist()
    return rows


def make_entry(workspace: Workspace, made: Made, family: str, skill: float, first: bool) -> Entry:
    """A model, and the real evaluation of simulated answers."""
    facts, curve = training_of(made, family)
    facts |= made.training if first else {}
    commitments = Seeds.new("1").commitments() if curve else {}
    parents = {"dataset": made.dataset.digest} | ({"pretrained": "b" * 64} if "pretraining" in facts else {})
    parents |= {"start": "c" * 64} if first and made.start else {}
    name = made.dataset.name if first else f"{made.dataset.name}-{family}"
    with workspace.create(
        "model", name, key=family, config={"family": family}, parents=parents, commitments=commitments
    ) as draft:
        write_json(draft.folder / "model.json", {"task": made.task, "family": family, "classes": list(made.classes)})
        write_json(draft.folder / "training.json", facts)
        if curve:
            lines = "".join(json.dumps(point) + "\n" for point in curve)
            (draft.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    parents = {"model": draft.artifact.digest, "dataset": made.dataset.digest}
    judged = TASKS[made.task]
    with workspace.create("evaluation", name, key=family, config={}, parents=parents) as evaluation:
        path = evaluation.folder / "predictions.parquet"
        made.answer(path, made.rows, family, skill)
        found = judged.evaluate(path, CONFIG, np.random.default_rng(0))
        found |= {"task": made.task, "primary": judged.primary, "family": family}
        found |= {"alone_ms": {"n": 200, "p50": 4.12, "p95": 6.2}}
        made.change(found, family)
        write_json(evaluation.folder / "evaluation.json", found)
    return Entry(draft.artifact, evaluation.artifact)


SIMPLE = ("tfidf-lr", "5-gram", "translation-memory", "logistic-regression")


def training_of(made: Made, family: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``training.json`` and the training curve; simple models have none."""
    rng = np.random.default_rng(len(family))
    best = made.valid(0.8731, 0.41)["score"]
    facts: dict[str, Any] = {"seconds": 3.25, "best_score": made.valid(0.849, 0.5)["score"], "n_parameters": 412_345}
    if family == "translation-memory":
        facts["best_score"] = None
    if family == "ensemble":
        facts |= {"weights": {"bert": 0.71, "tfidf-lr": 0.33}}
    if family in (*SIMPLE, "ensemble"):
        return facts, []
    facts |= {"seconds": 183.4, "n_tokens": 4_812_345, "n_positions": 5_012_000, "step": 900, "n_steps": 1200}
    facts |= {"best_step": 750, "best_score": best, "n_parameters": 1_234_567, "memory_bytes": 1_500_000_000}
    facts |= {"n_trained": 1_234_567}
    before = {"seconds": 61.5, "n_tokens": 1_600_000, "n_positions": 1_650_000, "step": 800, "n_steps": 800}
    facts |= {"pretraining": before} if family == "bert" and made.task == "text-classification" else {}
    curve: list[dict[str, Any]] = []
    for step in range(6, 901, 6):
        loss = 0.72 * np.exp(-step / 300) + 0.12 + rng.normal(0, 0.02)
        curve.append({"step": step, "loss": loss, "gradient_norm": 0.8, "learning_rate": 1e-3})
        if step % 150 == 0:
            score = 0.88 - 0.18 * np.exp(-step / 200)
            loss = 0.36 + 0.3 * np.exp(-step / 150) + 0.0002 * step
            curve.append({"step": step, "valid": made.valid(score, loss)})
    return facts, curve


def make_run(
    workspace: Workspace, made: Made, families: Sequence[str], skills: Sequence[float], *, planned: bool = True
) -> Run:
    """A whole run; the second model is the baseline, and without one there is nothing in the comparison."""
    entries = [make_entry(workspace, made, family, skills[index], index == 0) for index, family in enumerate(families)]
    paths = {
        family: entry.evaluation.path / "predictions.parquet" for family, entry in zip(families, entries, strict=True)
    }
    baseline = families[min(1, len(families) - 1)]
    compared = compare_with_baseline(paths, baseline, CONFIG, np.random.default_rng(0), made.task)
    for model in compared["models"]:
        made.change(model, model["a"])
    if made.few_shot:
        compared["few_shot"] = list(made.few_shot)
    with workspace.create("comparison", made.dataset.name, key="c", config={}, parents={}) as draft:
        write_json(draft.folder / "comparison.json", compared)
    plan = {"family": families[0], "n_parameters": 1_234_567, "n_steps": 2000, "n_tokens": 8_000_000, "flops": 4.1e13}
    plan |= {"padding_share": 0.041, "memory_bytes": 1_300_000_000, "seconds": 251.0}
    recipe = {
        "danlu": 1,
        "name": made.dataset.name,
        "task": made.task,
        "seed": 1,
        "data": made.dataset.config,
        "model": {"family": "bert" if "bert" in families else families[0], "size": "tiny", "dropout": 0.1}
        | {"from": "sample:minilm" if made.start else "scratch"},
        "train": {"epochs": 8, "learning_rate": 0.001},
    }
    gate = make_gate(compared)
    return Run(workspace, made.dataset, entries, draft.artifact, gate, plan if planned else None, recipe)


def make_gate(compared: dict[str, Any]) -> dict[str, Any]:
    """The gate's decision, as the pipeline takes it."""
    gate: dict[str, Any] = {"passed": False, "metric": compared["primary"], "alpha": 0.05}
    gate |= {"baseline": compared["baseline"], "verdict": "no difference shown"}
    gate |= {"difference": None, "low": None, "high": None, "p": None}
    if compared["models"]:
        found, verdict = compared["models"][0]["metrics"][compared["primary"]], compared["models"][0]["verdict"]
        gate |= {name: found[name] for name in ("difference", "low", "high")}
        gate |= {"p": found["p_holm"], "passed": verdict == "better", "verdict": verdict}
    return gate
