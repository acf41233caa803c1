"""The datasets that feedback makes: the training records with corrections, and the gold set that it is judged by."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from danlu.core.artifact import Artifact, Draft
from danlu.core.files import digest_of, write_atomic, write_json
from danlu.core.workspace import Workspace
from danlu.data.leak import find_leaks
from danlu.data.records import Records
from danlu.data.split import SPLITS
from danlu.data.summary import leak_proof
from danlu.improve.feedback import writable
from danlu.improve.lessons import Lessons

__all__ = ["FEEDBACK", "base_rows", "corrected_dataset", "feedback_by_source", "gold_dataset"]

FEEDBACK = "feedback/"
"""What the source of a record begins with that was learnt from feedback; the feedback's id follows."""

_LEAK_FLOOR = 0.5
"""As in the data stage."""


def base_rows(dataset: Artifact, at_hand: set[str]) -> NDArray[np.int64]:
    """The training records that corrections are added to: all but those learnt from feedback that is judged anew.

    So a quota holds for all feedback there is and not once a round; and who is outvoted later is unlearnt.
    """
    return _lasting(pq.read_table(dataset.path / "train.parquet", columns=["source"]), at_hand)


def corrected_dataset(
    workspace: Workspace,
    dataset: Artifact,
    lessons: Lessons,
    feedback: Sequence[Mapping[str, Any]],
    at_hand: set[str],
    guards: Mapping[str, Any],
    gold: Artifact,
) -> Artifact:
    """Make the dataset, or find it.

    ``valid.parquet`` and ``test.parquet`` are those of the old one, byte for byte; ``dropped.parquet`` has every record
    of feedback that is not used, with its reason; ``feedback.jsonl`` all feedback as it was given.

    Args:
        workspace: Where the artifact goes.
        dataset: What the champion was trained on.
        lessons: What came of the guards.
        feedback: What went in: what counts,
        at_hand: and the ids of all there is, what it took the place of included.
        guards: How they were set.
        gold: What the new model will be judged by.
    """
    config = {**dataset.config, "feedback": dict(guards)}
    parents = {"dataset": dataset.digest, "feedback": digest_of(_plain(feedback)), "gold": gold.digest}
    key = digest_of({"config": config, "parents": parents})
    if found := workspace.with_key("dataset", key):
        return found
    train = pq.read_table(dataset.path / "train.parquet")
    train = train.take(pa.array(base_rows(dataset, at_hand)))
    dropped = pq.read_table(dataset.path / "dropped.parquet")
    dropped = dropped.take(pa.array(_lasting(dropped, at_hand)))
    corrected = np.zeros(train.num_rows, bool)
    corrected[list(lessons.corrected)] = True
    replaced = train.filter(pa.array(corrected))
    replaced = replaced.append_column("reason", pa.array(["corrected"] * replaced.num_rows, pa.string()))
    replaced = replaced.append_column(
        "detail", pa.array(["a labeller gave another answer"] * replaced.num_rows, pa.string())
    )
    taken = set(train.column("id").to_pylist()) | set(dropped.column("id").to_pylist())
    records, kept = lessons.records, lessons.records.kept()
    rest = np.setdiff1d(np.arange(len(records)), kept)
    used = _as_rows(records, kept, train.schema, taken)
    unused = _as_rows(records, rest, dropped.schema, taken)
    with workspace.create("dataset", dataset.name, key=key, config=config, parents=parents) as draft:
        for split in ("valid", "test"):
            shutil.copyfile(dataset.path / f"{split}.parquet", draft.folder / f"{split}.parquet")
        train = pa.concat_tables([train.filter(pa.array(~corrected)), used])
        pq.write_table(train, draft.folder / "train.parquet", compression="zstd")
        dropped = pa.concat_tables([dropped, replaced.select(dropped.schema.names).cast(dropped.schema), unused])
        pq.write_table(dropped, draft.folder / "dropped.parquet", compression="zstd")
        _write_lines(draft, _plain(feedback))
        write_json(draft.folder / "summary.json", _summary(draft.folder, dataset))
    return draft.artifact


def gold_dataset(
    workspace: Workspace, dataset: Artifact, records: Records, rows: NDArray[np.int64], parents: Mapping[str, str]
) -> Artifact:
    """Make the gold set, or find it: an artifact of kind ``gold`` with ``test.parquet`` and what was not taken into it.

    Args:
        workspace: Where the artifact goes.
        dataset: What the champion was trained on; the gold set is cleaned as it is.
        records: Records, cleaned; those with a reason are written to ``dropped.parquet`` where they come from a file.
        rows: Those that are the gold set.
        parents: What it comes from: role -> digest.
    """
    config = {name: dataset.config[name] for name in ("columns", "clean")}
    of_file = "file" in parents
    schema = pq.read_schema(dataset.path / "dropped.parquet")
    plain = pa.schema([field for field in schema if field.name not in ("reason", "detail")])
    table = _as_rows(records, rows, plain, set())
    # The rows decide what it is: feedback that has nothing to do with the gold set does not make another one.
    contents = [digest.hex() for digest in records.digests(rows)]
    answers = table.column("target" if "target" in plain.names else "label").to_pylist()
    key = digest_of({"config": config, "contents": contents, "answers": answers, "parents": dict(parents)})
    if found := workspace.with_key("gold", key):
        return found
    with workspace.create("gold", dataset.name, key=key, config=config, parents=parents) as draft:
        pq.write_table(table, draft.folder / "test.parquet", compression="zstd")
        rest = np.setdiff1d(np.arange(len(records)), rows) if of_file else np.empty(0, np.int64)
        taken = set(table.column("id").to_pylist())
        pq.write_table(_as_rows(records, rest, schema, taken), draft.folder / "dropped.parquet", compression="zstd")
        old = dataset.json("summary.json")
        size = {"image_size": old["image_size"]} if "image_size" in old else {}
        labels = dict(Counter(answers)) if "label" in plain.names else {}
        write_json(draft.folder / "summary.json", {"n": len(rows), "labels": labels, "n_dropped": len(rest), **size})
    return draft.artifact


def feedback_by_source(dataset: Artifact) -> list[dict[str, Any]]:
    """Of each source ``source n n_used``: its records of feedback, and those that were learnt from; largest first."""
    used = set(pq.read_table(dataset.path / "train.parquet", columns=["source"]).column("source").to_pylist())
    n: Counter[str] = Counter()
    n_used: Counter[str] = Counter()
    for line in (dataset.path / "feedback.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        given = json.loads(line)
        source = f"{given['source']['kind']}:{given['source']['id']}"
        n[source] += 1
        n_used[source] += f"{FEEDBACK}{given['id']}" in used
    return [{"source": source, "n": each, "n_used": n_used[source]} for source, each in n.most_common()]


def _plain(feedback: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Feedback without the requests that it is about; half a surrogate pair as its escape, as events have it."""
    plain = [{key: value for key, value in record.items() if key != "asked"} for record in feedback]
    return [_escaped(record) for record in plain]


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return writable(value)
    return {key: _escaped(each) for key, each in value.items()} if isinstance(value, dict) else value


def _write_lines(draft: Draft, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(draft.folder / "feedback.jsonl", lines.encode())


def _lasting(table: pa.Table, at_hand: set[str]) -> NDArray[np.int64]:
    sources = table.column("source").to_pylist()
    ids = [str(each)[len(FEEDBACK) :] if str(each).startswith(FEEDBACK) else None for each in sources]
    return np.flatnonzero([each is None or each not in at_hand for each in ids]).astype(np.int64)


def _as_rows(records: Records, rows: NDArray[np.int64], schema: pa.Schema, taken: set[str]) -> pa.Table:
    """Some records as rows of a dataset's file; columns that feedback has nothing for are null."""
    ids = []
    for digest in records.digests(rows):
        name, n = digest[:8].hex(), 1
        while (unique := name if n == 1 else f"{name}-{n}") in taken:
            n += 1
        taken.add(unique)
        ids.append(unique)
    at = pa.array(rows)
    reasons = records.reasons_of(rows)
    given = {"id": ids, "reason": [each for each, _ in reasons], "detail": [each for _, each in reasons]}
    columns = []
    for field in schema:
        if field.name in given:
            columns.append(pa.array(given[field.name], pa.string()).cast(field.type))
        elif field.name in records.table.schema.names:
            column = records.table.column(field.name).take(at).combine_chunks()
            columns.append(pc.cast(column, field.type))
        else:
            columns.append(pa.nulls(len(rows), field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _summary(folder: Path, dataset: Artifact) -> dict[str, Any]:
    """The summary of the old dataset with everything counted anew that corrections change."""
    summary: dict[str, Any] = dataset.json("summary.json")
    train, dropped = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "dropped"))
    reasons = dropped.column("reason").to_pylist()
    of_feedback = [str(each).startswith(FEEDBACK) for each in dropped.column("source").to_pylist()]
    n_used = sum(str(each).startswith(FEEDBACK) for each in train.column("source").to_pylist())
    n_corrected = reasons.count("corrected")
    n_unused = sum(of_feedback)
    split = summary["splits"]["train"]
    split["n"] = train.num_rows
    if "label" in train.column_names:
        split["labels"] = dict(sorted(Counter(train.column("label").to_pylist()).items()))
    n_kept = sum(summary["splits"][name]["n"] for name in SPLITS)
    # Feedback is the first step; what came through it, less what it replaced, goes through all others.
    before = summary.get("feedback", {}).get("n_more", 0)
    more = n_used - n_corrected
    steps = [step for step in summary["steps"] if step["step"] != "feedback"]
    steps = [{**step, **{name: step[name] + more - before for name in ("n_in", "n_out")}} for step in steps]
    n_read = n_kept + dropped.num_rows
    first = {"step": "feedback", "n_in": n_read, "n_out": n_read - n_unused - n_corrected}
    summary |= {
        "n_read": n_read,
        "n_kept": n_kept,
        "n_dropped": dropped.num_rows,
        "dropped": dict(Counter(reasons).most_common()),
        "steps": [first, *steps],
        "feedback": {
            "n": n_used + n_unused,
            "n_used": n_used,
            "n_more": more,
            "n_corrected": n_corrected,
            "dropped": dict(Counter(r for r, mine in zip(reasons, of_feedback, strict=True) if mine).most_common()),
        },
    }
    if "n_chars" in split:
        _measure(summary, train)
        summary["leak"] = _proof(folder, dataset)
    return summary


def _measure(summary: dict[str, Any], train: pa.Table) -> None:
    """Lengths of the training texts, in the bins of the other splits; the last bin reaches to the longest."""
    lengths = pc.utf8_length(train.column("text")).to_numpy()
    split = summary["splits"]["train"]
    edges = split["histogram"]["edges"]
    edges[-1] = max(edges[-1], int(lengths.max()))
    for name in SPLITS:
        summary["splits"][name]["histogram"]["edges"] = edges
    quantiles = (float(name) for name in split["quantiles"])
    split["quantiles"] = dict(zip(split["quantiles"], np.percentile(lengths, list(quantiles)).tolist(), strict=True))
    split["n_chars"] = int(lengths.sum())
    split["histogram"]["counts"] = np.histogram(lengths, edges)[0].tolist()


def _proof(folder: Path, dataset: Artifact) -> dict[str, Any]:
    """What the exact search for leaks proves of the new training split."""
    texts = [pq.read_table(folder / f"{name}.parquet", columns=["text"]).column("text").to_pylist() for name in SPLITS]
    texts[0] = list(dict.fromkeys(texts[0]))
    rank = np.repeat(np.arange(len(SPLITS)), [len(part) for part in texts]).astype(np.int64)
    threshold = float(dataset.config["clean"]["near_threshold"])
    floor = min(_LEAK_FLOOR, threshold)
    joined = pa.array([text for part in texts for text in part], pa.large_string())
    leaks = find_leaks(joined, rank, n=int(dataset.config["clean"]["near_ngram"]), floor=floor)
    best = np.zeros(len(rank))
    np.maximum.at(best, leaks.held_out, leaks.jaccard)
    n_moved = sum(each == "leak" for each in pq.read_table(folder / "dropped.parquet").column("reason").to_pylist())
    sizes = [len(part) for part in texts]
    return leak_proof(best[rank > 0], sizes, leaks.n_compared, n_moved, floor=floor, threshold=threshold)
