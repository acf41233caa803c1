"""The evaluate stage: a model and a dataset in, an evaluation out; several evaluations in, a comparison out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.files import digest_of, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.images import png_address
from danlu.data.stage import image_size, iterate_split, read_split, require_split
from danlu.evaluate.asking import predict_split
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.intervals import observed
from danlu.evaluate.metrics import class_statistic
from danlu.evaluate.tasks import TASKS, Task
from danlu.model.decode import DecodeConfig
from danlu.model.predictor import Predictor, load_predictor

__all__ = ["compare_models", "evaluate_model", "validation_scores"]

_SAMPLES = 8
"""Texts whose beginning a language model goes on with, for people to read."""
_PROMPT = 12
"""Characters of such a beginning."""
_WRITING = DecodeConfig(max_new_tokens=60, temperature=0.8, top_p=0.95)


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
        alone = predict_split(predictor, dataset, path, progress)
        judged: Task = TASKS[predictor.task]
        facts = judged.evaluate(path, config, _generator(dataset))
        facts |= {"task": predictor.task, "primary": judged.primary, "family": predictor.family, "alone_ms": alone}
        _add_records(facts, dataset)
        if predictor.task == "language-modelling":
            facts["samples"] = _samples(predictor, dataset)
        write_json(draft.folder / "evaluation.json", facts)
    return draft.artifact


def compare_models(
    workspace: Workspace,
    name: str,
    evaluations: Mapping[str, Artifact],
    baseline: str,
    config: EvaluateConfig,
    progress: Progress,
    beside: Mapping[str, Any] | None = None,
) -> Artifact:
    """Test every model against the baseline on the records that all of them answered.

    Args:
        workspace: Where the artifact goes.
        name: Its name.
        evaluations: What each model is called -> its evaluation.
        baseline: Which of them is the baseline.
        config: Resamples, confidence and so on.
        progress: Told that it begins.
        beside: Other facts to be kept with the comparison.

    Raises:
        DataError: The evaluations are not of the same test.
    """
    progress.stage(f"compare: {', '.join(evaluations)}")
    parents = {label: evaluation.digest for label, evaluation in evaluations.items()}
    key = digest_of({"parents": parents, "baseline": baseline, "config": config.plain(), "beside": beside})
    if found := workspace.with_key("comparison", key):
        progress.note(f"{found.path.name} is there already")
        return found
    dataset = workspace.with_digest(next(iter(evaluations.values())).manifest["parents"]["dataset"])
    with workspace.create("comparison", name, key=key, config=config.plain(), parents=parents) as draft:
        paths = {label: evaluation.path / "predictions.parquet" for label, evaluation in evaluations.items()}
        tasks = {evaluation.json("evaluation.json")["task"] for evaluation in evaluations.values()}
        if len(tasks) > 1:
            raise UsageError(
                f"the models do different things: {', '.join(sorted(tasks))}", where=", ".join(evaluations)
            )
        facts = compare_with_baseline(paths, baseline, config, _generator(dataset), tasks.pop())
        for model in facts["models"]:
            _add_records(model, dataset)
        write_json(draft.folder / "comparison.json", {**facts, **(beside or {})})
    return draft.artifact


def _generator(dataset: Artifact) -> np.random.Generator:
    """The resampling of a dataset: the same answers on the same test split have the same intervals every time."""
    return np.random.default_rng(int(dataset.digest[:16], 16))


def _samples(predictor: Predictor, dataset: Artifact) -> list[dict[str, str]]:
    """Beginnings of test texts as the model goes on with them, beside how they went on."""
    texts = next(iterate_split(dataset, "test", ["text"], _SAMPLES)).column("text").to_pylist()
    prompts = [text[: max(1, min(_PROMPT, len(text) // 2))] for text in texts]
    continuations = predictor.write(prompts, _WRITING)
    return [
        {"prompt": prompt, "continuation": continuation, "true": text[len(prompt) :]}
        for prompt, continuation, text in zip(prompts, continuations, texts, strict=True)
    ]


def _add_records(facts: dict[str, Any], dataset: Artifact) -> None:
    """Put the text or picture beside the id of every example, so that an evaluation can be read alone."""
    examples = [example for group in facts.values() if isinstance(group, list) for example in group]
    examples = [example for example in examples if isinstance(example, dict) and "id" in example]
    column = "image" if "image" in dataset.config["columns"] else "text"
    table = read_split(dataset, "test", ["id", column])
    wanted = {example["id"] for example in examples}
    rows = zip(table.column("id").to_pylist(), table.column(column).to_pylist(), strict=True)
    found = {id_: content for id_, content in rows if id_ in wanted}
    for example in examples:
        content = found[example["id"]]
        example[column] = content if column == "text" else png_address(content, image_size(dataset))
