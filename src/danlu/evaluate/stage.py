"""The evaluate stage: a model and a dataset in, an evaluation out; several evaluations in, a comparison out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.files import digest_of, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.stage import iterate_split, read_split, require_split
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.evaluation import evaluate_predictions
from danlu.evaluate.intervals import observed
from danlu.evaluate.metrics import class_statistic
from danlu.evaluate.predictions import PredictionWriter
from danlu.model.predictor import Predictor, load_predictor

__all__ = ["compare_models", "evaluate_model", "validation_scores"]

_ROWS = 1024
"""Texts in memory at a time."""
_TIMED_TOGETHER = 64
"""Texts of like length that are answered, and timed, together."""
_TIMED_ALONE = 200
"""Texts that are answered one by one, for the latency that one user would see."""


def validation_scores(label_B: np.ndarray, probabilities_BN: np.ndarray) -> dict[str, float]:
    """What training watches: macro F1 (which picks the best weights), accuracy and the mean loss in nats.

    Args:
        label_B: int64 classes.
        probabilities_BN: float32.
    """
    n_records, n_classes = probabilities_BN.shape
    values = observed(np.ones(n_records, np.int64), class_statistic(label_B, probabilities_BN.argmax(1), n_classes))
    likelihood_B = probabilities_BN[np.arange(n_records), label_B]
    return {
        "score": float(values["macro_f1"]),
        "accuracy": float(values["accuracy"]),
        "loss": float(-np.log(np.maximum(likelihood_B, np.finfo(np.float32).tiny)).mean(dtype=np.float64)),
    }


def evaluate_model(
    workspace: Workspace, model: Artifact, dataset: Artifact, config: EvaluateConfig, progress: Progress
) -> Artifact:
    """Evaluate a model on a dataset's test split, or find the evaluation that was made before.

    Args:
        workspace: Where the artifact goes.
        model: A model artifact.
        dataset: A dataset artifact.
        config: Resamples, confidence and so on.
        progress: Told how many texts are done.

    Raises:
        DataError: The test split has a label that the model does not know, or is empty.
    """
    progress.stage(f"evaluate: {model.path.name}")
    parents = {"model": model.digest, "dataset": dataset.digest}
    key = digest_of({"parents": parents, "config": config.plain()})
    if found := workspace.with_key("evaluation", key):
        progress.note(f"{found.path.name} is there already")
        return found
    require_split(dataset, "test")
    predictor = load_predictor(model)
    with workspace.create("evaluation", model.name, key=key, config=config.plain(), parents=parents) as draft:
        path = draft.folder / "predictions.parquet"
        _predict_split(predictor, dataset, path, progress)
        facts = evaluate_predictions(path, config, _generator(dataset))
        facts["family"] = predictor.family
        facts["alone_ms"] = _alone(predictor, dataset)
        _add_texts([facts["most_confident_wrong"], facts["slowest"]], dataset)
        write_json(draft.folder / "evaluation.json", facts)
    return draft.artifact


def compare_models(
    workspace: Workspace,
    name: str,
    evaluations: Mapping[str, Artifact],
    baseline: str,
    config: EvaluateConfig,
    progress: Progress,
) -> Artifact:
    """Test every model against the baseline on the records that all of them answered.

    Args:
        workspace: Where the artifact goes.
        name: Its name.
        evaluations: What each model is called -> its evaluation.
        baseline: Which of them is the baseline.
        config: Resamples, confidence and so on.
        progress: Told that it begins.

    Raises:
        DataError: The evaluations are not of the same test.
    """
    progress.stage(f"compare: {', '.join(evaluations)}")
    parents = {label: evaluation.digest for label, evaluation in evaluations.items()}
    key = digest_of({"parents": parents, "baseline": baseline, "config": config.plain()})
    if found := workspace.with_key("comparison", key):
        progress.note(f"{found.path.name} is there already")
        return found
    dataset = workspace.with_digest(next(iter(evaluations.values())).manifest["parents"]["dataset"])
    with workspace.create("comparison", name, key=key, config=config.plain(), parents=parents) as draft:
        paths = {label: evaluation.path / "predictions.parquet" for label, evaluation in evaluations.items()}
        facts = compare_with_baseline(paths, baseline, config, _generator(dataset))
        for model in facts["models"]:
            _add_texts([model["only_a_right"], model["only_b_right"]], dataset)
        write_json(draft.folder / "comparison.json", facts)
    return draft.artifact


def _generator(dataset: Artifact) -> np.random.Generator:
    """The resampling of a dataset: the same answers on the same test split have the same intervals every time."""
    return np.random.default_rng(int(dataset.digest[:16], 16))


def _predict_split(predictor: Predictor, dataset: Artifact, path: Path, progress: Progress) -> None:
    """Answer the test split, a few texts at a time, into a predictions file."""
    number = {name: index for index, name in enumerate(predictor.classes)}
    n_done = 0
    with PredictionWriter(path, predictor.classes) as writer:
        for batch in iterate_split(dataset, "test", ["id", "text", "label"], _ROWS):
            ids, texts, labels = (batch.column(name).to_pylist() for name in ("id", "text", "label"))
            if unknown := sorted({label for label in labels if label not in number}):
                raise UsageError(
                    f"the test split has a label that the model does not know: {unknown[0]!r}",
                    where=str(dataset.path),
                    advice=f"the model's classes are {', '.join(predictor.classes)}",
                )
            by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
            for start in range(0, len(by_length), _TIMED_TOGETHER):
                rows = by_length[start : start + _TIMED_TOGETHER]
                asked = [texts[row] for row in rows]
                probabilities_BN, milliseconds = _timed(predictor, asked)
                writer.write(
                    [ids[row] for row in rows],
                    np.array([number[labels[row]] for row in rows]),
                    probabilities_BN,
                    np.array([len(text) for text in asked]),
                    np.full(len(rows), milliseconds / len(rows)),
                )
            n_done += len(texts)
            progress.update(n_done, None, "texts")


def _timed(predictor: Predictor, texts: list[str]) -> tuple[np.ndarray, float]:
    """The answer, and the milliseconds it took."""
    started = time.perf_counter()
    probabilities_BN = predictor.predict_proba(texts)
    return probabilities_BN, (time.perf_counter() - started) * 1000


def _alone(predictor: Predictor, dataset: Artifact) -> dict[str, float]:
    """Milliseconds from text to answer, one text at a time."""
    first = next(iterate_split(dataset, "test", ["text"], _TIMED_ALONE))
    texts = first.column("text").to_pylist()
    _timed(predictor, texts[:1])  # the first call sets things up
    taken = np.array([_timed(predictor, [text])[1] for text in texts])
    return {"n": len(taken), "p50": float(np.median(taken)), "p95": float(np.quantile(taken, 0.95))}


def _add_texts(examples: Iterable[list[dict[str, Any]]], dataset: Artifact) -> None:
    """Put the text beside the id of every example, so that an evaluation can be read alone."""
    table = read_split(dataset, "test", ["id", "text"])
    wanted = {example["id"] for group in examples for example in group}
    rows = zip(table.column("id").to_pylist(), table.column("text").to_pylist(), strict=True)
    texts = {id_: text for id_, text in rows if id_ in wanted}
    for group in examples:
        for example in group:
            example["text"] = texts[example["id"]]
