"""The steps that texts and pictures share: given splits, label conflicts, repeats, splits by hash.

``groups`` say which records belong together: int64 over all records, the number of the first record of each one's
group (the same content, or a cluster of near-duplicates).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.data.labels import OnConflict, label_conflicts
from danlu.data.records import Records
from danlu.data.split import SPLITS, SplitConfig, given_splits, hash_splits

__all__ = ["ProgressCall", "assign_splits", "drop_conflicts", "drop_repeated", "given_rank"]

ProgressCall = Callable[[str, int], None]
"""Told each step and the number of records that it has seen."""

_Rows = NDArray[np.int64]


def given_rank(records: Records, split: SplitConfig) -> _Rows:
    """The split of each record where the data gives it, else 0 for all: whoever ranks higher is kept of duplicates.

    Raises:
        DataError: There is no such column, or a value of it names no split.
    """
    rank = np.zeros(len(records), dtype=np.int64)
    if split.column is None:
        return rank
    if split.column not in records.table.schema.names:
        known = ", ".join(records.user_columns)
        raise DataError(f"there is no column {split.column!r} to split by", advice=f"columns here: {known}")
    kept = records.kept()
    values = records.table.column(split.column).take(pa.array(kept)).cast(pa.string()).to_pylist()
    rank[kept] = given_splits(values, records.sources(kept), split.column)
    return rank


def drop_conflicts(records: Records, groups: _Rows, policy: OnConflict) -> None:
    """Drops records of one group that bear different labels, as the policy says."""
    kept = records.kept()
    conflicts = label_conflicts(groups[kept], records.labels(kept), policy)
    at = np.flatnonzero(conflicts.drop)
    records.drop(kept[at], "label_conflict", [conflicts.seen[row] for row in at.tolist()])


def drop_repeated(
    records: Records,
    groups: _Rows,
    rank: _Rows,
    reason: str,
    similarity: Callable[[_Rows, _Rows], NDArray[np.float64]] | None = None,
) -> None:
    """Of the records of one group and label keeps the first of the highest rank; says what the others repeat.

    The same content with another label is no repeat: what happens to it is for ``conflicts`` to say.

    Args:
        records: All records.
        groups: Which belong together.
        rank: From :func:`given_rank`.
        reason: What the others are dropped for.
        similarity: Jaccard similarity of each of some records with what it repeats; None where they are the same.
    """
    kept = records.kept()
    keys = groups[kept]
    if records.has_labels:
        _, label = np.unique(np.array(records.labels(kept)), return_inverse=True)
        keys = keys * (label.max(initial=0) + 1) + label
    order = np.lexsort((kept, -rank[kept], keys))
    first = np.diff(keys[order], prepend=-1) != 0
    leader = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
    dropped, original = kept[order[~first]], kept[leader[~first]]
    in_order = np.argsort(dropped)
    dropped, original = dropped[in_order], original[in_order]
    details = [f"repeats {source}" for source in records.sources(original)]
    if similarity is not None:
        found = similarity(dropped, original).tolist()
        details = [f"{detail}, Jaccard {jaccard:.2f}" for detail, jaccard in zip(details, found, strict=True)]
    records.drop(dropped, reason, details)


def assign_splits(records: Records, groups: _Rows, rank: _Rows, split: SplitConfig) -> _Rows:
    """The split of each record: as the data says, else by the hash of its group's first content.

    Where a column gives the splits, those that it never names are taken from train.

    Returns:
        int64 [N]: indices into ``SPLITS``; 0 for records no longer kept.
    """
    if split.column is not None:
        named = {SPLITS[number]: 0.0 for number in np.unique(rank).tolist() if number}
        split = split.model_copy(update=named)
    kept = records.kept()
    leaders, back = np.unique(groups[kept], return_inverse=True)
    drawn = hash_splits(records.digests(leaders), split)[back]
    splits = np.zeros(len(records), dtype=np.int64)
    splits[kept] = np.where(rank[kept] > 0, rank[kept], drawn)
    return splits
