"""Models compared on the same records, from their predictions files, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.errors import UsageError, nearest
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.evaluation import evaluate_predictions, probability_metrics
from danlu.evaluate.metrics import MACRO_METRICS, Ints, together
from danlu.evaluate.pairing import different_test, match_records, paired_facts
from danlu.evaluate.predictions import Predictions, read_predictions
from danlu.evaluate.significance import PairedCells, bootstrap_differences, holm, mcnemar, permutation_test
from danlu.evaluate.tasks import TASKS, Task

__all__ = ["CLASSIFICATION", "compare_predictions", "compare_with_baseline"]


def compare_predictions(
    a_path: Path, b_path: Path, names: tuple[str, str], config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """Model A against model B on the records that both have predicted.

    Args:
        a_path: Predictions of A.
        b_path: Predictions of B; the records may be in another order.
        names: What to call A and B.
        config: Resamples, confidence, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``a``, ``b``, ``n``, ``confidence``, ``n_resamples``, ``n_permutations``; ``metrics``, each with ``a``, ``b``,
        ``difference`` (A - B), ``low``, ``high``, ``p_bootstrap`` and, for class metrics, ``p_permutation``;
        ``mcnemar``; and records that ``only_a_right`` or ``only_b_right``, the surest mistakes first.

    Raises:
        UsageError: A file is missing.
        CorruptError: A file is not a predictions file.
        DataError: They are not predictions of the same test: ids, labels or classes differ.
    """
    a, b = _same_test(read_predictions(a_path), read_predictions(b_path), names)
    a_right_B, b_right_B = a.predicted == a.label_B, b.predicted == b.label_B
    cells = PairedCells.count(a.label_B, a.predicted, b.predicted, a.n_classes)
    p_values = permutation_test(cells, config.permutations, rng)
    metrics = {
        name: {**difference, "p_permutation": p_values[name]}
        for name, difference in bootstrap_differences(
            MACRO_METRICS, cells.count_M, cells.statistic(), config, rng
        ).items()
    }
    a_metrics, b_metrics = probability_metrics(a), probability_metrics(b)
    paired = together({f"a.{k}": v for k, v in a_metrics.items()} | {f"b.{k}": v for k, v in b_metrics.items()})
    metrics |= bootstrap_differences(tuple(a_metrics), np.ones_like(a.label_B), paired, config, rng)
    only_a, only_b = np.flatnonzero(a_right_B & ~b_right_B), np.flatnonzero(b_right_B & ~a_right_B)
    p_value, method = mcnemar(len(only_a), len(only_b))
    return {
        **paired_facts(names, len(a.label_B), config),
        "metrics": metrics,
        "mcnemar": {
            "p": p_value,
            "method": method,
            "n_both_right": int((a_right_B & b_right_B).sum()),
            "n_only_a_right": len(only_a),
            "n_only_b_right": len(only_b),
            "n_both_wrong": int((~a_right_B & ~b_right_B).sum()),
        },
        "only_a_right": _surest(b, only_a, config.examples),
        "only_b_right": _surest(a, only_b, config.examples),
    }


CLASSIFICATION = Task(
    primary="macro_f1", higher_is_better=True, evaluate=evaluate_predictions, compare=compare_predictions
)


def compare_with_baseline(
    paths: Mapping[str, Path],
    baseline: str,
    config: EvaluateConfig,
    rng: np.random.Generator,
    task: str = "text-classification",
) -> dict[str, Any]:
    """Every model against the baseline, with Holm's correction for their number.

    Args:
        paths: The predictions file of each model by its name, the baseline's among them.
        baseline: Which of them is the baseline.
        config: Resamples, confidence, examples.
        rng: The source of all randomness.
        task: What the models do, a row of :data:`danlu.evaluate.tasks.TASKS`.

    Returns:
        ``baseline``; ``primary``, the metric that decides, and ``higher_is_better``; and ``models``: the comparison of
        each with the baseline as B, with a corrected ``p_holm`` beside the p-value of the primary metric (permutation)
        and of McNemar's test where there is one, and ``verdict``: ``better``, ``worse`` or ``no difference shown``, by
        the corrected primary metric.

    Raises:
        UsageError: The baseline is not among the models, the task is unknown, or a file is missing.
        CorruptError: A file is not a predictions file.
        DataError: They are not predictions of the same test.
    """
    if baseline not in paths:
        raise UsageError(f"no predictions of the baseline {baseline!r}", advice=nearest(baseline, paths))
    judged: Task = TASKS[task]
    models = [
        judged.compare(path, paths[baseline], (name, baseline), config, rng)
        for name, path in paths.items()
        if name != baseline
    ]
    primary = [model["metrics"][judged.primary] for model in models]
    _correct(primary, "p_permutation")
    _correct([model["mcnemar"] for model in models if "mcnemar" in model], "p")
    for model, found in zip(models, primary, strict=True):
        model["verdict"] = judged.verdict(found["difference"], found["p_holm"], 1 - config.confidence)
    return {
        "baseline": baseline,
        "primary": judged.primary,
        "higher_is_better": judged.higher_is_better,
        "models": models,
    }


def _correct(tests: list[dict[str, Any]], p: str) -> None:
    """Put Holm's corrected p-value beside the one that stands under `p`."""
    for test, corrected in zip(tests, holm([test[p] for test in tests]), strict=True):
        test["p_holm"] = corrected


def _same_test(a: Predictions, b: Predictions, names: tuple[str, str]) -> tuple[Predictions, Predictions]:
    """Both with their records in the order of A."""
    if a.class_names != b.class_names:
        raise different_test("their classes differ", names)
    b = b.take(match_records(a.ids, b.ids, names))
    if not np.array_equal(a.label_B, b.label_B):
        record = a.ids[int((a.label_B != b.label_B).argmax())].as_py()
        raise different_test(f"record {record} has two labels", names)
    return a, b


def _surest(wrong_model: Predictions, rows: Ints, n_examples: int) -> list[dict[str, Any]]:
    return wrong_model.examples(rows[np.argsort(-wrong_model.confidence[rows], kind="stable")[:n_examples]])
