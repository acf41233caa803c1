from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats

from danlu.improve.evidence import CONCENTRATION, log_evidence_of_ratio, log_evidence_of_wins


def test_ratio_is_the_mean_likelihood_over_the_prior():
    share, counts = 0.3, (7, 20)
    prior = stats.beta(CONCENTRATION * share, CONCENTRATION * (1 - share))

    def ratio(q: float) -> float:
        return float((q / share) ** counts[0] * ((1 - q) / (1 - share)) ** counts[1])

    expected, _ = integrate.quad(lambda q: ratio(q) * prior.pdf(q), 0, 1)
    assert log_evidence_of_ratio(counts, [share, 1 - share]) == pytest.approx(np.log(expected))


def test_ratio_of_nobody_is_no_evidence():
    assert log_evidence_of_ratio([0, 0, 0], [0.2, 0.3, 0.5]) == pytest.approx(0.0)


def test_ratio_has_mean_one_under_the_planned_shares():
    """Summed over all counts of three arms: an identity, not a simulation."""
    n, shares = 12, np.array([0.2, 0.3, 0.5])
    counts = np.array([(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)])
    chance = stats.multinomial(n, shares).pmf(counts)
    assert (chance * np.exp(log_evidence_of_ratio(counts, shares))).sum() == pytest.approx(1.0)


def test_wins_are_the_mean_over_chances_above_a_half():
    for wins, losses in [(0, 0), (9, 2), (2, 9), (40, 20)]:
        expected, _ = integrate.quad(lambda h, w=wins, k=losses: 2 * (2 * h) ** w * (2 - 2 * h) ** k, 0.5, 1)
        assert log_evidence_of_wins(wins, losses) == pytest.approx(np.log(expected), abs=1e-8)


@pytest.mark.parametrize("chance", [0.5, 0.4, 0.1])
def test_wins_have_mean_one_at_most_under_the_null(chance: float):
    n, wins = 30, np.arange(31)
    mean = (stats.binom(n, chance).pmf(wins) * np.exp(log_evidence_of_wins(wins, n - wins))).sum()
    assert mean == pytest.approx(1.0) if chance == 0.5 else mean < 1


@pytest.mark.parametrize("kind", ["ratio", "wins"])
def test_the_level_holds_at_all_times_and_power_is_there(kind: str):
    rng = np.random.default_rng(11)
    n_T = np.arange(1, 2001)

    def ever(chance: float) -> float:
        first_ET = np.cumsum(rng.random((400, 2000)) < chance, axis=1)
        rest_ET = n_T - first_ET
        if kind == "ratio":
            log_e = log_evidence_of_ratio(np.stack([first_ET, rest_ET], -1), [0.5, 0.5])
        else:
            log_e = log_evidence_of_wins(first_ET, rest_ET)
        return float((log_e >= np.log(20)).any(1).mean())

    assert stats.binomtest(round(400 * ever(0.5)), 400, 0.05, alternative="greater").pvalue > 0.001
    assert ever(0.57) > 0.95
