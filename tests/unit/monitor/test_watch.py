from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from danlu.core.errors import DataError, UsageError
from danlu.evaluate.significance import holm
from danlu.monitor.watch import STRENGTHS, RankEvidence, Watch, log_bet, reference_windows


def test_places_are_uniform_and_independent_whatever_the_reference():
    """Three reference windows and ties: the worst case for thresholds. Places of 5 windows in 20,000 sequences."""
    rng = np.random.default_rng(0)
    evidence = RankEvidence(rng.integers(0, 3, (3, 20_000)).astype(float), rng)
    places = []
    for _ in range(5):
        evidence.observe(rng.integers(0, 3, 20_000).astype(float))
        places.append(evidence.p_J)
    for place_J in places:
        assert stats.kstest(place_J, "uniform").pvalue > 0.0005
    correlation = np.corrcoef(places)[np.triu_indices(5, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)
    assert np.abs(np.corrcoef([p < 0.05 for p in places])[np.triu_indices(5, 1)]).max() < 4.5 / np.sqrt(20_000)


@pytest.mark.parametrize(("n_same", "n_different"), [(1, 0), (20, 1), (20, 7), (30, 4000)])
def test_a_bet_is_the_density_of_its_story(n_same: int, n_different: int):
    v = np.linspace(0, 1, 2001)[1:]
    for row, a in enumerate(STRENGTHS):
        p = (n_same * v**a + n_different * v) / (n_same + n_different)
        slope = (n_same * a * v ** (a - 1) + n_different) / (n_same + n_different)
        np.testing.assert_allclose(log_bet(p, n_same, n_different)[row], -np.log(slope), atol=1e-7)


def test_a_late_bet_is_a_power():
    np.testing.assert_allclose(
        np.exp(log_bet(np.array([0.03]), 1, 0))[:, 0], [0.03 ** (1 / a - 1) / a for a in STRENGTHS]
    )


def test_evidence_is_the_weighted_mean_over_starts():
    """Against the definition: every start and strength by itself."""
    rng = np.random.default_rng(1)
    evidence = RankEvidence(rng.normal(size=(20, 1)), rng)
    late, early = [], []
    for n_live in range(1, 13):
        evidence.observe(rng.normal(1.0, size=1))
        late.append(log_bet(evidence.p_J, 1, 0)[:, 0])
        early.append(log_bet(evidence.p_J, 20, n_live)[:, 0])
        k = np.arange(1, n_live + 1)
        weight = 1 / np.log2(k + 1) - 1 / np.log2(k + 2)
        terms = [np.log(w / 2 / len(STRENGTHS)) + sum(late[start:]) for start, w in enumerate(weight)]
        terms.append(np.log(1 / 2 / len(STRENGTHS)) + sum(early))
        terms.append([-np.log(2 * np.log2(n_live + 2))])
        assert evidence.log_evidence_J[0] == pytest.approx(logsumexp(np.concatenate(terms)))
    assert evidence.highest_J[0] >= evidence.log_evidence_J[0]


def test_evidence_has_mean_one_without_drift():
    """By quadrature over the places of two windows, which are independent and uniform; p = u^20 tames small ones."""
    node, weight = np.polynomial.legendre.leggauss(400)
    node, weight = (node + 1) / 2, weight / 2
    place, weight = node**20, weight * 20 * node**19
    first, second = (x.ravel() for x in np.meshgrid(place, place))
    weight_J = np.outer(weight, weight).ravel()
    evidence = RankEvidence(np.zeros((30, len(first))), np.random.default_rng(0))
    for place_J in (first, second):
        evidence._place = lambda _, p=place_J: p
        evidence.observe(place_J)
        assert weight_J @ np.exp(evidence.log_evidence_J) == pytest.approx(1.0, abs=1e-5)


def test_the_level_holds_however_long_one_looks():
    rng = np.random.default_rng(3)
    evidence = RankEvidence(rng.exponential(size=(20, 1000)), rng)
    for _ in range(400):
        evidence.observe(rng.exponential(size=1000))
    for level in (0.2, 0.05):
        n_alarms = int((evidence.highest_J >= -np.log(level)).sum())
        assert stats.binomtest(n_alarms, 1000, level, alternative="greater").pvalue > 0.001
    # What a p-value of 0.05 for each window would do over the same time:
    assert 1 - 0.95**400 > 0.999


def made_watch(rng: np.random.Generator, level: float = 0.05) -> Watch:
    reference = {name: list(rng.normal(1.0, 0.2, 60)) for name in ("length", "classes", "confidence")}
    return Watch(reference, dict.fromkeys(reference, 0.5), level, rng)


def window(rng: np.random.Generator, **moved: float) -> dict[str, float]:
    return {name: rng.normal(1.0 + moved.get(name, 0.0), 0.2) for name in ("length", "classes", "confidence")}


def test_a_drift_is_found_in_its_signal_alone():
    rng = np.random.default_rng(4)
    watch = made_watch(rng)
    for _ in range(100):
        assert not any(state.alarm for state in watch.observe(window(rng)))
    alarms = [{s.name for s in watch.observe(window(rng, classes=1.0)) if s.alarm} for _ in range(20)]
    assert alarms[-1] == {"classes"}
    first = next(k for k, found in enumerate(alarms) if found)
    assert first < 10
    assert all("length" not in found for found in alarms)


def test_p_values_are_corrected_for_the_number_of_signals():
    rng = np.random.default_rng(5)
    watch = made_watch(rng)
    for _ in range(5):
        states = watch.observe(window(rng, length=0.6, classes=0.9))
        assert [s.p_adjusted for s in states] == pytest.approx(holm([s.p_anytime for s in states]))
        assert all(s.alarm == (s.p_adjusted <= 0.05 and s.excess >= 0.5) for s in states)


def test_what_is_certain_but_small_raises_no_alarm():
    rng = np.random.default_rng(6)
    watch = made_watch(rng)
    states = [watch.observe({"length": 1.45, "classes": 1.0, "confidence": 1.0})[0] for _ in range(40)]
    assert states[-1].p_adjusted < 1e-4
    assert not any(state.alarm for state in states)
    assert states[-1].excess == pytest.approx(0.45, abs=0.1)


def test_the_same_windows_give_the_same_evidence():
    runs = []
    for _ in range(2):
        watch = made_watch(np.random.default_rng(7))
        runs.append([watch.observe({"length": 1.0, "classes": 1.3, "confidence": 0.9}) for _ in range(20)])
    assert runs[0] == runs[1]


def test_reference_records_are_dealt_once():
    base, windows = reference_windows(1000, 25, np.random.default_rng(0))
    assert {len(w) for w in windows} == {25}
    assert len(windows) == 26
    assert sorted(np.concatenate([base, *windows])) == list(range(1000))


def test_bad_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="13 windows of 50"):
        reference_windows(1000, 50, rng)
    with pytest.raises(DataError, match="0 windows of 0"):
        reference_windows(1000, 0, rng)
    with pytest.raises(DataError, match="20 reference windows"):
        Watch({"a": [1.0] * 19}, {"a": 0.1}, 0.05, rng)
    with pytest.raises(DataError, match="none"):
        Watch({}, {}, 0.05, rng)
    with pytest.raises(UsageError, match="not b"):
        Watch({"a": [1.0] * 30}, {"b": 0.1}, 0.05, rng)
    with pytest.raises(UsageError, match=r"not 5$"):
        Watch({"a": [1.0] * 30}, {"a": 0.1}, 5, rng)
    with pytest.raises(UsageError, match="must be numbers"):
        Watch({"a": [1.0] * 30}, {"a": float("nan")}, 0.05, rng)
    watch = Watch({"a": [1.0] * 30}, {"a": 0.1}, 0.05, rng)
    with pytest.raises(DataError, match="effect of a is nan"):
        watch.observe({"a": float("nan")})
    with pytest.raises(UsageError, match="not b"):
        watch.observe({"b": 1.0})
