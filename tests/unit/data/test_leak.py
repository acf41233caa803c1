from __future__ import annotations

import re
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data import shingles
from danlu.data.leak import find_leaks
from danlu.data.normalize import normal_key


def brute_force(texts: list[str], rank: list[int], n: int, floor: float) -> dict[tuple[int, int], float]:
    """Every pair of different rank at or above the floor, by comparing all with all."""
    sets = []
    for text in texts:
        key = normal_key(text)
        bare = re.sub(r"[\W_]", "", key) or key
        sets.append(frozenset(bare[i : i + n] for i in range(max(len(bare) - n + 1, 1))))
    found = {}
    for i, j in product(range(len(texts)), repeat=2):
        similarity = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        if rank[i] > rank[j] and similarity >= floor:
            found[i, j] = similarity
    return found


def search(texts: list[str], rank: list[int], n: int, floor: float) -> dict[tuple[int, int], float]:
    leaks = find_leaks(pa.array(texts, pa.string()), np.array(rank, dtype=np.int64), n=n, floor=floor)
    pairs = list(zip(leaks.held_out.tolist(), leaks.other.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert leaks.n_compared >= len(pairs)
    return dict(zip(pairs, leaks.jaccard.tolist(), strict=True))


RECORDS = st.lists(st.tuples(st.text(alphabet="很好书不a。", max_size=10), st.integers(0, 2)), max_size=14)


@given(RECORDS, st.integers(1, 4), st.sampled_from([0.1, 0.5, 0.7, 0.75, 1.0]))
def test_no_pair_is_missed_and_none_invented(records: list[tuple[str, int]], n: int, floor: float) -> None:
    texts, rank = [text for text, _ in records], [split for _, split in records]
    found, expected = search(texts, rank, n, floor), brute_force(texts, rank, n, floor)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("matches_at_once", [1, 50, 1 << 21])
@pytest.mark.parametrize("floor", [0.3, 0.7])
def test_no_pair_is_missed_among_many_whatever_the_memory(
    matches_at_once: int, floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    texts: list[str] = []
    for _ in range(150):
        if texts and rng.random() < 0.6:
            chars = list(texts[rng.integers(len(texts))])
            for _ in range(rng.integers(0, 6)):
                chars[rng.integers(len(chars))] = chr(rng.integers(0x4E00, 0x4E40))
            texts.append("".join(chars))
        else:
            texts.append("".join(chr(c) for c in rng.integers(0x4E00, 0x4E40, rng.integers(5, 60))))
    rank = rng.choice(3, 150, p=[0.6, 0.2, 0.2]).tolist()
    monkeypatch.setattr("danlu.data.leak._MATCHES_AT_ONCE", matches_at_once)
    slabs = shingles.slabs
    monkeypatch.setattr("danlu.data.leak.slabs", lambda part: slabs(part, 300))
    found, expected = search(texts, rank, 3, floor), brute_force(texts, rank, 3, floor)
    assert len(expected) > 30
    assert found == pytest.approx(expected)


def test_nothing_held_out_is_nothing_to_find() -> None:
    assert search(["a", "a"], [0, 0], 3, 0.5) == {}
    assert search([], [], 3, 0.5) == {}
