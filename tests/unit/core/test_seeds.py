"""Named streams of randomness: independent, repeatable for ever, and committed to before they are used."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json
from danlu.core.seeds import STREAMS, Seeds

KNOWN = Seeds(bytes(range(32)), {name: bytes([i]) * 32 for i, name in enumerate(STREAMS)})

# What follows was computed once and must never change: old records are opened with it.
GOLDEN = {
    "init": (
        "923dfc380f63813dcd2183c2b0ff2436c094553042d9420a98d4f92e0663cdf1",
        "3279023cdb77651a68b660e913bc37d1cd477a9555963572d89e8b44cdaf24fe",
    ),
    "order": (
        "fa5e1a084057fb3e651573b4c5a6065d0d8860db0b86a8931caf31d7aeae9df3",
        "9e727b93a19a5e025ac41b6b10077ef29bd61e16746185af012f006cd5936063",
    ),
    "dropout": (
        "e34de09ecdc5eca0649c65f7907d907d9e4094ae6dc6a31b8f1f8625912d32c0",
        "2afa102d5fd97ac5f21ac2c738afe8ce0523d42e44e933dd8f186a814d57ad6c",
    ),
    "augment": (
        "0a60aefba10970d3031e99a0de68335c866b24a16c45bbdf5547e79044cd20b9",
        "e43e199eb59cc5bc33359a12aa06e45bdeb8ebe5ba2b537534923d84c8e8be98",
    ),
    "sample": (
        "d7e3e372a34ea06f91f279b2905b7b8bfb28bc44b45badb2e6346b3d588670e1",
        "01df143e42640e53a41aadd5fe794a6c687df80dfb54c0ff12b31b9f3badbf67",
    ),
}


@pytest.mark.parametrize("stream", GOLDEN)
def test_keys_and_commitments_never_drift(stream: str) -> None:
    key, commitment = GOLDEN[stream]
    assert KNOWN.key(stream).hex() == key
    assert KNOWN.commitments()[stream] == commitment


def test_a_stream_may_be_added_and_none_taken_away() -> None:
    assert STREAMS[: len(GOLDEN)] == tuple(GOLDEN)


def test_positions_never_drift() -> None:
    assert KNOWN.at("order", 3) == 3784731850223870277
    assert KNOWN.at("init", "encoder.0.weight") == 3688354285422892217
    assert KNOWN.at("dropout", 12345) == 4969310203486938841
    assert KNOWN.at("sample") == 5919061397530613826


def test_generators_never_drift() -> None:
    generator = KNOWN.generator("order", 3)
    assert generator.permutation(10).tolist() == [3, 7, 8, 0, 5, 9, 1, 4, 6, 2]
    assert generator.integers(0, 1000, 5).tolist() == [462, 730, 322, 220, 214]
    assert generator.random(2).tolist() == [0.29008973980497577, 0.14583004580867664]


def test_a_word_gives_the_same_root_for_ever() -> None:
    assert Seeds.new("7").root.hex() == "57e706ba3b3d2954178a6bea1aee3dae940f0b0b09cf23211836c706b3f871f0"
    assert Seeds.new("7").root != Seeds.new("8").root


def test_without_a_word_every_root_is_new() -> None:
    roots = {Seeds.new().root for _ in range(20)}
    assert len(roots) == 20
    assert {len(root) for root in roots} == {32}


def test_nonces_are_random_even_with_a_word_so_that_commitments_tell_nothing() -> None:
    first, second = Seeds.new("7"), Seeds.new("7")
    assert first.key("init") == second.key("init")
    assert not set(first.commitments().values()) & set(second.commitments().values())
    assert len(set(first.nonces.values())) == len(STREAMS)


@given(st.text())
def test_a_commitment_opens_with_key_and_nonce_and_with_no_others(seed: str) -> None:
    seeds = Seeds.new(seed)
    for (opened, commitment), keyed, nonced in itertools.product(seeds.commitments().items(), STREAMS, STREAMS):
        opens = hashlib.sha256(seeds.key(keyed) + seeds.nonces[nonced]).hexdigest() == commitment
        assert opens == (opened == keyed == nonced)


def test_a_misspelt_stream_is_no_stream() -> None:
    for call in (KNOWN.key, KNOWN.at, KNOWN.generator):
        with pytest.raises(KeyError):
            call("ordre")


@given(st.text(), st.integers(0, 10**9))
def test_a_position_is_a_63_bit_number(seed: str, step: int) -> None:
    assert 0 <= Seeds.new(seed).at("dropout", step) < 2**63


def test_streams_and_positions_are_independent() -> None:
    n = 4000
    draws = [KNOWN.generator(stream, epoch).standard_normal(n) for stream in STREAMS for epoch in range(4)]
    correlations = np.asarray(np.corrcoef(draws))[np.triu_indices(len(draws), 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(n)
    by_step = np.array([KNOWN.generator("dropout", step).standard_normal() for step in range(n)])
    assert abs(by_step.mean()) < 5 / np.sqrt(n)
    assert abs(np.asarray(np.corrcoef(by_step[:-1], by_step[1:]))[0, 1]) < 5 / np.sqrt(n)


def test_one_stream_does_not_depend_on_how_much_of_another_was_used() -> None:
    before = KNOWN.generator("init", 0).random()
    KNOWN.generator("order", 0).random(1000)
    assert KNOWN.generator("init", 0).random() == before


def test_parts_of_a_position_do_not_run_together() -> None:
    places = [(1, 23), (12, 3), (123,), (1, 2, 3), (), (0,), ("x", 1), ("x1",)]
    assert len({KNOWN.at("order", *place) for place in places}) == len(places)


def test_only_the_owner_can_read_the_seed_file(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    seeds = Seeds.new()
    seeds.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Seeds.load(path) == seeds


def test_secrets_are_not_printed() -> None:
    assert KNOWN.root.hex() not in repr(KNOWN)
    assert repr(KNOWN.root) not in repr(KNOWN)
    assert repr(KNOWN.nonces["order"]) not in repr(KNOWN)


def test_a_damaged_seed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    KNOWN.save(path)
    good = read_json(path)
    short = {**good["nonces"], "init": "ab"}
    missing = {name: nonce for name, nonce in good["nonces"].items() if name != "order"}
    bad_ones: tuple[object, ...] = (
        [],
        None,
        {},
        {"root": good["root"]},
        {**good, "root": ""},
        {**good, "root": "zz" * 32},
        {**good, "root": 5},
        {**good, "nonces": short},
        {**good, "nonces": missing},
    )
    for bad in bad_ones:
        write_json(path, bad)
        with pytest.raises(CorruptError, match="not a seed file"):
            Seeds.load(path)
