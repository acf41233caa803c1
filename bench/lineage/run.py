"""Compare every pair of the lineage benchmark, by the audit and by every published measure.

    python bench/lineage/run.py --folder DIR [--workers 2]

A row a pair goes to DIR/results/pairs.csv, a row a pair and measure to DIR/results/scores.csv, as soon as it is there;
what is there is not done again.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported, here and in every worker
    os.environ.setdefault(_name, "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # audits are made where weights are read, on the CPU
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pairs import Pair, pairs_of  # noqa: E402 - the threads come first
from shop import Shop  # noqa: E402

__all__ = ["main"]

SCORES = ("suspect", "reference", "relation", "measure", "value", "seconds", "reason")

_AUDITOR: list[Any] = []
"""The worker's own."""


def open_auditor(folder: Path, n_siblings: int) -> None:
    """In a worker: open the folder."""
    import torch

    from audits import Auditor

    torch.set_num_threads(1)
    _AUDITOR[:] = [Auditor(Shop.opened(folder), n_siblings)]


def audit(pair: Pair) -> dict[str, Any]:
    """In a worker: a row of pairs.csv."""
    row: dict[str, Any] = _AUDITOR[0].row(pair)
    return row


def score(pair: Pair) -> list[dict[str, Any]]:
    """In a worker: the rows of scores.csv for a pair."""
    from baselines import BASELINES

    shop, rows = _AUDITOR[0].shop, []
    for measure, scorer in BASELINES.items():
        began = time.monotonic()
        value = scorer(shop.path(pair.suspect), shop.path(pair.reference))
        told = {"measure": measure, "value": float(value), "seconds": round(time.monotonic() - began, 3)}
        rows.append(_named(pair) | told | {"reason": getattr(value, "reason", "")})
    return rows


def _named(pair: Pair) -> dict[str, Any]:
    return {"suspect": pair.suspect, "reference": pair.reference, "relation": pair.relation}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a file; a last one that a kill cut off is not there."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")
    if whole[2]:
        path.write_bytes(whole[0] + whole[1])
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    """Put rows at the end of a file, which is begun if it is not there."""
    is_new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    from audits import COLUMNS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--others", type=int, default=19, help="other bases that everything derived is compared with")
    parser.add_argument("--scored", type=int, default=2, help="for how many of those the published measures are taken")
    parser.add_argument("--siblings", type=int, default=6, help="siblings that an audit is given")
    parser.add_argument("--no-scores", action="store_true", help="leave the published measures out")
    given = parser.parse_args()
    shop = Shop.opened(given.folder)
    pairs = pairs_of(shop, given.others, given.scored)
    results = given.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    files = {"pairs": results / "pairs.csv", "scores": results / "scores.csv"}
    there = {what: {(row["suspect"], row["reference"]) for row in read_rows(path)} for what, path in files.items()}
    left = {
        "pairs": [pair for pair in pairs if (pair.suspect, pair.reference) not in there["pairs"]],
        "scores": [
            pair
            for pair in pairs
            if pair.scored and not given.no_scores and (pair.suspect, pair.reference) not in there["scores"]
        ],
    }
    print(f"{len(pairs)} pairs; to be audited {len(left['pairs'])}, to be scored {len(left['scores'])}", flush=True)
    began, n_failed, n_done = time.monotonic(), 0, 0
    initargs = (given.folder, given.siblings)
    with ProcessPoolExecutor(
        given.workers, mp_context=get_context("spawn"), initializer=open_auditor, initargs=initargs
    ) as pool:
        waiting = {pool.submit(audit, pair): ("pairs", pair) for pair in left["pairs"]}
        waiting |= {pool.submit(score, pair): ("scores", pair) for pair in left["scores"]}
        for future in as_completed(waiting):
            what, pair = waiting[future]
            if error := future.exception():
                n_failed += 1
                print(f"{pair.suspect} against {pair.reference}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            found = future.result()
            append(files[what], COLUMNS if what == "pairs" else SCORES, [found] if what == "pairs" else found)
            n_done += 1
            if n_done % 100 == 0 or n_done == len(waiting):
                print(f"{time.monotonic() - began:6.1f} s  {n_done} of {len(waiting)}", flush=True)
    if n_failed:
        raise SystemExit(f"{n_failed} comparisons failed; the same command tries them again")


if __name__ == "__main__":
    main()
