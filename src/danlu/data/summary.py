"""What a data stage states about its records, as plain JSON values, and whether they can train at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.data.pii import count_kinds
from danlu.data.records import Records
from danlu.data.split import SPLITS, SplitConfig

__all__ = ["Describe", "check_trainable", "leak_proof", "summarize", "take_speeds", "text_findings", "text_lengths"]

Describe = Callable[[NDArray[np.int64]], dict[str, Any]]
"""The numbers of some records to what there is to say of them, as plain JSON values."""

_QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_BINS = 40


def check_trainable(records: Records, splits: NDArray[np.int64], config: SplitConfig) -> None:
    """Refuses data that cannot train.

    Raises:
        DataError: Nothing is left, a split is empty, there is one class only, or a class is not in train.
    """
    kept = records.kept()
    why = ", ".join(f"{reason} {n}" for reason, n in records.reasons.items())
    if len(kept) == 0:
        raise DataError(
            f"cleaning left none of the {len(records)} records ({why})",
            where="data.clean",
            advice="dropped.parquet has each with its reason; loosen data.clean, or check data.columns",
        )
    wanted = {"train": True, "valid": config.valid > 0, "test": config.test > 0}
    for rank, name in enumerate(SPLITS):
        if not np.any(splits[kept] == rank) and (wanted[name] if config.column is None else name == "train"):
            raise DataError(
                f"the {name} split is empty: {len(kept)} records were left to split",
                where="data.split",
                advice="use more data, other shares in data.split, or another data.split.seed",
            )
    if not records.has_labels:
        return
    labels = records.labels(kept)
    in_train = {labels[at] for at in np.flatnonzero(splits[kept] == 0).tolist()}
    if len(set(labels)) == 1:
        raise DataError(
            f"every record left has the label {labels[0]!r}",
            where="data.columns.label",
            advice=f"classification needs two labels or more; dropped were: {why or 'none'}",
        )
    lost = [row for row, label in zip(kept.tolist(), labels, strict=True) if label not in in_train]
    if lost:
        (label,), (source,) = records.labels(kept[kept == lost[0]]), records.sources(kept[kept == lost[0]])
        raise DataError(
            f"the label {label!r} is in {SPLITS[splits[lost[0]]]} and never in train",
            where=source,
            advice="add records with that label, mend it if it is a slip, or use another data.split.seed",
        )


def summarize(records: Records, splits: NDArray[np.int64], describe: Describe) -> dict[str, Any]:
    """Counts and speeds, as plain JSON values.

    Args:
        records: All records.
        splits: int64 [N]; the split of each.
        describe: What more there is to say of some records, those of one split.

    Returns:
        ``n_read n_kept n_dropped``, ``dropped`` by reason, ``steps``, and for each of ``splits`` its number of records,
        its labels, and what ``describe`` says.
    """
    kept = records.kept()
    summary: dict[str, Any] = {
        "n_read": len(records),
        "n_kept": len(kept),
        "n_dropped": len(records) - len(kept),
        "dropped": records.reasons,
        "steps": records.steps,
        "splits": {},
    }
    for rank, name in enumerate(SPLITS):
        rows = kept[splits[kept] == rank]
        labels = dict(sorted(Counter(records.labels(rows)).items())) if records.has_labels else {}
        summary["splits"][name] = {"n": len(rows), "labels": labels, **describe(rows)}
    return summary


def take_speeds(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Takes out of a summary how long each step took and how fast it was: these differ from run to run.

    Returns:
        ``step seconds megabytes_per_second`` of each.
    """
    names = ("seconds", "megabytes_per_second")
    return [{"step": step["step"], **{name: step.pop(name) for name in names}} for step in summary["steps"]]


def text_lengths(records: Records) -> Describe:
    """What describes some of the texts by their lengths in characters, in the bins of the histogram of all."""
    kept = records.kept()
    n_chars = np.zeros(len(records), dtype=np.int64)
    n_chars[kept] = pc.utf8_length(records.contents.take(pa.array(kept))).to_numpy()
    top = max(float(np.quantile(n_chars[kept], 0.995)), 1.0)
    edges = np.unique(np.linspace(0, top, _BINS + 1).round().astype(np.int64))
    edges[-1] = max(edges[-1], n_chars[kept].max())

    def describe(rows: NDArray[np.int64]) -> dict[str, Any]:
        lengths = n_chars[rows]
        quantiles = np.percentile(lengths, _QUANTILES).tolist() if len(rows) else []
        return {
            "n_chars": int(lengths.sum()),
            "quantiles": {str(q): value for q, value in zip(_QUANTILES, quantiles, strict=False)},
            "histogram": {"edges": edges.tolist(), "counts": np.histogram(lengths, edges)[0].tolist()},
        }

    return describe


def text_findings(records: Records) -> dict[str, Any]:
    """``repaired``, the number of texts so; ``pii``, how often each kind of personal data was found."""
    return {
        "repaired": int(pc.sum(records.table.column("_repaired")).as_py() or 0),
        "pii": count_kinds(records.table.column("_pii")),
    }


def leak_proof(
    best: NDArray[np.float64], n_texts: list[int], n_compared: int, n_moved: int, *, floor: float, threshold: float
) -> dict[str, Any]:
    """What the exact search for leaks has proved.

    Args:
        best: float64 [H]; for each held-out text its greatest similarity to a text of a lower split, 0 below the
            floor.
        n_texts: Distinct texts in each of ``SPLITS``.
        n_compared: Pairs whose similarity was computed one by one.
        n_moved: Records dropped for leaking.
        floor: Similarities below it are not told apart.
        threshold: Similarity from which it is a leak.
    """
    n_train, n_valid, n_test = n_texts
    edges = [0.0, *np.linspace(floor, 1.0, 11).round(6).tolist()]
    largest = float(best.max(initial=0.0))
    return {
        "threshold": threshold,
        "n_pairs": n_test * (n_train + n_valid) + n_valid * n_train,
        "n_compared": n_compared,
        "n_moved": n_moved,
        "n_leaks": int((best >= threshold).sum()),
        "floor": floor,
        "largest": largest if largest > 0 else None,
        "histogram": {"edges": edges, "counts": np.histogram(best, edges)[0].tolist()},
    }
