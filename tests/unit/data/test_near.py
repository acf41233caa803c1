from __future__ import annotations

import functools
import re
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.near import band_keys, bands_for, clusters, near_pairs
from danlu.data.normalize import normal_key
from danlu.data.shingles import pair_jaccard, shingle_hashes, slabs

TEXTS = st.lists(st.text(alphabet="很好书不错ab, 。!", max_size=14), min_size=2, max_size=8)


@functools.cache
def shingles(text: str, n: int) -> frozenset[str]:
    """The set by plain Python: n-grams of the key without punctuation, or of the key where nothing else is left."""
    key = normal_key(text)
    bare = re.sub(r"[\W_]", "", key) or key
    return frozenset(bare[i : i + n] for i in range(max(len(bare) - n + 1, 1)))


def brute_jaccard(a: str, b: str, n: int) -> float:
    left, right = shingles(a, n), shingles(b, n)
    return len(left & right) / len(left | right)


def corpus(n_texts: int, seed: int, length: int = 40) -> list[str]:
    """Random texts, and copies of earlier ones with a few characters changed."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    for _ in range(n_texts):
        if texts and rng.random() < 0.5:
            chars = list(texts[rng.integers(len(texts))])
            for _ in range(rng.integers(0, 5)):
                chars[rng.integers(len(chars))] = chr(rng.integers(0x4E00, 0x5200))
            texts.append("".join(chars))
        else:
            texts.append("".join(chr(c) for c in rng.integers(0x4E00, 0x5200, rng.integers(8, length))))
    return texts


def all_bands(texts: pa.Array, n: int, threshold: float, n_permutations: int = 64) -> np.ndarray:
    bands, rows = bands_for(threshold, n_permutations)
    return band_keys(texts, n=n, bands=bands, rows=rows)


@given(TEXTS, st.integers(1, 7))
def test_shingles_are_the_sets_that_python_makes(texts: list[str], n: int) -> None:
    hashes, offsets = shingle_hashes(pa.array(texts), n)
    rows = [frozenset(hashes[a:b].tolist()) for a, b in pairwise(offsets)]
    for i, j in combinations(range(len(texts)), 2):
        assert len(rows[i]) == len(shingles(texts[i], n))
        # Equal hashes for equal shingles and different ones for different: the overlap of every pair agrees.
        assert len(rows[i] & rows[j]) == len(shingles(texts[i], n) & shingles(texts[j], n))


@given(TEXTS, st.integers(1, 5))
def test_jaccard_is_exact(texts: list[str], n: int) -> None:
    first, second = np.array(list(combinations(range(len(texts)), 2))).T
    found = pair_jaccard(pa.array(texts), first, second, n)
    expected = [brute_jaccard(texts[i], texts[j], n) for i, j in zip(first, second, strict=True)]
    assert found.tolist() == pytest.approx(expected)


def test_jaccard_does_not_depend_on_how_pairs_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.chunked_array([corpus(30, 0), corpus(20, 1)])
    first, second = np.array(list(combinations(range(50), 2))).T
    whole = pair_jaccard(texts, first, second, 3)
    monkeypatch.setattr("danlu.data.shingles._PAIRS_AT_ONCE", 7)
    assert pair_jaccard(texts, first, second, 3).tolist() == whole.tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_pairs_and_clusters_are_those_of_comparing_all_with_all(threshold: float) -> None:
    texts = corpus(250, seed=3)
    expected = {(i, j) for i, j in combinations(range(250), 2) if brute_jaccard(texts[i], texts[j], 3) >= threshold}
    assert len(expected) > 40
    pairs = near_pairs(pa.array(texts), all_bands(pa.array(texts), 3, threshold), n=3, threshold=threshold)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found <= expected
    assert len(found) >= 0.97 * len(expected)
    assert pairs.jaccard.min() >= threshold


def test_signatures_estimate_the_similarity_as_datasketch_does() -> None:
    """The share of agreeing places is the Jaccard similarity, with the error of that many permutations."""
    rng = np.random.default_rng(5)
    base = [chr(c) for c in rng.integers(0x4E00, 0x9000, 120)]
    texts = []
    for n_changed in range(0, 60, 3):
        chars = list(base)
        for at in rng.choice(120, n_changed, replace=False):
            chars[at] = chr(rng.integers(0x3400, 0x4000))
        texts.append("".join(chars))
    k = 1024
    keys = band_keys(pa.array(texts), n=3, bands=k, rows=1)
    ours = (keys == keys[0]).mean(axis=1)
    exact = np.array([brute_jaccard(texts[0], text, 3) for text in texts])
    hashes = [MinHash(num_perm=k, seed=1) for _ in texts]
    for minhash, text in zip(hashes, texts, strict=True):
        minhash.update_batch([shingle.encode() for shingle in shingles(text, 3)])
    theirs = np.array([hashes[0].jaccard(minhash) for minhash in hashes])
    assert np.abs(ours - exact).max() < 4 * 0.5 / np.sqrt(k)
    assert np.sqrt(np.mean((ours - exact) ** 2)) < 2 * np.sqrt(np.mean((theirs - exact) ** 2)) + 0.005


def test_signature_of_a_text_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([*corpus(60, 7), "", "。", "好"])
    whole = band_keys(texts, n=3, bands=5, rows=3)
    monkeypatch.setattr("danlu.data.near._BLOCK", 64)
    assert (band_keys(texts, n=3, bands=5, rows=3) == whole).all()
    assert (np.concatenate([band_keys(texts[i : i + 1], n=3, bands=5, rows=3) for i in range(63)]) == whole).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("k", [16, 64, 128])
def test_bands_catch_what_they_promise(threshold: float, k: int) -> None:
    bands, rows = bands_for(threshold, k)
    assert bands * rows <= k
    assert 1 - (1 - threshold**rows) ** bands >= 0.99 or (bands, rows) == (k, 1)


def test_a_thousand_copies_of_a_template_are_one_cluster_at_linear_cost() -> None:
    rng = np.random.default_rng(0)
    template = "".join(chr(c) for c in rng.integers(0x4E00, 0x9000, 80))
    texts = pa.array([template + str(i) for i in range(1000)])
    pairs = near_pairs(texts, all_bands(texts, 3, 0.7), n=3, threshold=0.7)
    assert pairs.n_candidates <= 21 * 9 * 1000 < 1000 * 999 / 2
    assert set(clusters(1000, pairs.first, pairs.second).tolist()) == {0}


def test_texts_that_differ_by_punctuation_are_near_and_empty_input_works() -> None:
    texts = pa.array(["性价比高。", "性价比高；", "漂亮", "！？", "。"])
    pairs = near_pairs(texts, all_bands(texts, 3, 0.7), n=3, threshold=0.7)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.jaccard.tolist(), strict=True)) == [(0, 1, 1.0)]
    nothing = near_pairs(texts[:0], np.zeros((0, 21), np.uint64), n=3, threshold=0.7)
    assert len(nothing.first) == 0
    assert clusters(0, [], []).tolist() == []


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_clusters_are_what_union_find_makes(graph: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = graph
    parent = list(range(n))

    def root(x: int) -> int:
        while parent[x] != x:
            x = parent[x]
        return x

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    found = clusters(n, [a for a, _ in edges], [b for _, b in edges])
    assert found.tolist() == [root(x) for x in range(n)]


@given(st.lists(st.text(max_size=9), max_size=12), st.integers(1, 20))
def test_slabs_cover_all_texts_once(texts: list[str], n_chars: int) -> None:
    parts = list(slabs(pa.array(texts, pa.string()), n_chars))
    assert [i for begin, end in parts for i in range(begin, end)] == list(range(len(texts)))
    assert all(sum(map(len, texts[begin : end - 1])) <= n_chars for begin, end in parts)
