from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from danlu.core.errors import DataError
from danlu.data.split import SPLITS, SplitConfig, given_splits, hash_splits

DIGESTS = [hashlib.sha256(str(i).encode()).digest() for i in range(20_000)]


def test_shares_are_those_asked_for() -> None:
    counts = np.bincount(hash_splits(DIGESTS, SplitConfig(valid=0.1, test=0.2)), minlength=3) / len(DIGESTS)
    assert counts.tolist() == pytest.approx([0.7, 0.1, 0.2], abs=4 * 0.5 / np.sqrt(len(DIGESTS)))


@given(st.lists(st.integers(0, 19_999), max_size=30, unique=True), st.integers(0, 3))
def test_a_text_is_in_the_same_split_whatever_else_there_is(chosen: list[int], seed: int) -> None:
    config = SplitConfig(seed=seed)
    alone = [int(hash_splits([DIGESTS[i]], config)[0]) for i in chosen]
    assert hash_splits([DIGESTS[i] for i in chosen], config).tolist() == alone


def test_another_seed_is_another_split_and_a_larger_test_holds_the_smaller() -> None:
    base, other = hash_splits(DIGESTS, SplitConfig()), hash_splits(DIGESTS, SplitConfig(seed=1))
    assert 0.1 < np.mean(base != other) < 0.6
    larger = hash_splits(DIGESTS, SplitConfig(test=0.3))
    assert set(np.flatnonzero(base == 2)) < set(np.flatnonzero(larger == 2))


def test_a_split_is_fixed_for_ever() -> None:
    """A change here moves texts of everyone's test set into train."""
    assert "".join(SPLITS[i][1] for i in hash_splits(DIGESTS[:40], SplitConfig(valid=0.3, test=0.3)).tolist()) == (
        "raeerreaarrrrerareraeaeaararrraerrerrrer"
    )


def test_shares_must_leave_a_train_split() -> None:
    with pytest.raises(ValidationError, match="nothing to train on"):
        SplitConfig(valid=0.5, test=0.5)


def test_given_splits() -> None:
    assert given_splits(["test", "train", "valid"], ["a:1", "a:2", "a:3"], "part").tolist() == [2, 0, 1]
    with pytest.raises(DataError, match=r"(?s)'part' says 'dev'.*where: a:2.*train, valid, test"):
        given_splits(["test", "dev"], ["a:1", "a:2"], "part")
