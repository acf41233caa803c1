"""From raw texts to train, valid and test: clean, resolve conflicts, deduplicate, split, prove that nothing leaks.

Every record that comes in goes out into exactly one of four parquet files, the dropped ones with a reason. What is
kept and where it goes depends on the records and their order alone, not on batch sizes or on where the work is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig, clean_batch
from danlu.data.engine import LOCAL, Engine
from danlu.data.leak import find_leaks
from danlu.data.near import NearPairs, band_key_batch, bands_for, clusters, near_pairs
from danlu.data.records import Records
from danlu.data.shingles import pair_jaccard, slabs
from danlu.data.split import SPLITS, SplitConfig
from danlu.data.steps import ProgressCall, assign_splits, drop_conflicts, drop_repeated, given_rank
from danlu.data.summary import check_trainable, leak_proof, summarize, text_findings, text_lengths
from danlu.data.translations import choose_translations

__all__ = ["CleanConfig", "SplitConfig", "prepare"]

_LEAK_FLOOR = 0.5
"""Similarities below this are not told apart in the leak proof."""


def prepare(
    batches: Iterable[pa.RecordBatch],
    clean: CleanConfig,
    split: SplitConfig,
    folder: Path,
    *,
    engine: Engine = LOCAL,
    progress: ProgressCall | None = None,
) -> dict[str, Any]:
    """Cleans, deduplicates and splits records, and writes them as four parquet files.

    ``train.parquet``, ``valid.parquet`` and ``test.parquet`` hold ``id`` (of the text's key), ``source``, ``text``,
    ``target`` and ``label`` where there are any, and any other columns; ``dropped.parquet`` also ``reason`` and
    ``detail``. Personal data is masked in all four, unless it is kept.

    Args:
        batches: Records with the columns of ``clean_batch``, the same ones in every batch.
        clean: What is cleaned and dropped.
        split: How the rest is parted.
        folder: Where the files go; made where missing.
        engine: Where the work that goes record by record is done.
        progress: Told each step and the number of records that it has seen.

    Returns:
        The summary, as plain JSON values.

    Raises:
        DataError: There are no records, or what is left of them cannot train.
    """
    report = progress or (lambda _step, _n: None)
    folder.mkdir(parents=True, exist_ok=True)
    records = _clean(batches, clean, engine, report)
    text_groups = records.same()
    rank = given_rank(records, split)
    if records.has_labels:
        with records.step("label_conflicts", report):
            drop_conflicts(records, text_groups, clean.conflicts)
    if records.has_targets:
        with records.step("other_translations", report):
            _keep_one_translation(records, text_groups)
    with records.step("exact_duplicates", report):
        if clean.dedup != "none":
            drop_repeated(records, text_groups, rank, "exact_duplicate")
    with records.step("near_duplicates", report):
        cluster_groups, near = _cluster(records, text_groups, clean, engine)
        if records.has_labels and clean.conflicts_within == "near":
            drop_conflicts(records, cluster_groups, clean.conflicts)
        if clean.dedup == "near":
            likeness = partial(pair_jaccard, records.contents, n=clean.near_ngram)
            drop_repeated(records, cluster_groups, rank, "near_duplicate", likeness)
    with records.step("split", report):
        splits = assign_splits(records, cluster_groups, rank, split)
    with records.step("leak_check", report):
        proof = _stop_leaks(records, text_groups, splits, clean)
    with records.step("write", report):
        records.write(folder, splits)
    check_trainable(records, splits, split)
    summary = summarize(records, splits, text_lengths(records)) | text_findings(records)
    return summary | {"near_duplicates": near, "leak": proof}


def _clean(batches: Iterable[pa.RecordBatch], clean: CleanConfig, engine: Engine, report: ProgressCall) -> Records:
    cleaned: list[pa.RecordBatch] = []
    records = Records("text")
    n_seen = 0
    with records.step("clean", report):
        for batch in engine.map(partial(clean_batch, config=clean), batches):
            cleaned.append(batch)
            n_seen += len(batch)
            report("clean", n_seen)
        if n_seen == 0:
            raise DataError("there are no records", advice="check data.source: its files are empty, or hold no rows")
        records.fill(cleaned)
    return records


def _keep_one_translation(records: Records, text_groups: np.ndarray) -> None:
    """Drops what translates its text otherwise than most do."""
    kept = records.kept()
    found = choose_translations(text_groups[kept], records.same("_target")[kept])
    at = np.flatnonzero(found.drop)
    sources = records.sources(kept[found.chosen[at]])
    votes = zip(sources, found.n_votes[at].tolist(), found.n_texts[at].tolist(), strict=True)
    details = [f"{n} of {n_texts} have the one of {source}" for source, n, n_texts in votes]
    records.drop(kept[at], "other_translation", details)


def _cluster(
    records: Records, text_groups: np.ndarray, clean: CleanConfig, engine: Engine
) -> tuple[np.ndarray, dict[str, Any]]:
    """The cluster of near-duplicates that each kept record is in, named by its first record; -1 for the others."""
    kept = records.kept()
    _, first, group = np.unique(text_groups[kept], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))  # texts in the order of their first records
    rows, text = kept[np.sort(first)], place[group]
    texts = records.contents.take(pa.array(rows))
    bands, per_band = bands_for(clean.near_threshold, clean.near_permutations)
    keys_of = partial(band_key_batch, n=clean.near_ngram, bands=bands, rows=per_band)
    parts = (texts.slice(begin, end - begin).combine_chunks() for begin, end in slabs(texts))
    batches = engine.map(keys_of, (pa.RecordBatch.from_arrays([part], ["text"]) for part in parts))
    words = [batch.column("keys").flatten().to_numpy() for batch in batches]
    keys = np.concatenate([np.zeros(0, np.uint64), *words]).reshape(-1, bands)
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


def _stop_leaks(records: Records, text_groups: np.ndarray, splits: np.ndarray, clean: CleanConfig) -> dict[str, Any]:
    """Drops from the lower split what is too like a text of a higher one, and states what remains."""
    kept = records.kept()
    # One record a text and split: the same text twice in train is no other pair to compare.
    _, first = np.unique(text_groups[kept] * len(SPLITS) + splits[kept], return_index=True)
    rows = np.sort(kept[first])
    threshold = clean.near_threshold
    floor = min(_LEAK_FLOOR, threshold)
    leaks = find_leaks(records.contents.take(pa.array(rows)), splits[rows], n=clean.near_ngram, floor=floor)
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
