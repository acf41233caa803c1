"""From raw records to train, valid and test: clean, resolve conflicts, deduplicate, split, prove that nothing leaks.

Every record that comes in goes out into exactly one of four parquet files, the dropped ones with a reason. What is
kept and where it goes depends on the records and their order alone, not on batch sizes or the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig, clean_batch
from danlu.data.labels import label_conflicts
from danlu.data.leak import find_leaks
from danlu.data.near import NearPairs, band_keys, bands_for, clusters, near_pairs
from danlu.data.pool import ordered_map
from danlu.data.records import Records
from danlu.data.shingles import pair_jaccard, slabs
from danlu.data.split import SPLITS, SplitConfig, given_splits, hash_splits
from danlu.data.summary import check_trainable, leak_proof, summarize

__all__ = ["CleanConfig", "SplitConfig", "prepare"]

_LEAK_FLOOR = 0.5
"""Similarities below this are not told apart in the leak proof."""

ProgressCall = Callable[[str, int], None]


def prepare(
    batches: Iterable[pa.RecordBatch],
    clean: CleanConfig,
    split: SplitConfig,
    folder: Path,
    *,
    workers: int = 1,
    progress: ProgressCall | None = None,
) -> dict[str, Any]:
    """Cleans, deduplicates and splits records, and writes them as four parquet files.

    ``train.parquet``, ``valid.parquet`` and ``test.parquet`` hold ``id`` (of the text's key), ``source``, ``text``,
    ``label`` where there is one, and any other columns; ``dropped.parquet`` also ``reason`` and ``detail``. Personal
    data is masked in all four, unless it is kept.

    Args:
        batches: Records with the columns of ``clean_batch``, the same ones in every batch.
        clean: What is cleaned and dropped.
        split: How the rest is parted.
        folder: Where the files go; made where missing.
        workers: Processes for the work that goes batch by batch; 1 is this one alone.
        progress: Told each step and the number of records that it has seen.

    Returns:
        The summary, as plain JSON values.

    Raises:
        DataError: There are no records, or what is left of them cannot train.
    """
    report = progress or (lambda _step, _n: None)
    folder.mkdir(parents=True, exist_ok=True)
    records = _clean(batches, clean, workers, report)
    n_read = len(records)
    text_groups = records.same_text()
    rank = _given_rank(records, split)
    if records.has_labels:
        with records.step("label_conflicts", report):
            _resolve(records, text_groups, clean)
    with records.step("exact_duplicates", report):
        if clean.dedup != "none":
            _drop_repeated(records, text_groups, rank, "exact_duplicate", None)
    with records.step("near_duplicates", report):
        cluster_groups, near = _cluster(records, text_groups, clean, workers)
        if records.has_labels and clean.conflicts_within == "near":
            _resolve(records, cluster_groups, clean)
        if clean.dedup == "near":
            _drop_repeated(records, cluster_groups, rank, "near_duplicate", clean.near_ngram)
    with records.step("split", report):
        splits = rank if split.column else _split(records, cluster_groups, split)
    with records.step("leak_check", report):
        proof = _stop_leaks(records, text_groups, splits, clean)
    with records.step("write", report):
        records.write(folder, splits)
    check_trainable(records, splits, split)
    return summarize(records, splits, n_read) | {"near_duplicates": near, "leak": proof}


def _clean(batches: Iterable[pa.RecordBatch], clean: CleanConfig, workers: int, report: ProgressCall) -> Records:
    cleaned: list[pa.RecordBatch] = []
    records = Records()
    n_seen = 0
    with records.step("clean", report):
        for batch in ordered_map(partial(clean_batch, config=clean), batches, workers):
            cleaned.append(batch)
            n_seen += len(batch)
            report("clean", n_seen)
        if n_seen == 0:
            raise DataError("there are no records", advice="check data.source: its files are empty, or hold no rows")
        records.fill(cleaned)
    return records


def _given_rank(records: Records, split: SplitConfig) -> np.ndarray:
    """The split of each record where the data gives it, else 0 for all: whoever ranks higher is kept of duplicates."""
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


def _resolve(records: Records, groups: np.ndarray, clean: CleanConfig) -> None:
    kept = records.kept()
    conflicts = label_conflicts(groups[kept], records.labels(kept), clean.conflicts)
    at = np.flatnonzero(conflicts.drop)
    records.drop(kept[at], "label_conflict", [conflicts.seen[row] for row in at.tolist()])


def _drop_repeated(records: Records, groups: np.ndarray, rank: np.ndarray, reason: str, ngram: int | None) -> None:
    """Of the records of one group and label keeps the first of the highest rank; says what the others repeat.

    The same text with another label is no duplicate: what happens to it is for ``conflicts`` to say.
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
    if ngram is not None:
        similarity = pair_jaccard(records.texts, dropped, original, ngram)
        details = [f"{detail}, Jaccard {j:.2f}" for detail, j in zip(details, similarity.tolist(), strict=True)]
    records.drop(dropped, reason, details)


def _cluster(
    records: Records, text_groups: np.ndarray, clean: CleanConfig, workers: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The cluster of near-duplicates that each kept record is in, named by its first record; -1 for the others."""
    kept = records.kept()
    _, first, group = np.unique(text_groups[kept], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))  # texts in the order of their first records
    rows, text = kept[np.sort(first)], place[group]
    texts = records.texts.take(pa.array(rows))
    bands, per_band = bands_for(clean.near_threshold, clean.near_permutations)
    keys_of = partial(band_keys, n=clean.near_ngram, bands=bands, rows=per_band)
    parts = (texts.slice(begin, end - begin).combine_chunks() for begin, end in slabs(texts))
    keys = np.concatenate([np.zeros((0, bands), np.uint64), *ordered_map(keys_of, parts, workers)])
    pairs: NearPairs = near_pairs(texts, keys, n=clean.near_ngram, threshold=clean.near_threshold)
    cluster = clusters(len(rows), pairs.first, pairs.second)
    groups = np.full(len(records), -1, dtype=np.int64)
    groups[kept] = rows[cluster[text]]
    sizes = np.bincount(cluster, minlength=1)
    return groups, {
        "threshold": clean.near_threshold,
        "ngram": clean.near_ngram,
        "permutations": clean.near_permutations,
        "bands": bands,
        "rows_per_band": per_band,
        "n_candidates": pairs.n_candidates,
        "n_pairs": len(pairs.first),
        "n_clusters": int((sizes > 1).sum()),
        "largest_cluster": int(sizes.max()),
    }


def _split(records: Records, cluster_groups: np.ndarray, split: SplitConfig) -> np.ndarray:
    kept = records.kept()
    leaders, back = np.unique(cluster_groups[kept], return_inverse=True)
    splits = np.zeros(len(records), dtype=np.int64)
    splits[kept] = hash_splits(records.digests(leaders), split)[back]
    return splits


def _stop_leaks(records: Records, text_groups: np.ndarray, splits: np.ndarray, clean: CleanConfig) -> dict[str, Any]:
    """Drops from the lower split what is too like a text of a higher one, and states what remains."""
    kept = records.kept()
    # One record a text and split: the same text twice in train is no other pair to compare.
    _, first = np.unique(text_groups[kept] * len(SPLITS) + splits[kept], return_index=True)
    rows = np.sort(kept[first])
    threshold = clean.near_threshold
    floor = min(_LEAK_FLOOR, threshold)
    leaks = find_leaks(records.texts.take(pa.array(rows)), splits[rows], n=clean.near_ngram, floor=floor)
    held_out, other = rows[leaks.held_out], rows[leaks.other]

    worst: dict[tuple[int, int], tuple[float, int]] = {}
    for at in np.flatnonzero(leaks.jaccard >= threshold).tolist():
        text = (int(text_groups[other[at]]), int(splits[other[at]]))
        worst[text] = max(worst.get(text, (0.0, 0)), (float(leaks.jaccard[at]), -int(held_out[at])))
    twins = [row for row in kept.tolist() if (int(text_groups[row]), int(splits[row])) in worst] if worst else []
    dropped = np.array(twins, dtype=np.int64)
    details = []
    for row in twins:
        similarity, minus_row = worst[int(text_groups[row]), int(splits[row])]
        source = records.sources(np.array([-minus_row]))[0]
        details.append(f"too like {source} in {SPLITS[splits[-minus_row]]}, Jaccard {similarity:.2f}")
    records.drop(dropped, "leak", details)

    remain = records.is_kept(held_out) & records.is_kept(other)
    best = np.zeros(len(records))
    np.maximum.at(best, held_out[remain], leaks.jaccard[remain])
    n_rows = np.bincount(splits[rows[records.is_kept(rows)]], minlength=len(SPLITS)).tolist()
    held_out_rows = rows[(splits[rows] > 0) & records.is_kept(rows)]
    return leak_proof(best[held_out_rows], n_rows, leaks.n_compared, len(dropped), floor=floor, threshold=threshold)
