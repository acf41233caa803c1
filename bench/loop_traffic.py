"""The texts of the loop: what the champion learns from, what is asked of it, and what is asked after the shift.

All come from one cleaned dataset without duplicates, dealt by the hash of the text, each text to one use. The champion
learns from texts about hotels alone, and is first asked about hotels; the shifted traffic is about books, in
traditional characters and with typos. What is about neither is not used.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from danlu.data.script import convert_texts
from loop_driver import Request

__all__ = ["LEARNT", "LEFT_OUT", "SIZES", "Sizes", "Texts", "deal", "write_records"]

LEARNT = "酒店|宾馆|前台|客房|早餐|房|住"
"""Whoever writes one of these, and none of those below, writes about a hotel."""
LEFT_OUT = "书|作者|小说|读者|出版社|故事|阅读|情节"
"""Whoever writes one of these writes about a book."""
TYPO = 1 / 25
"""The chance of a typo at a character."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        held_out: Requests before the shift, by users who ask several times.
        shifted: Requests after it, before the new model.
        gold: Records of the gold set, half of them shifted.
        trial: Users of the A/B at most.
        after: Requests around and after the promotion.
        test: The share of the champion's test split.
        labels: Questions to the labeller.
        poison: Records of the one who lies.
        margin: Differences between models that do not matter.
    """

    held_out: int = 2000
    shifted: int = 1300
    gold: int = 400
    trial: int = 1200
    after: int = 350
    test: float = 0.3
    labels: int = 200
    poison: int = 400
    margin: float = 0.03


SIZES = {
    "full": Sizes(),
    "tiny": Sizes(held_out=240, shifted=300, gold=120, trial=200, after=60, test=0.55, labels=20, poison=40),
}


@dataclass(frozen=True)
class Texts:
    """What is used for what: (text, label) each, but for requests, which have users."""

    train: list[tuple[str, str]]
    gold: list[tuple[str, str]]
    held_out: list[Request]
    shifted: list[Request]
    trial: list[Request]
    after: list[Request]
    n_left_out: int
    n_pool: int


def deal(dataset: Path, sizes: Sizes) -> Texts:
    """Deal the records of a dataset out.

    Args:
        dataset: The folder of a dataset artifact.
        sizes: How much of everything.

    Raises:
        ValueError: There are too few.
    """
    rows = []
    for split in ("train", "valid", "test"):
        table = pq.read_table(dataset / f"{split}.parquet", columns=["text", "label"])
        rows += [(row["text"], row["label"]) for row in table.to_pylist()]
    rows.sort(key=lambda row: hashlib.sha256(row[0].encode()).digest())
    other = [row for row in rows if re.search(LEFT_OUT, row[0])]
    usual = [row for row in rows if re.search(LEARNT, row[0]) and not re.search(LEFT_OUT, row[0])]
    n_shifted, n_usual = sizes.gold // 2 + sizes.shifted + sizes.trial + sizes.after, sizes.held_out + sizes.gold // 2
    if len(usual) < 2 * n_usual or len(other) < n_shifted:
        raise ValueError(
            f"{len(usual)} texts about hotels and {len(other)} about books are too few: half of the former are for "
            f"training, and {n_usual} and {n_shifted} are to be traffic"
        )
    held_out, usual = usual[: sizes.held_out], usual[sizes.held_out :]
    gold, train = usual[: sizes.gold // 2], usual[sizes.gold // 2 :]
    shifted = _shifted(other[:n_shifted])
    first, second = sizes.gold // 2, sizes.gold // 2 + sizes.shifted
    third = second + sizes.trial
    return Texts(
        train=train,
        gold=[*gold, *shifted[:first]],
        held_out=_asked(held_out, "reader", max(1, sizes.held_out // 5)),
        shifted=_asked(shifted[first:second], "guest", max(60, sizes.shifted // 20)),
        trial=_asked(shifted[second:third], "visitor", sizes.trial),
        after=_asked(shifted[third:], "caller", max(1, sizes.after // 5)),
        n_left_out=len(other),
        n_pool=len(rows),
    )


def write_records(path: Path, records: Sequence[tuple[str, str]]) -> None:
    """Texts and labels as a csv file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *records])


def _asked(records: Sequence[tuple[str, str]], who: str, n_users: int) -> list[Request]:
    return [Request(f"{who}-{place % n_users:04d}", text, label) for place, (text, label) in enumerate(records)]


def _shifted(records: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """In traditional characters, with typos."""
    import pyarrow as pa

    texts = convert_texts(pa.array([text for text, _ in records], pa.large_string()), "traditional").to_pylist()
    return [(_mistyped(text), label) for text, (_, label) in zip(texts, records, strict=True)]


def _mistyped(text: str) -> str:
    """Neighbours that changed places, a character too few, or one twice; the same text always the same."""
    draw = random.Random(hashlib.sha256(text.encode()).digest())
    letters = list(text)
    for place in range(len(letters) - 1):
        if draw.random() >= TYPO:
            continue
        kind = draw.randrange(3)
        if kind == 0:
            letters[place : place + 2] = letters[place + 1], letters[place]
        else:
            letters[place] = "" if kind == 1 else 2 * letters[place]
    return "".join(letters) or text
