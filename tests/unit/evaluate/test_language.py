from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.language import LanguageWriter, compare_language, evaluate_language
from danlu.evaluate.significance import swap_test

CONFIG = EvaluateConfig(bootstrap=400, permutations=2000, examples=3)
N = 120


def write(path, nats_B, n_chars_B, order=None):
    order = np.arange(len(nats_B)) if order is None else order
    with LanguageWriter(path) as writer:
        for rows in np.array_split(order, 3):  # in batches, as it is in use
            ids = [f"d{i}" for i in rows]
            writer.write(ids, nats_B[rows], n_chars_B[rows], n_chars_B[rows] + 1, rows / 10)
    return path


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(5, 120, N)


def nats(n_chars_B, bits, seed):
    """About so many bits a character, differing from text to text."""
    return n_chars_B * np.log(2) * (bits + 0.6 * np.random.default_rng(seed).normal(size=N))


def test_metrics_are_ratios_of_sums_within_their_intervals(tmp_path, lengths):
    nats_B = nats(lengths, 6.0, 1)
    found = evaluate_language(write(tmp_path / "p.parquet", nats_B, lengths), CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    bits, perplexity = found["metrics"]["bits_per_character"], found["metrics"]["perplexity_per_token"]
    assert bits["value"] == pytest.approx(nats_B.sum() / np.log(2) / lengths.sum())
    assert perplexity["value"] == pytest.approx(np.exp(nats_B.sum() / (lengths + 1).sum()))
    assert bits["low"] < bits["value"] < bits["high"]
    assert (bits["n"], bits["method"], found["n_chars"]) == (N, "bootstrap", lengths.sum())
    reference = stats.bootstrap(
        (nats_B / np.log(2), lengths),
        lambda b, n, axis: b.sum(axis) / n.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    # An end of a percentile interval of 400 resamples has a standard error of about 0.035 of the interval's width.
    assert (bits["low"], bits["high"]) == pytest.approx(tuple(reference), abs=0.15 * (reference.high - reference.low))


def test_hard_easy_and_slow_texts_and_slices(tmp_path, lengths):
    nats_B = nats(lengths, 6.0, 1)
    found = evaluate_language(write(tmp_path / "p.parquet", nats_B, lengths), CONFIG, np.random.default_rng(0))
    bits_B = nats_B / lengths / np.log(2)
    order = np.argsort(-bits_B)
    assert [example["id"] for example in found["hardest"]] == [f"d{i}" for i in order[:3]]
    assert [example["id"] for example in found["easiest"]] == [f"d{i}" for i in order[::-1][:3]]
    assert found["hardest"][0]["bits_per_character"] == pytest.approx(bits_B[order[0]])
    assert found["slowest"][0]["id"] == f"d{N - 1}"
    assert found["latency_ms"]["max"] == pytest.approx((N - 1) / 10)
    assert sum(part["n"] for part in found["slices"]["n_chars"]) == N
    for part in found["slices"]["n_chars"]:
        low, high = (int(edge) for edge in part["name"].split("-"))
        inside = (lengths >= low) & (lengths <= high)
        expected = nats_B[inside].sum() / np.log(2) / lengths[inside].sum()
        assert (part["n"], part["bits_per_character"]["value"]) == (inside.sum(), pytest.approx(expected))


def test_the_permutation_test_is_the_sign_flip_test_of_scipy(tmp_path, lengths):
    a_B, b_B = nats(lengths, 6.0, 1), nats(lengths, 6.08, 2)
    a = write(tmp_path / "a.parquet", a_B, lengths)
    b = write(tmp_path / "b.parquet", b_B, lengths, np.random.default_rng(3).permutation(N))
    config = CONFIG.model_copy(update={"permutations": 20_000})
    found = compare_language(a, b, ("a", "b"), config, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    bits = found["metrics"]["bits_per_character"]
    assert bits["difference"] == pytest.approx((a_B - b_B).sum() / np.log(2) / lengths.sum())
    assert bits["low"] < bits["difference"] < bits["high"]
    reference = stats.permutation_test(
        (a_B - b_B,), np.sum, permutation_type="samples", n_resamples=19_999, rng=np.random.default_rng(4)
    ).pvalue
    assert 0.05 < reference < 0.95  # neither end, where agreement would say little
    # Two Monte Carlo estimates of 20,000 draws each; four standard errors of their difference.
    error = np.sqrt(2 * reference * (1 - reference) / 20_000)
    assert bits["p_permutation"] == pytest.approx(reference, abs=4 * error)


def test_swaps_of_few_texts_are_enumerated():
    rng = np.random.default_rng(5)
    a_BJ, b_BJ = (np.stack([rng.uniform(10, 99, 8), np.full(8, 20.0)], axis=1) for _ in range(2))

    def ratio(sums_RJ):
        return {"ratio": sums_RJ[:, 0] / sums_RJ[:, 1]}

    gap_B = a_BJ[:, 0] - b_BJ[:, 0]
    gaps = np.array([abs(np.dot(signs, gap_B)) for signs in itertools.product([1, -1], repeat=8)])
    exact = (gaps >= abs(gap_B.sum()) - 1e-9).mean()
    found = swap_test(a_BJ, b_BJ, ratio, 20_000, rng)["ratio"]
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_a_true_null_is_rejected_about_as_often_as_its_level(lengths):
    """300 pairs of equally good models of unequally long texts; at level 0.1, 30 expected, 5.2 the deviation."""
    rng, n_rejected = np.random.default_rng(6), 0
    for _ in range(300):
        a_B, b_B = (lengths * rng.gamma(2.0, size=N) for _ in range(2))
        parts = [np.stack([nats_B, lengths], axis=1) for nats_B in (a_B, b_B)]
        p = swap_test(*parts, lambda sums_RJ: {"x": sums_RJ[:, 0] / sums_RJ[:, 1]}, 200, rng)["x"]
        n_rejected += p < 0.1
    assert 10 <= n_rejected <= 51


def test_texts_on_which_one_model_is_much_better(tmp_path, lengths):
    a_B = nats(lengths, 6.0, 1)
    b_B = a_B.copy()
    b_B[[7, 30]] += [40.0, 90.0]
    b_B[11] -= 5.0
    a, b = (write(tmp_path / f"{name}.parquet", x, lengths) for name, x in (("a", a_B), ("b", b_B)))
    found = compare_language(a, b, ("a", "b"), CONFIG, np.random.default_rng(0))
    assert [example["id"] for example in found["a_better"]] == ["d30", "d7"]
    assert [example["id"] for example in found["b_better"]] == ["d11"]
    first = found["a_better"][0]
    assert first["bits_saved"] == pytest.approx(90 / np.log(2))
    assert first["b"] - first["a"] == pytest.approx(90 / np.log(2) / lengths[30])


def test_fewer_bits_are_better_and_several_models_are_corrected(tmp_path, lengths):
    bits = {"5-gram": 6.0, "good": 5.2, "poor": 6.8, "like": 6.0}
    paths = {
        name: write(tmp_path / f"{name}.parquet", nats(lengths, value, seed), lengths)
        for seed, (name, value) in enumerate(bits.items(), start=20)
    }
    found = compare_with_baseline(paths, "5-gram", CONFIG, np.random.default_rng(0), "language-modelling")
    assert (found["primary"], found["higher_is_better"]) == ("bits_per_character", False)
    verdicts = {model["a"]: model["verdict"] for model in found["models"]}
    assert verdicts == {"good": "better", "poor": "worse", "like": "no difference shown"}
    good = found["models"][0]["metrics"]["bits_per_character"]
    assert good["high"] < 0
    assert good["p_holm"] == pytest.approx(3 * good["p_permutation"])


def test_a_model_against_itself(tmp_path, lengths):
    a = write(tmp_path / "a.parquet", nats(lengths, 6.0, 1), lengths)
    found = compare_language(a, a, ("a", "a"), CONFIG, np.random.default_rng(0))
    bits = found["metrics"]["bits_per_character"]
    assert (bits["difference"], bits["low"], bits["high"], bits["p_permutation"]) == (0.0, 0.0, 0.0, 1.0)
    assert found["a_better"] == found["b_better"] == []


def test_other_tests_are_refused(tmp_path, lengths):
    nats_B = nats(lengths, 6.0, 1)
    a = write(tmp_path / "a.parquet", nats_B, lengths)
    others = {
        "d0 has two lengths": write(tmp_path / "b.parquet", nats_B, lengths + 1),
        "119": write(tmp_path / "c.parquet", nats_B, lengths, np.arange(119)),
        "d119 is missing": write(tmp_path / "d.parquet", nats_B, lengths, np.array([*range(119), 0])),
    }
    for message, path in others.items():
        with pytest.raises(DataError, match="not predictions of the same test") as error:
            compare_language(a, path, ("a", "b"), CONFIG, np.random.default_rng(0))
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("nats_of_bad", "n_chars", "message"),
    [(np.nan, 3, "of nan"), (np.inf, 3, "of inf"), (-0.5, 3, "of -0.5"), (4.0, 0, "no characters")],
)
def test_bad_batches_are_refused_with_the_record(tmp_path, nats_of_bad, n_chars, message):
    ones_B = np.ones(2, int)
    with LanguageWriter(tmp_path / "p.parquet") as writer, pytest.raises(DataError, match=message) as error:
        writer.write(["ok", "bad"], np.array([4.0, nats_of_bad]), np.array([3, n_chars]), ones_B, ones_B)
    assert error.value.where == "record bad"


def test_files_that_are_no_predictions_of_a_language_model(tmp_path, lengths):
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="no such"):
        evaluate_language(tmp_path / "none.parquet", CONFIG, rng)
    LanguageWriter(tmp_path / "empty.parquet").close()
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate_language(tmp_path / "empty.parquet", CONFIG, rng)
    table = pq.read_table(write(tmp_path / "p.parquet", nats(lengths, 6.0, 1), lengths))
    pq.write_table(table.drop_columns(["nats"]), tmp_path / "other.parquet")
    with pytest.raises(CorruptError, match="nats"):
        evaluate_language(tmp_path / "other.parquet", CONFIG, rng)


def test_a_hopeless_model_has_a_perplexity_that_json_can_hold(tmp_path):
    path = write(tmp_path / "p.parquet", np.full(6, 1e6), np.full(6, 10))
    found = evaluate_language(path, CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    assert found["metrics"]["perplexity_per_token"]["value"] > 1e300
