"""Artifacts as a run leaves them, made of simulated answers by the real evaluation and data code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from danlu.core.artifact import Artifact
from danlu.core.files import write_json
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.prepare import CleanConfig, SplitConfig, prepare
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.evaluation import evaluate_predictions
from danlu.evaluate.predictions import PredictionWriter
from danlu.report.stage import Entry, write_report

FAMILIES = ("bert", "tfidf-lr", "gru", "mlp")
HOSTILE = "<script>alert('x')</script> | `tick` & \"quote\" </style> *bold* [a](http://evil.example)"


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


def make_texts(n: int, classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts of varied length, some of them hostile, empty, repeated or with personal data."""
    rng = np.random.default_rng(3)
    characters = list(
        "质量很好差退货了快递慢服务态度一般值得推荐便宜屏幕电池声音包装破损房间干净早餐位置书内容翻译印刷"
    )
    texts = ["".join(rng.choice(characters, size=int(size))) for size in 6 + rng.gamma(1.5, 25, n).astype(int)]
    texts[:6] = [HOSTILE, "", "，，，。。。！！！", texts[7], "联系我 13812345678 或者 a@b.cn，谢谢", texts[9]]
    texts[11] = HOSTILE
    return texts, [classes[index] for index in rng.integers(len(classes), size=n)]


def make_dataset(workspace: Workspace, texts: list[str], labels: list[str]) -> Artifact:
    """The real data stage on texts."""
    sources = [f"texts.csv:{row + 2}" for row in range(len(texts))]
    batch = pa.RecordBatch.from_pydict({"source": sources, "text": texts, "label": labels})
    clean, split = CleanConfig(), SplitConfig(valid=0.1, test=0.4)
    config = {"source": "texts.csv", "clean": clean.plain(), "split": split.plain()}
    with workspace.create("dataset", "reviews", key="d", config=config, parents={"texts.csv": "a" * 64}) as draft:
        write_json(draft.folder / "summary.json", prepare([batch], clean, split, draft.folder))
    return draft.artifact


def make_entry(
    workspace: Workspace, dataset: Artifact, family: str, classes: list[str], skill: float, first: bool
) -> Entry:
    """A model that answers the test split as well as its skill lets it."""
    rng = np.random.default_rng(len(family))
    facts: dict[str, Any] = {"seconds": 3.25, "best_score": 0.849, "n_parameters": 412_345}
    curve: list[dict[str, Any]] = []
    if family == "ensemble":
        facts |= {"weights": {"bert": 0.71, "tfidf-lr": 0.33}}
    elif family != "tfidf-lr":
        facts |= {"seconds": 183.4, "n_tokens": 4_812_345, "n_positions": 5_012_000, "step": 900, "n_steps": 1200}
        facts |= {"best_step": 750, "best_score": 0.8731, "n_parameters": 1_234_567, "memory_bytes": 1_500_000_000}
        before = {"seconds": 61.5, "n_tokens": 1_600_000, "n_positions": 1_650_000, "step": 800, "n_steps": 800}
        facts |= {"pretraining": before} if family == "bert" else {}
        for step in range(6, 901, 6):
            loss = 0.72 * np.exp(-step / 300) + 0.12 + rng.normal(0, 0.02)
            curve.append({"step": step, "loss": loss, "gradient_norm": 0.8, "learning_rate": 1e-3})
            if step % 150 == 0:
                score = 0.88 - 0.18 * np.exp(-step / 200)
                loss = 0.36 + 0.3 * np.exp(-step / 150) + 0.0002 * step
                curve.append({"step": step, "valid": {"score": score, "accuracy": score + 0.002, "loss": loss}})
    name = "reviews" if first else f"reviews-{family}"
    commitments = Seeds.new(1).commitments() if curve else {}
    parents = {"dataset": dataset.digest} | ({"pretrained": "b" * 64} if "pretraining" in facts else {})
    with workspace.create(
        "model", name, key=family, config={"family": family}, parents=parents, commitments=commitments
    ) as draft:
        write_json(draft.folder / "model.json", {"task": "text-classification", "family": family, "classes": classes})
        write_json(draft.folder / "training.json", facts)
        if curve:
            lines = "".join(json.dumps(point) + "\n" for point in curve)
            (draft.folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return Entry(draft.artifact, make_evaluation(workspace, dataset, draft.artifact, family, classes, skill))


def make_evaluation(
    workspace: Workspace, dataset: Artifact, model: Artifact, family: str, classes: list[str], skill: float
) -> Artifact:
    """The real evaluation of simulated answers."""
    rng = np.random.default_rng(5)  # the same for all families: their answers are alike, as real models' are
    table = pq.read_table(dataset.path / "test.parquet")
    texts, ids = table["text"].to_pylist(), table["id"].to_pylist()
    labels = np.array([classes.index(label) for label in table["label"].to_pylist()])
    logits = rng.normal(0, 1.2, (len(labels), len(classes)))
    logits += np.random.default_rng(len(family)).normal(0, 0.6, logits.shape)
    logits[np.arange(len(labels)), labels] += skill
    odds = np.exp(1.6 * logits)
    probabilities = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    parents = {"model": model.digest, "dataset": dataset.digest}
    with workspace.create("evaluation", model.name, key=family, config={}, parents=parents) as draft:
        with PredictionWriter(draft.folder / "predictions.parquet", classes) as writer:
            n_chars = np.array([len(text) for text in texts])
            writer.write(ids, labels, probabilities, n_chars, 0.5 + n_chars / 60)
        config = EvaluateConfig(bootstrap=100)
        facts = evaluate_predictions(draft.folder / "predictions.parquet", config, np.random.default_rng(0))
        facts |= {"family": family, "alone_ms": {"n": 200, "p50": 4.12, "p95": 6.2}}
        add_texts(facts, dict(zip(ids, texts, strict=True)))
        write_json(draft.folder / "evaluation.json", facts)
    return draft.artifact


def add_texts(facts: dict[str, Any], texts: dict[str, str]) -> None:
    """Put the text beside every example."""
    for name in ("most_confident_wrong", "slowest", "only_a_right", "only_b_right"):
        for example in facts.get(name, []):
            example["text"] = texts[example["id"]]


def make_comparison(workspace: Workspace, dataset: Artifact, families: Sequence[str], entries: list[Entry]) -> Artifact:
    """The real comparison; without a second model there is nothing in it."""
    table = pq.read_table(dataset.path / "test.parquet")
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    pairs = zip(families, entries, strict=True)
    paths = {family: entry.evaluation.path / "predictions.parquet" for family, entry in pairs}
    baseline = families[min(1, len(families) - 1)]
    facts = compare_with_baseline(paths, baseline, EvaluateConfig(bootstrap=100), np.random.default_rng(0))
    for model in facts["models"]:
        add_texts(model, texts)
    with workspace.create("comparison", "reviews", key="c", config={}, parents={}) as draft:
        write_json(draft.folder / "comparison.json", facts)
    return draft.artifact


def make_run(
    root: Path,
    *,
    families: Sequence[str] = FAMILIES[:3],
    classes: Sequence[str] = ("负面", "正面"),
    skills: Sequence[float] = (3.4, 2.4, 2.7, 2.2),
    planned: bool = True,
    records: tuple[list[str], list[str]] | None = None,
) -> Run:
    """A whole run."""
    workspace = Workspace(root / "danlu-workspace")
    names = sorted(classes)
    dataset = make_dataset(workspace, *(records or make_texts(600, names)))
    entries = [
        make_entry(workspace, dataset, family, names, skills[index], index == 0)
        for index, family in enumerate(families)
    ]
    comparison = make_comparison(workspace, dataset, families, entries)
    compared = comparison.json("comparison.json")
    gate: dict[str, Any] = {"passed": False, "metric": "macro_f1", "alpha": 0.05, "baseline": compared["baseline"]}
    gate |= {"difference": None, "low": None, "high": None, "p": None}
    if compared["models"]:
        macro_f1 = compared["models"][0]["metrics"]["macro_f1"]
        gate |= {name: macro_f1[name] for name in ("difference", "low", "high")}
        gate |= {"p": macro_f1["p_holm"], "passed": compared["models"][0]["verdict"] == "better"}
    plan = {"family": "bert", "n_parameters": 1_234_567, "n_steps": 2000, "n_tokens": 8_000_000, "flops": 4.1e13}
    plan |= {"padding_share": 0.041, "memory_bytes": 1_300_000_000, "seconds": 251.0}
    recipe = {
        "danlu": 1,
        "name": "reviews",
        "task": "text-classification",
        "seed": 1,
        "data": dataset.config,
        "model": {"family": "bert", "size": "tiny", "dropout": 0.1},
        "train": {"epochs": 8, "learning_rate": 0.001},
    }
    return Run(workspace, dataset, entries, comparison, gate, plan if planned else None, recipe)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A factory of whole runs, each in a workspace of its own; the same wishes give the same run."""
    made: dict[str, Run] = {}

    def run_of(**wanted: Any) -> Run:
        key = repr(sorted(wanted.items()))
        if key not in made:
            made[key] = make_run(tmp_path_factory.mktemp("run"), **wanted)
        return made[key]

    return run_of
