from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from danlu.core.errors import UsageError
from danlu.improve.sequence import Mixture, difference_interval


def test_values_published_with_the_authors_own_software():
    """v_opt = 100, alpha = 0.05, c = 2: the reference values of confseq 0.0.11, which are from R."""
    mixture = Mixture.tuned(2.0, 100.0, 0.05)
    assert mixture.log_evidence(10, 100) == pytest.approx(-0.2490165, abs=1e-5)
    assert mixture.boundary(100, 0.05) == pytest.approx(33.02017, abs=1e-5)


@pytest.mark.parametrize(("sum_", "variation"), [(-2.0, 2.0), (0.0, 0.0), (5.0, 10.0), (40.0, 300.0), (90.0, 50.0)])
@pytest.mark.parametrize("bound", [0.5, 1.0, 10 / 3])
def test_the_closed_form_is_the_mean_over_gamma(sum_: float, variation: float, bound: float):
    """Against its definition, by quadrature: 1 - cL is a gamma variable of shape and rate rho / c^2, below 1."""
    mixture = Mixture(bound, 7.0)

    def f(rate: float) -> float:
        return (-np.log1p(-bound * rate) - bound * rate) / bound**2

    shape = mixture.rho / bound**2
    weight = stats.gamma(shape, scale=1 / shape)

    def integrand(rate: float) -> float:
        return np.exp(rate * sum_ - f(rate) * variation) * weight.pdf(1 - bound * rate) * bound / weight.cdf(1)

    expected, _ = integrate.quad(integrand, 0, 1 / bound, epsabs=0, limit=200)
    assert mixture.log_evidence(sum_, variation) == pytest.approx(np.log(expected), abs=1e-6)


def test_the_boundary_is_where_the_evidence_suffices():
    mixture = Mixture.tuned(2.0, 100.0, 0.025)
    variation = np.array([0.0, 1.0, 50.0, 1e4, 1e6])
    edge = mixture.boundary(variation, 0.025)
    assert (np.diff(edge) > 0).all()
    np.testing.assert_allclose(mixture.log_evidence(edge, variation), np.log(40), atol=1e-6)


def test_a_sum_far_below_is_no_evidence():
    assert Mixture(1.0, 5.0).log_evidence(-1e6, 10.0) == -np.inf


def test_the_sequence_covers_the_running_mean_at_all_times():
    """Skewed numbers near the bound, whose mean moves: 1,000 sequences of 500, looked at after each."""
    rng = np.random.default_rng(5)
    level, n = 0.1, 500
    rate_T = np.clip(0.05 + 0.2 * np.sin(np.arange(n) / 40), 0.01, 1)
    numbers_ET = np.where(rng.random((1000, n)) < rate_T, 1.0, -0.1)
    mean_T = np.cumsum(1.1 * rate_T - 0.1)
    mixture = Mixture.tuned(1.0, 30.0, level / 2)
    excess_ET = np.cumsum(numbers_ET, 1) - mean_T
    edge_ET = np.interp(
        np.cumsum(numbers_ET**2, 1), grid := np.linspace(0, 200, 2001), mixture.boundary(grid, level / 2)
    )
    missed = (np.abs(excess_ET) > edge_ET).any(1)
    assert stats.binomtest(int(missed.sum()), 1000, level, alternative="greater").pvalue > 0.001
    assert missed.sum() > 0  # it is not so wide as to say nothing
    fixed = 1.645 * np.sqrt(np.cumsum(rate_T * (1 - rate_T) * 1.21))
    assert (np.abs(excess_ET) > fixed)[:, 30:].any(1).mean() > 2 * level  # what looking again and again does otherwise


def test_the_interval_is_the_boundary_around_the_mean():
    mixture = Mixture.tuned(2.0, 100.0, 0.025)
    interval = difference_interval(mixture, 20.0, 90.0, 100, 0.05)
    half = float(mixture.boundary(90.0, 0.025)) / 100
    assert interval == pytest.approx((0.2 - half, 0.2 + half))


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"level 0\.7"):
        Mixture.tuned(1.0, 10.0, 0.7)
