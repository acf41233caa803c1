"""A dataset with a few training records of each class, and the whole test split: how much do examples buy?"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from danlu.core.artifact import Artifact
from danlu.core.errors import DataError
from danlu.core.files import digest_of, write_json
from danlu.core.workspace import Workspace

__all__ = ["few_shot_dataset"]


def few_shot_dataset(workspace: Workspace, dataset: Artifact, n_shots: int, seed: int) -> Artifact:
    """Draw a smaller dataset, or find the one that was drawn before.

    Args:
        workspace: Where the artifact goes.
        dataset: What to draw from.
        n_shots: Records of each class, in the training split and, as far as there are as many, in the validation split.
        seed: Another one draws others.

    Raises:
        DataError: A class has not as many training records.
    """
    config = {**dataset.config, "few_shot": {"n_shots": n_shots, "seed": seed}}
    parents = {"dataset": dataset.digest}
    key = digest_of({"config": config, "parents": parents})
    if found := workspace.with_key("dataset", key):
        return found
    with workspace.create("dataset", f"{dataset.name}-{n_shots}", key=key, config=config, parents=parents) as draft:
        summary = dataset.json("summary.json")
        for split in ("train", "valid"):
            table = pq.read_table(dataset.path / f"{split}.parquet")
            drawn = _draw(table, n_shots, seed)
            counts = dict(Counter(drawn["label"].to_pylist()))
            if split == "train" and (few := [name for name, count in counts.items() if count < n_shots]):
                what = f"the class {few[0]!r} has {counts[few[0]]} training records, and {n_shots} are wanted"
                raise DataError(what, where="evaluate.few_shot", advice="ask for fewer, or bring more")
            pq.write_table(drawn, draft.folder / f"{split}.parquet", compression="zstd")
            summary["splits"][split] = {"n": drawn.num_rows, "labels": counts}
        shutil.copyfile(dataset.path / "test.parquet", draft.folder / "test.parquet")
        write_json(draft.folder / "summary.json", summary)
    return draft.artifact


def _draw(table: pa.Table, n_shots: int, seed: int) -> pa.Table:
    """The records of each class whose id has the lowest digest."""
    order = np.argsort([hashlib.sha256(f"{seed} {number}".encode()).digest() for number in table["id"].to_pylist()])
    labels = np.array(table["label"].to_pylist(), dtype=object)[order]
    rank = np.zeros(len(order), np.int64)
    for label in set(labels.tolist()):
        of_class = np.flatnonzero(labels == label)
        rank[of_class] = np.arange(len(of_class))
    return table.take(pa.array(np.sort(order[rank < n_shots])))
