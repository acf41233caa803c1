"""Models compared on the same records, from their predictions files, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from danlu.core.errors import DataError, UsageError, nearest
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.evaluation import probability_metrics
from danlu.evaluate.intervals import observed, resample
from danlu.evaluate.metrics import MACRO_METRICS, Ints, Statistic, together
from danlu.evaluate.predictions import Predictions, read_predictions
from danlu.evaluate.significance import PairedCells, bootstrap_difference, holm, mcnemar, permutation_test

__all__ = ["compare_predictions", "compare_with_baseline"]


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
        for name, difference in _differences(MACRO_METRICS, cells.count_M, cells.statistic(), config, rng).items()
    }
    a_metrics, b_metrics = probability_metrics(a), probability_metrics(b)
    paired = together({f"a.{k}": v for k, v in a_metrics.items()} | {f"b.{k}": v for k, v in b_metrics.items()})
    metrics |= _differences(tuple(a_metrics), np.ones_like(a.label_B), paired, config, rng)
    only_a, only_b = np.flatnonzero(a_right_B & ~b_right_B), np.flatnonzero(b_right_B & ~a_right_B)
    p_value, method = mcnemar(len(only_a), len(only_b))
    return {
        "a": names[0],
        "b": names[1],
        "n": len(a.label_B),
        "confidence": config.confidence,
        "n_resamples": config.bootstrap,
        "n_permutations": config.permutations,
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


def compare_with_baseline(
    paths: Mapping[str, Path], baseline: str, config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """Every model against the baseline, with Holm's correction for their number.

    Args:
        paths: The predictions file of each model by its name, the baseline's among them.
        baseline: Which of them is the baseline.
        config: Resamples, confidence, examples.
        rng: The source of all randomness.

    Returns:
        ``baseline``, and ``models``: the comparison of each with the baseline as B, with a corrected ``p_holm`` beside
        the p-value of macro F1 (permutation) and of McNemar's test, and ``verdict``: ``better``, ``worse`` or ``no
        difference shown``, by the corrected macro F1.

    Raises:
        UsageError: The baseline is not among the models, or a file is missing.
        CorruptError: A file is not a predictions file.
        DataError: They are not predictions of the same test.
    """
    if baseline not in paths:
        raise UsageError(f"no predictions of the baseline {baseline!r}", advice=nearest(baseline, paths))
    models = [
        compare_predictions(path, paths[baseline], (name, baseline), config, rng)
        for name, path in paths.items()
        if name != baseline
    ]
    f1_corrected = holm([model["metrics"]["macro_f1"]["p_permutation"] for model in models])
    mcnemar_corrected = holm([model["mcnemar"]["p"] for model in models])
    for model, f1_p, mcnemar_p in zip(models, f1_corrected, mcnemar_corrected, strict=True):
        macro_f1 = model["metrics"]["macro_f1"]
        macro_f1["p_holm"] = f1_p
        model["mcnemar"]["p_holm"] = mcnemar_p
        shown = f1_p < 1 - config.confidence
        model["verdict"] = ("better" if macro_f1["difference"] > 0 else "worse") if shown else "no difference shown"
    return {"baseline": baseline, "models": models}


def _same_test(a: Predictions, b: Predictions, names: tuple[str, str]) -> tuple[Predictions, Predictions]:
    """Both with their records in the order of A."""

    def differ(what: str) -> DataError:
        return DataError(
            f"these are not predictions of the same test: {what}",
            where=f"{names[0]} and {names[1]}",
            advice="evaluate both models on the same split of the same data, then compare again",
        )

    if a.class_names != b.class_names:
        raise differ("their classes differ")
    if len(a.ids) != len(b.ids):
        raise differ(f"{len(a.ids)} records and {len(b.ids)}")
    if pc.count_distinct(a.ids).as_py() != len(a.ids):
        raise differ(f"an id of {names[0]} occurs twice")
    place = pc.index_in(a.ids, value_set=b.ids)
    if place.null_count:
        raise differ(f"record {a.ids.filter(pc.is_null(place))[0].as_py()} is missing from {names[1]}")
    b = b.take(place.cast(pa.int64()).to_numpy())
    if not np.array_equal(a.label_B, b.label_B):
        raise differ(f"record {a.ids[int((a.label_B != b.label_B).argmax())].as_py()} has two labels")
    return a, b


def _differences(
    metric_names: tuple[str, ...], count_M: Ints, statistic: Statistic, config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, dict[str, float | None]]:
    value, draws = observed(count_M, statistic), resample(count_M, statistic, config.bootstrap, rng)
    differences = {}
    for name in metric_names:
        a, b = f"a.{name}", f"b.{name}"
        differences[name] = bootstrap_difference(
            float(value[a]), float(value[b]), draws[a], draws[b], config.confidence
        )
    return differences


def _surest(wrong_model: Predictions, rows: Ints, n_examples: int) -> list[dict[str, Any]]:
    return wrong_model.examples(rows[np.argsort(-wrong_model.confidence[rows], kind="stable")[:n_examples]])
