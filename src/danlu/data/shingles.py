"""Texts as sets of character n-grams (shingles), all of a batch at once in numpy.

A shingle is a window of ``n`` characters over the letters and digits of the text's key; a text shorter than ``n`` has
one, padded. The similarity of two texts is the Jaccard similarity of their sets (Broder 1997, "On the resemblance and
containment of documents").
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_array

from danlu.data.normalize import normal_keys

__all__ = ["jaccard", "shingle_hashes", "shingle_sets"]

_NOT_IN_SHINGLES = r"[\p{P}\p{S}\p{C}]+"
_PAIRS_AT_ONCE = 1 << 16


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
    n_chars = pc.utf8_length(bare).to_numpy().astype(np.int64)
    n_shingles = np.maximum(n_chars - n + 1, 1)
    offsets = np.concatenate([[0], np.cumsum(n_shingles)])

    n_windows = len(points) - n + 1
    hashes = np.zeros(max(n_windows, 0), dtype=np.uint64)
    for i in range(n):
        if i and i % 3 == 0:
            hashes = _mix(hashes)
        hashes = (hashes << np.uint64(21)) ^ points[i : i + n_windows]
    begins = np.cumsum(n_chars + n) - (n_chars + n)
    keep = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], n_shingles)
    return _mix(hashes[keep]), offsets


def shingle_sets(texts: pa.Array, n: int) -> csr_array:
    """The set of shingles of every text, as the rows of a sparse matrix of ones.

    Args:
        texts: N strings without nulls.
        n: Characters in a shingle.

    Returns:
        N rows, each with its shingles' hashes (63 bits of them) as sorted, unique column numbers.
    """
    hashes, offsets = shingle_hashes(texts, n)
    columns = (hashes >> np.uint64(1)).astype(np.int64)
    return _sets(columns, offsets)


def _sets(columns: NDArray[np.int64], offsets: NDArray[np.int64]) -> csr_array:
    ones = np.ones(len(columns), dtype=np.int32)
    sets = csr_array((ones, columns, offsets), shape=(len(offsets) - 1, 1 << 62), copy=False)
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def jaccard(sets: csr_array, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """The exact Jaccard similarity of pairs of rows.

    Args:
        sets: Rows from ``shingle_sets``.
        left: P row numbers.
        right: P row numbers.

    Returns:
        P similarities between 0 and 1.
    """
    sizes = np.diff(sets.indptr)
    result = np.empty(len(left))
    for start in range(0, len(left), _PAIRS_AT_ONCE):
        i, j = left[start : start + _PAIRS_AT_ONCE], right[start : start + _PAIRS_AT_ONCE]
        both = np.diff(sets[i].multiply(sets[j]).tocsr().indptr)
        result[start : start + _PAIRS_AT_ONCE] = both / (sizes[i] + sizes[j] - both)
    return result
