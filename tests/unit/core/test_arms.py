from __future__ import annotations

import hashlib

import pytest
from scipy import stats

from danlu.core.errors import UsageError
from danlu.core.experiments import arm_of

HALF = {"challenger": 0.5, "champion": 0.5}


def arms(experiment: str, shares: dict[str, float], n: int = 20_000) -> list[str]:
    return [arm_of(f"user-{k}", experiment, shares) for k in range(n)]


def test_an_assignment_stays_as_it_is():
    """By the definition, written out again."""
    assert arms("e", HALF, 100) == arms("e", HALF, 100)
    message = (1).to_bytes(8, "big") + b"e" + b"user-7"
    place = int(hashlib.sha256(message).hexdigest()[:16], 16) / 2**64
    assert arm_of("user-7", "e", HALF) == ("challenger" if place < 0.5 else "champion")


def test_shares_are_kept():
    shares = {"challenger": 0.1, "second": 0.3, "champion": 0.6}
    found = arms("e", shares)
    observed = [found.count(arm) for arm in shares]
    assert stats.chisquare(observed, [share * len(found) for share in shares.values()]).pvalue > 0.001


def test_experiments_deal_independently():
    one, other = arms("one", HALF), arms("other", HALF)
    both = sum(a == b for a, b in zip(one, other, strict=True))
    assert stats.binomtest(both, len(one), 0.5).pvalue > 0.001


def test_name_and_user_are_told_apart():
    pairs = [(arm_of(f"a{k}", "e", HALF), arm_of(str(k), "ea", HALF)) for k in range(2000)]
    assert 800 < sum(a == b for a, b in pairs) < 1200


def test_more_share_moves_nobody_out():
    small, large = (arms("e", {"challenger": share, "champion": 1 - share}) for share in (0.1, 0.4))
    assert all(b == "challenger" for a, b in zip(small, large, strict=True) if a == "challenger")


def test_an_arm_without_share_gets_nobody():
    assert set(arms("e", {"champion": 1.0, "challenger": 0.0}, 1000)) == {"champion"}


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan"), "b": 1.0}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]):
    with pytest.raises(UsageError, match="sum to 1"):
        arm_of("u", "e", shares)
