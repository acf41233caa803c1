"""Cleaning and near-deduplication of a whole corpus, beside datasketch's MinHash and LSH doing the same job.

    python bench/dedup.py PATH [--repeats 3]

PATH is the npm archive of chinese-poetry, a folder of its poet.*.json, or a text file of one record a line. Each run is
a process of its own, so that the peak memory is that of one method; the methods alternate (danlu, datasketch, danlu,
...), so that a busy machine slows both. The same shingles of the same keys, threshold, permutations, bands and rows go
into both, and both verify their candidates exactly. danlu's time includes its whole cleaning (repair, normalisation,
masking, filters) and exact deduplication; datasketch is handed the texts normalised, unique and free of charge.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from danlu.data.clean import CleanConfig, clean_batch
from danlu.data.near import band_keys, bands_for, clusters, near_pairs
from danlu.data.normalize import normal_keys
from danlu.data.shingles import slabs

CONFIG = CleanConfig()
BATCH = 8192


def texts_of(path: Path) -> list[str]:
    if path.is_dir():
        files = {str(name): name.read_bytes() for name in path.rglob("poet.*.json")}
    elif path.name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(path) as archive:
            members = [m for m in archive if "/quantangshi/poet." in m.name and m.name.endswith(".json")]
            files = {m.name: f.read() for m in members if (f := archive.extractfile(m))}
    else:
        return path.read_text(encoding="utf-8").splitlines()
    return ["\n".join(poem["paragraphs"]) for name in sorted(files) for poem in json.loads(files[name])]


def run_danlu(corpus: Path) -> dict[str, Any]:
    """The texts come in batches from disk, as they do in the data stage."""
    begin, cpu_begin = time.perf_counter(), time.process_time()
    columns = ["source", "text"]
    batches = [clean_batch(b, CONFIG) for b in pq.ParquetFile(corpus).iter_batches(BATCH, columns=columns)]
    table = pa.Table.from_batches(batches)
    del batches
    table = table.filter(pc.is_null(table.column("reason"))).select(["source", "text", "_digest"])
    codes = table.column("_digest").combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    table = table.take(pa.array(np.sort(first))).select(["source", "text"])
    cleaned = time.perf_counter()
    texts = table.column("text")
    bands, rows = bands_for(CONFIG.near_threshold, CONFIG.near_permutations)
    keys = np.concatenate(
        [
            band_keys(texts.slice(a, b - a).combine_chunks(), n=CONFIG.near_ngram, bands=bands, rows=rows)
            for a, b in slabs(texts)
        ]
    )
    pairs = near_pairs(texts, keys, n=CONFIG.near_ngram, threshold=CONFIG.near_threshold)
    cluster = clusters(len(texts), pairs.first, pairs.second)
    dropped = np.flatnonzero(cluster != np.arange(len(texts)))
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
        "clean_seconds": cleaned - begin,
        "pairs": [tuple(p) for p in np.stack([pairs.first, pairs.second], 1).tolist()],
        "n_duplicates": len(dropped),
        "sources": table.column("source").to_pylist(),
    }


def run_datasketch(corpus: Path) -> dict[str, Any]:
    from datasketch import MinHash, MinHashLSH

    table = pq.read_table(corpus, columns=["source", "text"], filters=pc.field("unique"))
    keys = pq.read_table(corpus, columns=["bare"], filters=pc.field("unique")).column("bare").to_pylist()
    n = CONFIG.near_ngram
    begin, cpu_begin = time.perf_counter(), time.process_time()

    def shingles_of(key: str) -> set[bytes]:
        return {key[i : i + n].encode() for i in range(max(len(key) - n + 1, 1))}

    bands = bands_for(CONFIG.near_threshold, CONFIG.near_permutations)
    lsh = MinHashLSH(num_perm=CONFIG.near_permutations, params=bands)
    first: list[int] = []
    second: list[int] = []
    # Its own fast way: one set of permutations for all, and its fastest hashing scheme.
    minhashes = MinHash.generator(map(shingles_of, keys), num_perm=CONFIG.near_permutations, scheme="affine32")
    for at, minhash in enumerate(minhashes):
        candidates = lsh.query(minhash)
        shingles = shingles_of(keys[at]) if candidates else set()
        for other in candidates:
            theirs = shingles_of(keys[other])
            common = len(shingles & theirs)
            if common >= CONFIG.near_threshold * (len(shingles) + len(theirs) - common):
                first.append(other)
                second.append(at)
        lsh.insert(at, minhash, check_duplication=False)
    cluster = clusters(len(keys), first, second)
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu_begin,
        "pairs": list(zip(first, second, strict=True)),
        "n_duplicates": int((cluster != np.arange(len(keys))).sum()),
        "sources": table.column("source").to_pylist(),
    }


def write_corpus(texts: list[str], path: Path) -> None:
    """The raw texts, and for datasketch which are left after cleaning, and their keys without punctuation."""
    table = pa.table({"source": [f"{i}" for i in range(len(texts))], "text": texts})
    cleaned = pa.Table.from_batches([clean_batch(b, CONFIG) for b in table.to_batches(BATCH)])
    keys = normal_keys(cleaned.column("text").combine_chunks())
    codes = keys.dictionary_encode().indices.to_numpy()
    kept = np.flatnonzero(pc.is_null(cleaned.column("reason")).to_numpy())
    unique = np.zeros(len(texts), dtype=bool)
    unique[kept[np.unique(codes[kept], return_index=True)[1]]] = True
    bare = pc.replace_substring_regex(keys, pattern=r"[\p{P}\p{S}\p{C}]+", replacement="")
    table = table.append_column("unique", pa.array(unique)).append_column("bare", bare)
    pq.write_table(table, path, row_group_size=BATCH)


def measure(method: str, corpus: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, str(corpus), "--only", method], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one_run(method: str, corpus: Path) -> None:
    result = run_danlu(corpus) if method == "danlu" else run_datasketch(corpus)
    sources = result.pop("sources")
    result["pairs"] = sorted([int(sources[i]), int(sources[j])] for i, j in result["pairs"])
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    result["peak_megabytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    print(json.dumps(result))


def show(name: str, runs: list[dict[str, Any]], megabytes: float) -> None:
    seconds = [run["seconds"] for run in runs]
    print(
        f"{name:11s} {statistics.median(seconds):8.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
        f"CPU {statistics.median(run['cpu_seconds'] for run in runs):.1f} s  "
        f"{megabytes / statistics.median(seconds):7.2f} MB/s  peak {max(r['peak_megabytes'] for r in runs):6.0f} MB  "
        f"{runs[0]['n_duplicates']} near-duplicates, {len(runs[0]['pairs'])} pairs"
    )


def compare(texts: list[str], repeats: int, folder: Path) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    corpus = folder / "corpus.parquet"
    write_corpus(texts, corpus)
    print(
        f"{len(texts)} texts, {megabytes:.1f} MB; threshold {CONFIG.near_threshold}, {CONFIG.near_ngram}-grams, "
        f"{CONFIG.near_permutations} permutations; {repeats} runs each, alternating"
    )
    runs: dict[str, list[dict[str, Any]]] = {"danlu": [], "datasketch": []}
    for _ in range(repeats):
        for method in runs:
            runs[method].append(measure(method, corpus))
    for method, results in runs.items():
        show(method, results, megabytes)
    clean = statistics.median(run["clean_seconds"] for run in runs["danlu"])
    print(f"danlu's cleaning alone: {clean:.1f} s, {megabytes / clean:.2f} MB/s")
    for kind in ("seconds", "cpu_seconds"):
        ratios = [b[kind] / a[kind] for a, b in zip(runs["danlu"], runs["datasketch"], strict=True)]
        print(f"ratio of {kind}: {statistics.median(ratios):.1f} times ({min(ratios):.1f} to {max(ratios):.1f})")
    ours, theirs = ({tuple(pair) for pair in runs[method][0]["pairs"]} for method in ("danlu", "datasketch"))
    print(f"pairs: {len(ours & theirs)} found by both, {len(ours - theirs)} by danlu alone, {len(theirs - ours)} by it")

    for share in (4, 2, 1):
        part = texts[::share]
        write_corpus(part, corpus)
        run = measure("danlu", corpus)
        size = sum(len(text.encode()) for text in part) / 1e6
        print(f"1/{share} of the text: {size:5.1f} MB, {run['seconds']:5.1f} s, peak {run['peak_megabytes']:4.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, help="use only so many texts")
    parser.add_argument("--only", choices=["danlu", "datasketch"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        one_run(arguments.only, arguments.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(texts_of(arguments.path)[: arguments.limit], arguments.repeats, Path(folder))


if __name__ == "__main__":
    main()
