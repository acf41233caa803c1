"""The proof that splits do not leak: an exact search for similar texts on the two sides of a split.

This is not MinHash. If two sets have Jaccard similarity t or more, and the elements of both are put into one global
order, then their first ``n - ceil(t n) + 1`` elements (n: the size of each) have one in common: prefix filtering
(Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search"; Xiao et al. 2008, "Efficient similarity joins
for near duplicate detection"). Ordered from the rarest shingle on, prefixes seldom meet by chance. Pairs whose bitmaps
already differ in too many bits are set aside too (Sandes, Teodoro and Melo 2020, "Bitmap filter: speeding up exact set
similarity joins"). What remains is compared; none at or above t is missed.

The prefixes of the held-out texts are indexed; the others stream past in slabs. Memory is that of the index and a slab.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.data.shingles import as_sets, pair_jaccard, shingle_hashes, slabs

__all__ = ["Leaks", "find_leaks"]

_MATCHES_AT_ONCE = 1 << 21
_RARITY_BITS = 22
_WORDS = 8
"""64-bit words in a bitmap."""
_ROUNDING = 1e-9
"""Slack on the safe side, where a product such as 0.7 * 10 comes out above 7."""

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Leaks:
    """Every pair of similar texts in two different splits.

    Attributes:
        held_out: int64 [P]; the text on the side of the higher rank.
        other: int64 [P]; the text on the side of the lower.
        jaccard: float64 [P]; their exact similarity, at least the floor.
        n_compared: Pairs whose similarity was computed; all others were proved to be below the floor.
    """

    held_out: _Ints
    other: _Ints
    jaccard: NDArray[np.float64]
    n_compared: int


@dataclass(frozen=True)
class _Side:
    """Some texts as the search sees them.

    Attributes:
        rows: int64 [M]; their numbers.
        sizes: int64 [M]; the sizes of their sets.
        bitmaps: uint64 [M, words]; for each bit, whether an odd number of a set's elements hash to it.
        element: int64 [E]; the prefix elements of all.
        owner: int64 [E]; which of the M each is of.
        place: int64 [E]; its place in the order of its set.
    """

    rows: _Ints
    sizes: _Ints
    bitmaps: NDArray[np.uint64]
    element: _Ints
    owner: _Ints
    place: _Ints


def find_leaks(texts: pa.Array | pa.ChunkedArray, rank: NDArray[np.int64], *, n: int, floor: float) -> Leaks:
    """Finds every pair of texts of different rank whose Jaccard similarity is at least the floor.

    Args:
        texts: N strings without nulls.
        rank: int64 [N]; 0 for train, higher for what is held out (valid 1, test 2).
        n: Characters in a shingle.
        floor: The least similarity to be found, above 0.

    Returns:
        The pairs, each once, ordered.
    """
    held_out = np.flatnonzero(rank > 0)
    rarity = _rarity(texts, held_out, n)
    index = _index([_side(texts, rows, n, floor, rarity) for rows in _slabs_of(texts, held_out)])
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    n_compared = 0
    others = np.flatnonzero(rank < rank.max(initial=0))
    for rows in _slabs_of(texts, others):
        for i, j in _candidates(index, _side(texts, rows, n, floor, rarity), floor):
            crossing = rank[i] > rank[j]
            i, j = i[crossing], j[crossing]
            similarity = pair_jaccard(texts, i, j, n)
            n_compared += len(i)
            hit = similarity >= floor
            found.append((i[hit], j[hit], similarity[hit]))
    i, j, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    _, once = np.unique(i * np.int64(len(texts)) + j, return_index=True)
    return Leaks(i[once], j[once], similarity[once], n_compared)


def _slabs_of(texts: pa.Array | pa.ChunkedArray, rows: _Ints) -> Iterator[_Ints]:
    for begin, end in slabs(texts):
        yield rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]


def _rarity(texts: pa.Array | pa.ChunkedArray, rows: _Ints, n: int) -> _Ints:
    """How often shingles were seen, by the first bits of their hashes; any order of them would be correct."""
    seen = np.zeros(1 << _RARITY_BITS, dtype=np.int64)
    for part in _slabs_of(texts, rows):
        hashes, _ = shingle_hashes(texts.take(pa.array(part)), n)
        np.add.at(seen, hashes >> np.uint64(64 - _RARITY_BITS), 1)
    return seen


def _side(texts: pa.Array | pa.ChunkedArray, rows: _Ints, n: int, floor: float, rarity: _Ints) -> _Side:
    hashes, offsets = shingle_hashes(texts.take(pa.array(rows)), n)
    seen = rarity[hashes >> np.uint64(64 - _RARITY_BITS)]
    level = np.minimum(4 * np.log2(seen + 1), 127).astype(np.int64)
    sets = as_sets((level << 56) | (hashes >> np.uint64(8)).astype(np.int64), offsets)
    sizes = np.diff(sets.indptr).astype(np.int64)

    bitmaps = np.zeros(len(rows) * _WORDS, dtype=np.uint64)
    word = np.repeat(np.arange(len(rows)) * _WORDS, sizes) + (sets.indices >> 6) % _WORDS
    np.bitwise_xor.at(bitmaps, word, np.uint64(1) << (sets.indices & 63).astype(np.uint64))

    lengths = sizes - np.ceil(floor * sizes - _ROUNDING).astype(np.int64) + 1
    ends = np.cumsum(lengths)
    place = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    element = sets.indices[np.repeat(sets.indptr[:-1], lengths) + place]
    owner = np.repeat(np.arange(len(rows)), lengths)
    return _Side(rows, sizes, bitmaps.reshape(len(rows), _WORDS), element, owner, place)


def _index(sides: list[_Side]) -> _Side:
    """Sides one after the other, as one whose elements are sorted."""
    begins = np.cumsum([0, *(len(side.rows) for side in sides)])
    element = np.concatenate([np.zeros(0, np.int64), *(side.element for side in sides)])
    owner = [side.owner + begin for side, begin in zip(sides, begins[:-1], strict=True)]
    order = np.argsort(element, kind="stable")
    return _Side(
        rows=np.concatenate([np.zeros(0, np.int64), *(side.rows for side in sides)]),
        sizes=np.concatenate([np.zeros(0, np.int64), *(side.sizes for side in sides)]),
        bitmaps=np.concatenate([np.zeros((0, _WORDS), np.uint64), *(side.bitmaps for side in sides)]),
        element=element[order],
        owner=np.concatenate([np.zeros(0, np.int64), *owner])[order],
        place=np.concatenate([np.zeros(0, np.int64), *(side.place for side in sides)])[order],
    )


def _candidates(index: _Side, asked: _Side, floor: float) -> Iterator[tuple[_Ints, _Ints]]:
    """Pairs that share a prefix element and that sizes, places and bitmaps allow; a bounded number at once."""
    low = np.searchsorted(index.element, asked.element, "left")
    counts = np.searchsorted(index.element, asked.element, "right") - low
    some = np.flatnonzero(counts)
    low, counts = low[some], counts[some]
    total = np.cumsum(counts)
    cuts = np.unique(np.append(np.searchsorted(total, np.arange(0, counts.sum(), _MATCHES_AT_ONCE)), len(some)))
    for begin, end in itertools.pairwise(cuts):
        part = counts[begin:end]
        last = np.cumsum(part)
        left = np.repeat(low[begin:end] - (last - part), part) + np.arange(last[-1])
        right = np.repeat(some[begin:end], part)
        i, j = index.owner[left], asked.owner[right]
        # At most this many elements are common: those before the match, the match, those after it.
        before = np.minimum(index.place[left], asked.place[right])
        after = np.minimum(index.sizes[i] - index.place[left], asked.sizes[j] - asked.place[right])
        possible = _allows(before + after, index.sizes[i] + asked.sizes[j], floor)
        pairs = np.unique((i[possible] << 32) | j[possible])
        i, j = pairs >> 32, pairs & 0xFFFFFFFF
        # Every bit in which the bitmaps differ is an element that only one of the two sets has.
        n_differ = np.bitwise_count(index.bitmaps[i] ^ asked.bitmaps[j]).sum(axis=1, dtype=np.int64)
        sizes = index.sizes[i] + asked.sizes[j]
        possible = _allows((sizes - n_differ) // 2, sizes, floor)
        yield index.rows[i[possible]], asked.rows[j[possible]]


def _allows(n_common: _Ints, sizes: _Ints, floor: float) -> NDArray[np.bool_]:
    """Whether two sets of these sizes together, with at most so many elements in common, may reach the floor."""
    return np.asarray(n_common >= floor * (sizes - n_common) - _ROUNDING, dtype=bool)
