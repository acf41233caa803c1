from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from danlu.core.errors import DataError
from danlu.monitor.service import failure_shift, slow_shift


def test_the_exceedance_test_is_exact():
    """Against the share of all orders, by simulation, of a small case: 40 and 10 latencies."""
    rng = np.random.default_rng(0)
    p = np.array([slow_shift(rng.exponential(size=40), rng.exponential(size=10), 0.95).p for _ in range(4000)])
    for level in np.unique(p)[:4]:
        assert stats.binomtest(int((p <= level).sum()), 4000, float(level)).pvalue > 0.001


def test_slower_is_found():
    rng = np.random.default_rng(1)
    found = slow_shift(rng.exponential(size=1000), 2 * rng.exponential(size=200), 0.95)
    assert found.p < 1e-6
    assert found.low < np.exp(-np.log(20) / 2) - 0.05 < found.high
    assert slow_shift(np.ones(100), np.ones(50), 0.95).p == 1.0


def test_failures_are_compared_exactly():
    found = failure_shift(10, 1000, 20, 200, 0.95)
    assert found.effect == pytest.approx(0.09)
    assert found.p == pytest.approx(stats.hypergeom.sf(19, 1200, 30, 200))
    assert found.low > 0


def test_newcombes_interval_is_the_published_one():
    """Newcombe 1998, table II, method 10: 56/70 - 48/80 is 0.2 with 0.0524 to 0.3339; 10/10 - 0/10 is 0.6075 to 1."""
    found = failure_shift(48, 80, 56, 70, 0.95)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    found = failure_shift(0, 10, 10, 10, 0.95)
    assert (found.low, found.high) == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="cannot have failed"):
        failure_shift(1, 10, 11, 10, 0.95)
    with pytest.raises(DataError, match="not a number"):
        slow_shift(np.full(30, np.nan), np.ones(5), 0.95)
    with pytest.raises(DataError, match="20 records"):
        slow_shift(np.ones(19), np.ones(5), 0.95)
