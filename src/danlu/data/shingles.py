"""Texts as sets of character n-grams (shingles), all of a batch at once in numpy.

A shingle is a window of ``n`` characters over the letters and digits of the text's key; a text shorter than ``n`` has
one, padded. The similarity of two texts is the Jaccard similarity of their sets (Broder 1997, "On the resemblance and
containment of documents").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from danlu.data.normalize import normal_keys

__all__ = ["as_sets", "pair_jaccard", "shingle_hashes", "slabs"]

_NOT_IN_SHINGLES = r"[\p{P}\p{S}\p{C}]+"
_PAIRS_AT_ONCE = 1 << 14


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words in which every bit of the input moves every bit of the output (splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shingle_hashes(texts: pa.Array, n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every shingle of every text, repeats included.

    Up to n = 3 the hash is injective (three 21-bit code points fill 63 bits); beyond, two different shingles share a
    hash with probability 2^-64.

    Args:
        texts: N strings without nulls. A text of punctuation alone is shingled with its punctuation.
        n: Characters in a shingle, at least 1.

    Returns:
        The hashes one text after the other, and the N + 1 offsets of the texts in them; every text has at least one.
    """
    keys = normal_keys(texts)
    bare = pc.replace_substring_regex(keys, pattern=_NOT_IN_SHINGLES, replacement="")
    bare = pc.if_else(pc.equal(bare, ""), keys, bare)
    pad = "\0" * n
    points = np.frombuffer((pad.join(bare.to_pylist()) + pad).encode("utf-32-le"), dtype=np.uint32)
    n_chars = pc.utf8_length(bare).to_numpy(zero_copy_only=False).astype(np.int64)
    n_shingles = np.maximum(n_chars - n + 1, 1)
    offsets = np.concatenate([[0], np.cumsum(n_shingles)])

    n_windows = len(points) - n + 1
    hashes = np.zeros(n_windows, dtype=np.uint64)
    for begin in range(0, n, 3):
        word = np.zeros(n_windows, dtype=np.uint64)
        for i in range(begin, min(begin + 3, n)):
            word = (word << np.uint64(21)) | points[i : i + n_windows]
        hashes = _mix(hashes ^ word)
    begins = np.cumsum(n_chars + n) - (n_chars + n)
    windows = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], n_shingles)
    return hashes[windows], offsets


def as_sets(shingles: NDArray[np.int64], offsets: NDArray[np.int64]) -> csr_array:
    """Sets of non-negative integers as the rows of a sparse matrix of ones, each row's columns sorted and unique."""
    ones = np.ones(len(shingles), dtype=np.int32)
    sets = csr_array((ones, shingles, offsets), shape=(len(offsets) - 1, np.iinfo(np.int64).max))
    sets.sum_duplicates()
    return sets


def pair_jaccard(
    texts: pa.Array | pa.ChunkedArray, first: NDArray[np.int64], second: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """The exact Jaccard similarity of pairs of texts.

    The sets hold 63 bits of each hash: two different shingles of a pair of 200 characters pass for one with a
    probability under 1e-14.

    Args:
        texts: Strings without nulls.
        first: int64 [P]; the number of one text of each pair.
        second: int64 [P]; the number of the other.
        n: Characters in a shingle.

    Returns:
        float64 [P]: similarities between 0 and 1.
    """
    result = np.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        members = np.unique(np.concatenate([first[part], second[part]]))
        hashes, offsets = shingle_hashes(texts.take(pa.array(members)), n)
        sets = as_sets((hashes >> np.uint64(1)).astype(np.int64), offsets)
        sizes = np.diff(sets.indptr)
        i, j = np.searchsorted(members, first[part]), np.searchsorted(members, second[part])
        both = np.diff(sets[i].multiply(sets[j]).tocsr().indptr)
        result[part] = both / (sizes[i] + sizes[j] - both)
    return result


def slabs(texts: pa.Array | pa.ChunkedArray, n_chars: int = 1 << 20) -> Iterator[tuple[int, int]]:
    """Cuts texts into runs of about so many characters, so that work on a run needs bounded memory.

    Yields:
        Begin and end of each run; a text longer than that is in a run of its own or ends one.
    """
    ends = np.cumsum(pc.utf8_length(texts).to_numpy(), dtype=np.int64)
    if len(ends):
        cuts = np.searchsorted(ends, np.arange(n_chars, ends[-1] + 1, n_chars)) + 1
        edges = np.unique(np.concatenate([[0], cuts, [len(ends)]])).tolist()
        yield from itertools.pairwise(edges)
