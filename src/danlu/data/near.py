"""Near-duplicate texts: MinHash signatures, banded into candidates, every candidate verified.

A signature holds, for each of many random permutations of the shingles, the least permuted shingle; two texts agree at
a place with the probability of their Jaccard similarity (Broder 1997). Signatures cut into bands of rows and compared
band by band (locality-sensitive hashing, Indyk and Motwani 1998) give the candidates; the exact Jaccard similarity of
the shingle sets decides each, so a chance collision costs time and never a text. The time and memory of it all grow as
the text does: a bucket of many texts yields a bounded number of candidates a text, not all its pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from danlu.data.shingles import pair_jaccard, shingle_hashes

__all__ = ["NearPairs", "band_key_batch", "band_keys", "bands_for", "clusters", "near_pairs"]

_RECALL = 0.99
_BLOCK = 1 << 16
"""Shingles permuted at once: a block and its permutation stay in the second-level cache."""
_NEIGHBOURS = 8
"""Texts of its bucket that a text is compared with, beside the bucket's first."""


@dataclass(frozen=True)
class NearPairs:
    """Verified pairs of near-duplicates.

    Attributes:
        first: int64 [P]; the earlier text of each pair.
        second: int64 [P]; the later.
        jaccard: float64 [P]; their exact similarity.
        n_candidates: Pairs that were verified, these among them.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    jaccard: NDArray[np.float64]
    n_candidates: int


def bands_for(threshold: float, n_permutations: int) -> tuple[int, int]:
    """The bands and rows a band: as many rows as still catch 99% of the pairs that sit exactly at the threshold.

    Pairs above it are caught more often; those below that are caught too are weeded out by their exact similarity.

    Args:
        threshold: Jaccard similarity between 0 and 1.
        n_permutations: Length of the signature.

    Returns:
        Bands b and rows r with b * r <= n_permutations.
    """
    fitting = [
        (n_permutations // rows, rows)
        for rows in range(1, n_permutations + 1)
        if 1 - (1 - threshold**rows) ** (n_permutations // rows) >= _RECALL
    ]
    return fitting[-1] if fitting else (n_permutations, 1)


def band_keys(texts: pa.Array, *, n: int, bands: int, rows: int) -> NDArray[np.uint64]:
    """The bands of the MinHash signature of each text.

    Args:
        texts: N strings without nulls.
        n: Characters in a shingle.
        bands: Bands b of the signature.
        rows: Permutations r in a band.

    Returns:
        uint64 [N, b]: one hash a band; equal where all r least shingles are equal.
    """
    hashes, offsets = shingle_hashes(texts, n)
    shingles = (hashes >> np.uint64(32)).astype(np.uint32)
    # An odd multiplier permutes the 32-bit words; the words are well mixed already.
    words = np.random.Generator(np.random.PCG64(0xDA71)).integers(0, 1 << 32, bands * rows, dtype=np.uint32)
    multipliers = (words | np.uint32(1)).reshape(bands, rows)
    keys = np.empty((len(texts), bands), dtype=np.uint64)
    cuts = np.unique(np.append(np.searchsorted(offsets, np.arange(0, offsets[-1], _BLOCK)), len(texts)))
    for begin, end in itertools.pairwise(cuts):
        block = shingles[offsets[begin] : offsets[end]]
        starts = offsets[begin:end] - offsets[begin]
        permuted = np.empty_like(block)
        for band in range(bands):
            key = np.zeros(end - begin, dtype=np.uint64)
            for multiplier in multipliers[band]:
                np.multiply(block, multiplier, out=permuted)
                least = np.minimum.reduceat(permuted, starts)
                key = (key ^ least) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(32)
            keys[begin:end, band] = key
    return keys


def band_key_batch(batch: pa.RecordBatch, *, n: int, bands: int, rows: int) -> pa.RecordBatch:
    """``band_keys`` of the column ``text`` of a batch, as the column ``keys``: a list of b a text."""
    keys = pa.array(band_keys(batch.column("text"), n=n, bands=bands, rows=rows).ravel())
    return pa.RecordBatch.from_arrays([pa.FixedSizeListArray.from_arrays(keys, bands)], ["keys"])


def _candidates(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[P, 2]: each text with the first of its bucket and with the few before it there, the earlier text first."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    rank = np.arange(len(keys)) - np.repeat(begins, np.diff(begins, append=len(keys)))
    rest = np.flatnonzero(rank > _NEIGHBOURS)
    pairs = [(order[rest - rank[rest]], order[rest])]
    for back in range(1, _NEIGHBOURS + 1):
        rest = np.flatnonzero(rank >= back)
        pairs.append((order[rest - back], order[rest]))
    return np.concatenate([np.stack(pair, axis=1) for pair in pairs])


def near_pairs(texts: pa.Array | pa.ChunkedArray, bands: NDArray[np.uint64], *, n: int, threshold: float) -> NearPairs:
    """The pairs of texts that share a band and whose exact Jaccard similarity reaches the threshold.

    Args:
        texts: N strings without nulls.
        bands: uint64 [N, b] from ``band_keys`` of the same texts.
        n: Characters in a shingle.
        threshold: Jaccard similarity from which two texts are near-duplicates.

    Returns:
        The pairs, ordered; each once.
    """
    n_texts = max(len(texts), 1)
    codes = np.zeros(0, dtype=np.int64)
    for band in range(bands.shape[1]):
        pairs = _candidates(bands[:, band])
        codes = np.union1d(codes, pairs[:, 0] * n_texts + pairs[:, 1])
    first, second = np.divmod(codes, n_texts)
    similarity = pair_jaccard(texts, first, second, n)
    near = similarity >= threshold
    return NearPairs(first[near], second[near], similarity[near], len(codes))


def clusters(n_texts: int, first: Iterable[int], second: Iterable[int]) -> NDArray[np.int64]:
    """The clusters that pairs of texts join, named by their first text.

    Args:
        n_texts: N.
        first: One text of each pair.
        second: The other.

    Returns:
        int64 [N]: the lowest number in each text's cluster.
    """
    rows, columns = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n_texts, n_texts))
    _, component = connected_components(graph, directed=False)
    lowest = np.full(n_texts, n_texts, dtype=np.int64)
    np.minimum.at(lowest, component, np.arange(n_texts))
    names: NDArray[np.int64] = lowest[component]
    return names
