"""What does the index cost: taking in many requests, and answering a board?

    OMP_NUM_THREADS=1 python bench/index.py [--n 1000000] [--url postgresql://...]

Made-up requests, one a second on average, with what a server writes down of one text (528 bytes); one in a hundred has
feedback. Told are seconds of CPU of this process (with SQLite that is all; a PostgreSQL server's own come on top) and
seconds on the clock. A board is 60 buckets, over the last day, or over all of it.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from danlu.core.index import Index
from danlu.core.workspace import Workspace

NOW = 1.8e9
DAY = 86_400


def write_requests(path: Path, n: int) -> None:
    """An event file of n requests until now."""
    draw = random.Random(1)
    texts = ["".join(chr(0x4E00 + draw.randrange(3000)) for _ in range(46)) for _ in range(1000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(n):
            event = {
                "time": NOW - n + number + draw.random(),
                "event": "request",
                "id": f"req-0123456789ab-{number:08x}",
                "route": "/predict",
                "model": "reviews@champion",
                "name": "reviews",
                "digest": "d" * 64,
                "user": f"u{draw.randrange(1000)}",
                "batch": 8,
                "inputs": [texts[number % len(texts)]],
                "answers": [{"label": "neg", "probability": 0.91, "n_tokens": 31}],
                "status": 200 if draw.random() < 0.99 else 503,
                "seconds": round(draw.lognormvariate(-4, 0.5), 6),
            }
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
            if number % 100 == 0:
                said = {"request": event["id"], "index": 0, "correct": True, "source": {"kind": "user", "id": "me"}}
                said = {"time": event["time"], "event": "feedback", "id": str(number), "name": "reviews", **said}
                file.write(json.dumps(said, ensure_ascii=False) + "\n")


def told(what: str, work: Callable[[], object]) -> None:
    """Do it, and say what it took."""
    cpu, clock = time.process_time(), time.perf_counter()
    found = work()
    took = f"{time.process_time() - cpu:.2f} s of CPU, {time.perf_counter() - clock:.2f} s on the clock"
    print(f"{what}: {found}, {took}", flush=True)


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--url", help="of an empty database; otherwise SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        workspace.events.mkdir()
        write_requests(workspace.events / "serve.jsonl", given.n)
        with Index.open(workspace, given.url) as index:
            told("events taken in", index.refresh)
            told("nothing new", index.refresh)
            told("buckets of a day", lambda: len(index.traffic("reviews", DAY / 60, NOW - DAY)))
            told("buckets of all", lambda: len(index.traffic("reviews", given.n / 60, 0)))
            told("requests of an hour", lambda: len(list(index.events("request", name="reviews", after=NOW - 3600))))
            told("feedback with its requests", lambda: len(list(index.feedback("reviews"))))
            told("one request", lambda: len(index.request("req-0123456789ab-00000007") or {}) > 0)
        if given.url is None:
            print(f"{(workspace.root / 'index.sqlite').stat().st_size / given.n:.0f} bytes a request")


if __name__ == "__main__":
    main()
