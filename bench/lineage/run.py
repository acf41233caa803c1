"""Compare every pair of the lineage benchmark, by the audit and by every published measure.

    python bench/lineage/run.py --folder DIR [--workers 2] [--tools 30]

A row a pair goes to DIR/results/pairs.csv, a row a pair and measure to DIR/results/scores.csv, and for some of them a
row a pair and tool that others publish to DIR/results/tools.csv, as soon as it is there; what is there is not done
again.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # before torch is imported, here and in every worker
    os.environ.setdefault(_name, "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # audits are made where weights are read, on the CPU
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pairs import Pair, pairs_of  # noqa: E402 - the threads come first
from scores import Scorer  # noqa: E402
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

    return _scored(pair, BASELINES)


def score_by_tools(pair: Pair) -> list[dict[str, Any]]:
    """In a worker: the rows of tools.csv for a pair."""
    from published_tools import TOOLS

    return _scored(pair, TOOLS)


def _scored(pair: Pair, scorers: Mapping[str, Scorer]) -> list[dict[str, Any]]:
    shop, rows = _AUDITOR[0].shop, []
    for measure, scorer in scorers.items():
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


def spread(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """At most so many of the kin, of the siblings and of the unrelated pairs each, from all over them."""
    found: list[Pair] = []
    for relation in ("kin", "sibling", "unrelated"):
        some = [pair for pair in pairs if pair.relation == relation and pair.scored]
        found += some[:: max(1, -(-len(some) // n))] if n else []
    return found


def left_of(pairs: Sequence[Pair], path: Path) -> list[Pair]:
    """The pairs that a file has no row of."""
    there = {(row["suspect"], row["reference"]) for row in read_rows(path)}
    return [pair for pair in pairs if (pair.suspect, pair.reference) not in there]


def main() -> None:
    from audits import COLUMNS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--others", type=int, default=19, help="other bases that everything derived is compared with")
    parser.add_argument("--scored", type=int, default=2, help="for how many of those the published measures are taken")
    parser.add_argument("--siblings", type=int, default=6, help="siblings that an audit is given")
    parser.add_argument("--no-scores", action="store_true", help="leave the published measures out")
    parser.add_argument("--tools", type=int, default=0, help="pairs of each kind that published tools are run on")
    given = parser.parse_args()
    shop = Shop.opened(given.folder)
    built = {name for name in shop.items if shop.is_done(name)}
    pairs = [pair for pair in pairs_of(shop, given.others, given.scored) if {pair.suspect, pair.reference} <= built]
    results = given.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    asked = {
        "pairs": (audit, pairs, COLUMNS),
        "scores": (score, [] if given.no_scores else [pair for pair in pairs if pair.scored], SCORES),
        "tools": (score_by_tools, spread(pairs, given.tools), SCORES),
    }
    left = {what: left_of(some, results / f"{what}.csv") for what, (_, some, _) in asked.items()}
    print(f"{len(built)} of {len(shop.items)} models are built")
    print(f"{len(pairs)} pairs; left: {', '.join(f'{what} {len(some)}' for what, some in left.items())}", flush=True)
    began, n_failed, n_done = time.monotonic(), 0, 0
    initargs = (given.folder, given.siblings)
    with ProcessPoolExecutor(
        given.workers, mp_context=get_context("spawn"), initializer=open_auditor, initargs=initargs
    ) as pool:
        waiting = {pool.submit(asked[what][0], pair): (what, pair) for what, some in left.items() for pair in some}
        for future in as_completed(waiting):
            what, pair = waiting[future]
            if error := future.exception():
                n_failed += 1
                print(f"{pair.suspect} against {pair.reference}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            found = future.result()
            append(results / f"{what}.csv", asked[what][2], [found] if what == "pairs" else found)
            n_done += 1
            if n_done % 100 == 0 or n_done == len(waiting):
                print(f"{time.monotonic() - began:6.1f} s  {n_done} of {len(waiting)}", flush=True)
    if n_failed:
        raise SystemExit(f"{n_failed} comparisons failed; the same command tries them again")


if __name__ == "__main__":
    main()
