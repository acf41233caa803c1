"""From pictures to train, valid and test: fit, resolve conflicts, deduplicate, split, prove that nothing leaks.

As `danlu.data.prepare` does for texts: every picture goes into exactly one of four parquet files, the dropped ones with
a reason. Two pictures are the same where every pixel is. All that are kept have one size, so that each is a fixed
number of bytes, in the order C, Y, X. All of them are held in memory at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig
from danlu.data.image_sources import Picture
from danlu.data.images import ImageSize, shown_size, to_standard
from danlu.data.records import Records, check_names
from danlu.data.split import SPLITS, SplitConfig
from danlu.data.steps import ProgressCall, assign_splits, drop_conflicts, drop_repeated, given_rank
from danlu.data.summary import check_trainable, summarize

__all__ = ["prepare_images"]

_AT_ONCE = 1024
"""Pictures between two reports of progress."""


def prepare_images(
    pictures: Iterable[Picture],
    roles: Sequence[str],
    clean: CleanConfig,
    split: SplitConfig,
    folder: Path,
    *,
    progress: ProgressCall | None = None,
) -> dict[str, Any]:
    """Fits, deduplicates and splits pictures, and writes them as four parquet files.

    ``train.parquet``, ``valid.parquet`` and ``test.parquet`` hold ``id`` (of the pixels), ``source``, ``image`` (uint8
    in the order C, Y, X) and the columns of the roles; ``dropped.parquet`` also ``reason`` and ``detail``, and no
    ``image`` where it cannot be read or has another size.

    Args:
        pictures: What was read.
        roles: What the values of each picture are; ``label`` is its class.
        clean: Size and channels, conflicts, deduplication.
        split: How the pictures are parted.
        folder: Where the files go; made where missing.
        progress: Told each step and the number of pictures that it has seen.

    Returns:
        The summary, as plain JSON values; ``image_size`` is channels, height and width.

    Raises:
        DataError: There are no pictures, they have many sizes, or what is left of them cannot train.
    """
    report = progress or (lambda _step, _n: None)
    folder.mkdir(parents=True, exist_ok=True)
    check_names(roles)
    records = Records("image")
    with records.step("clean", report):
        image_size = _fill(records, pictures, roles, clean, report)
    groups = records.same()
    rank = given_rank(records, split)
    if records.has_labels:
        with records.step("label_conflicts", report):
            drop_conflicts(records, groups, clean.conflicts)
    with records.step("exact_duplicates", report):
        if clean.dedup != "none":
            drop_repeated(records, groups, rank, "exact_duplicate")
    with records.step("split", report):
        splits = assign_splits(records, groups, rank, split)
    with records.step("leak_check", report):
        proof = _stop_leaks(records, groups, splits)
    with records.step("write", report):
        records.write(folder, splits)
    check_trainable(records, splits, split)
    return summarize(records, splits, lambda _rows: {}) | {"image_size": list(image_size), "leak": proof}


class _Fitted(NamedTuple):
    """A picture as it will be stored."""

    source: str
    values: tuple[str | None, ...]
    image: bytes
    """Empty where there is none."""
    size: ImageSize | None
    problem: str | None


def _fit(picture: Picture, clean: CleanConfig) -> _Fitted:
    if picture.pixels is None:
        return _Fitted(picture.source, picture.values, b"", None, picture.problem)
    pixels = to_standard(picture.pixels, clean)
    channels, height, width = pixels.shape
    return _Fitted(picture.source, picture.values, pixels.tobytes(), (channels, height, width), None)


def _fill(
    records: Records, pictures: Iterable[Picture], roles: Sequence[str], clean: CleanConfig, report: ProgressCall
) -> ImageSize:
    """Puts the pictures into the records and says which size they have."""
    left = iter(pictures)
    parts: list[list[_Fitted]] = []
    n_seen = 0
    while part := [_fit(picture, clean) for picture in islice(left, _AT_ONCE)]:
        parts.append(part)
        n_seen += len(part)
        report("clean", n_seen)
    image_size = _common_size([picture for part in parts for picture in part])
    # Each part is let go once it is in the table: twice all the pixels would be too much.
    records.fill([_as_batch(parts.pop(0), roles, image_size) for _ in range(len(parts))])
    return image_size


def _common_size(pictures: list[_Fitted]) -> ImageSize:
    """The size that most pictures have.

    Raises:
        DataError: There are no pictures, or most have other sizes than the most frequent.
    """
    if not pictures:
        raise DataError("there are no pictures", advice="check data.source")
    sizes = Counter(picture.size for picture in pictures if picture.size)
    if not sizes:
        first = pictures[0]
        raise DataError(f"none of the {len(pictures)} pictures can be read", where=f"{first.source}: {first.problem}")
    (size, n_most), *others = sizes.most_common()
    if 2 * n_most < sizes.total():
        examples = [next(picture for picture in pictures if picture.size == one) for one in (size, others[0][0])]
        what = " and ".join(f"{one.source} is {shown_size(one.size)}" for one in examples if one.size)
        raise DataError(
            f"the pictures have {len(sizes)} sizes",
            where=what,
            advice="set data.clean.image_size=[height, width] to resize them all, data.clean.channels to 1 or 3",
        )
    return size


def _as_batch(pictures: list[_Fitted], roles: Sequence[str], image_size: ImageSize) -> pa.RecordBatch:
    def verdict(picture: _Fitted) -> tuple[str | None, str | None]:
        if picture.size is None:
            return "broken_image", picture.problem
        if picture.size != image_size:
            return "other_size", f"it is {shown_size(picture.size)}, most are {shown_size(image_size)}"
        return None, None

    reasons, details = zip(*map(verdict, pictures), strict=True)
    images = [picture.image if picture.size == image_size else None for picture in pictures]
    digests = [hashlib.sha256(picture.image).digest() for picture in pictures]
    values = zip(*(picture.values for picture in pictures), strict=True)
    columns = {
        "source": pa.array([picture.source for picture in pictures], pa.string()),
        "image": pa.array(images, pa.binary(int(np.prod(image_size)))),
        **{role: pa.array(column, pa.string()) for role, column in zip(roles, values, strict=True)},
        "reason": pa.array(reasons, pa.string()),
        "detail": pa.array(details, pa.string()),
        "_digest": pa.array(digests, pa.binary(32)),
    }
    return pa.RecordBatch.from_pydict(columns)


def _stop_leaks(records: Records, groups: NDArray[np.int64], splits: NDArray[np.int64]) -> dict[str, int]:
    """Drops from the lower split what a higher one has too, and states what remains."""
    kept = records.kept()
    # Of each group the first record in its highest split.
    order = kept[np.lexsort((kept, -splits[kept], groups[kept]))]
    _, first = np.unique(groups[order], return_index=True)
    highest = np.zeros(len(records), dtype=np.int64)
    highest[groups[order[first]]] = order[first]
    leaking = kept[splits[kept] < splits[highest[groups[kept]]]]
    twins = highest[groups[leaking]]
    where = zip(records.sources(twins), splits[twins].tolist(), strict=True)
    records.drop(leaking, "leak", [f"the same pixels as {source} in {SPLITS[rank]}" for source, rank in where])

    kept = records.kept()
    pairs = np.unique(np.stack([groups[kept], splits[kept]]), axis=1)
    n_train, n_valid, n_test = np.bincount(pairs[1], minlength=len(SPLITS)).tolist()
    return {
        "n_pairs": n_test * (n_train + n_valid) + n_valid * n_train,
        "n_moved": len(leaking),
        "n_leaks": pairs.shape[1] - len(np.unique(pairs[0])),
    }
