from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.evaluate.chrf_bleu import bleu_counts, bleu_of_sums, chrf_counts, chrf_of_sums, signatures
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.significance import swap_test
from danlu.evaluate.translation import TranslationWriter, compare_translations, evaluate_translations

CONFIG = EvaluateConfig(bootstrap=300, permutations=1000, examples=3)
N = 80
SIGNS = [*"打开关闭文件保存页面用户设置错误无法删除编辑选择", " ", "。", "API", "URL", "%s", "10"]

sentences = st.text(alphabet="我们打开文件 ab1%s。,", max_size=12)
corpora = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=6)


def references(n=N):
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(SIGNS, rng.integers(2, 15))) for _ in range(n)]


def worsened(texts, rate, seed):
    """Translations of which so many signs are wrong."""
    rng = np.random.default_rng(seed)
    return ["".join(str(rng.choice(SIGNS)) if rng.random() < rate else sign for sign in text) for text in texts]


def write(path, hypotheses, targets, sources=None, order=None):
    order = range(len(hypotheses)) if order is None else order
    sources = [f"source {i} with {'%s' if i % 2 else 'none'}" for i in range(N)] if sources is None else sources
    with TranslationWriter(path) as writer:
        for row in order:
            writer.write([f"r{row}"], [sources[row]], [targets[row]], [hypotheses[row]], np.array([row / 4]))
    return path


@settings(max_examples=150, deadline=None)
@given(corpora)
def test_scores_of_sums_are_the_corpus_scores_of_sacrebleu(pairs):
    ours, theirs = (list(texts) for texts in zip(*pairs, strict=True))
    chrf = chrf_of_sums(chrf_counts(ours, theirs).sum(0)[None])[0]
    bleu = bleu_of_sums(bleu_counts(ours, theirs).sum(0)[None])[0]
    # The same formula in another order of operations: 5e-14 is the most that was seen.
    assert chrf == pytest.approx(CHRF().corpus_score(ours, [theirs]).score, abs=1e-9)
    assert bleu == pytest.approx(BLEU(tokenize="zh").corpus_score(ours, [theirs]).score, abs=1e-9)
    one_by_one = chrf_of_sums(chrf_counts(ours, theirs))
    expected = [CHRF().sentence_score(hypothesis, [reference]).score for hypothesis, reference in pairs]
    assert one_by_one == pytest.approx(expected, abs=1e-9)


def test_scores_of_a_longer_corpus_are_those_of_sacrebleu():
    texts = references(400)
    for rate in (0.0, 0.2, 0.9):
        ours = worsened(texts, rate, 1)
        chrf = chrf_of_sums(chrf_counts(ours, texts).sum(0)[None])[0]
        bleu = bleu_of_sums(bleu_counts(ours, texts).sum(0)[None])[0]
        assert chrf == pytest.approx(CHRF().corpus_score(ours, [texts]).score, abs=1e-9)
        assert bleu == pytest.approx(BLEU(tokenize="zh").corpus_score(ours, [texts]).score, abs=1e-9)
    assert "nc:6|nw:0" in signatures()["chrf"]
    assert "tok:zh|smooth:exp" in signatures()["bleu"]


def test_p_values_are_those_of_sacrebleu():
    texts, n_trials = references(), 4000
    a, b = worsened(texts, 0.30, 1), worsened(texts, 0.36, 2)
    logging.getLogger("sacrebleu").setLevel(logging.WARNING)
    metrics = {"chrf": CHRF(), "bleu": BLEU(tokenize="zh")}
    _, scores = PairedTest([("b", b), ("a", a)], metrics, [texts], test_type="ar", n_samples=n_trials)()
    parts = [np.concatenate([chrf_counts(ours, texts), bleu_counts(ours, texts)], axis=1) for ours in (a, b)]
    found = swap_test(
        *parts,
        lambda sums_RJ: {"chrf": chrf_of_sums(sums_RJ[:, :18]), "bleu": bleu_of_sums(sums_RJ[:, 18:])},
        n_trials,
        np.random.default_rng(0),
    )
    for name, key in (("chrf", "chrF2"), ("bleu", "BLEU")):
        expected = scores[key][1].p_value
        assert 0.02 < expected < 0.9  # neither end, where agreement would say little
        # Two Monte Carlo estimates; four standard errors of their difference.
        assert found[name] == pytest.approx(expected, abs=4 * np.sqrt(2 * expected * (1 - expected) / n_trials))


def test_every_metric_within_its_interval(tmp_path):
    texts = references()
    ours = worsened(texts, 0.2, 1)
    found = evaluate_translations(write(tmp_path / "p.parquet", ours, texts), CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    expected = {
        "chrf": CHRF().corpus_score(ours, [texts]).score,
        "bleu": BLEU(tokenize="zh").corpus_score(ours, [texts]).score,
        "exact_match": np.mean([a.strip() == b.strip() for a, b in zip(ours, texts, strict=True)]),
        "placeholders_kept": np.mean([text.count("%s") == 1 for text in ours[1::2]]),
    }
    assert set(found["metrics"]) == set(expected)
    for name, value in expected.items():
        measure = found["metrics"][name]
        assert measure["value"] == pytest.approx(value, abs=1e-9), name
        assert measure["low"] < value < measure["high"], name
    assert found["metrics"]["exact_match"]["method"] == "wilson"
    assert (found["metrics"]["chrf"]["n"], found["metrics"]["placeholders_kept"]["n"]) == (N, N / 2)
    assert sum(part["n"] for part in found["slices"]["n_chars"]) == N
    worst = [example["chrf"] for example in found["worst"]]
    each = [CHRF().sentence_score(hypothesis, [text]).score for hypothesis, text in zip(ours, texts, strict=True)]
    assert worst == pytest.approx(sorted(each)[:3])
    assert found["typical"][1]["chrf"] == pytest.approx(np.median(each), abs=2)
    assert found["slowest"][0]["id"] == f"r{N - 1}"


def test_intervals_are_those_of_resampled_sentences(tmp_path):
    """Against a bootstrap written out: sentences drawn with replacement, scored by sacrebleu."""
    texts = references(40)
    ours, rng = worsened(texts, 0.3, 1), np.random.default_rng(1)
    path = write(tmp_path / "p.parquet", ours, texts, sources=["s"] * 40)
    found = evaluate_translations(path, CONFIG, np.random.default_rng(0))["metrics"]["chrf"]
    draws = []
    for rows in rng.integers(40, size=(300, 40)):
        draws.append(CHRF().corpus_score([ours[i] for i in rows], [[texts[i] for i in rows]]).score)
    low, high = np.quantile(draws, [0.025, 0.975])
    # An end of a percentile interval of 300 resamples has a standard error of about 0.04 of the interval's width.
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_placeholders_are_counted_by_kind_beside_the_human_ceiling(tmp_path):
    rows = [  # source, reference, hypothesis
        ("Open %s", "打开 %s", "打开 %s"),
        ("Open %(file)s in <b>{0}</b>", "在 <b>{0}</b> 打开 %(file)s", "在 <b>{0}</b> 打开 %(文件)s"),
        ("Delete {name}?", "删除？", "删除 {name}？"),
        ("Close", "关闭", "关闭 %s"),
        ("&File", "文件(&F)", "文件"),
    ]
    sources, targets, ours = (list(texts) for texts in zip(*rows, strict=True))
    found = evaluate_translations(
        write(tmp_path / "p.parquet", ours, targets, sources), CONFIG, np.random.default_rng(0)
    )
    kept = found["metrics"]["placeholders_kept"]
    assert (kept["value"], kept["n"], kept["method"]) == (0.5, 4, "wilson")
    by_kind = {kind["kind"]: (kind["kept"]["value"], kind["reference"]["value"]) for kind in found["placeholders"]}
    assert by_kind == {"printf": (0.5, 1.0), "brace": (1.0, 0.5), "tag": (1.0, 1.0), "accelerator": (0.0, 1.0)}
    assert [example["id"] for example in found["lost_placeholders"]] == ["r1", "r4"]


def test_no_placeholders_at_all_give_null_and_not_a_crash(tmp_path):
    texts = references(10)
    paths = [
        write(tmp_path / f"{rate}.parquet", worsened(texts, rate, 1), texts, sources=["plain"] * 10)
        for rate in (0.1, 0.5)
    ]
    found = evaluate_translations(paths[0], CONFIG, np.random.default_rng(0))
    assert found["metrics"]["placeholders_kept"]["value"] is None
    assert found["placeholders"] == []
    compared = compare_translations(*paths, ("a", "b"), CONFIG, np.random.default_rng(0))
    json.dumps([found, compared], allow_nan=False)
    assert set(compared["metrics"]["placeholders_kept"].values()) == {None}


def test_models_are_joined_on_id_and_differ_by_the_difference_of_their_scores(tmp_path):
    texts = references()
    good, poor = worsened(texts, 0.1, 1), worsened(texts, 0.5, 2)
    a = write(tmp_path / "a.parquet", good, texts)
    b = write(tmp_path / "b.parquet", poor, texts, order=np.random.default_rng(3).permutation(N))
    found = compare_translations(a, b, ("good", "poor"), CONFIG, np.random.default_rng(0))
    json.dumps(found, allow_nan=False)
    for name, metric in {"chrf": CHRF(), "bleu": BLEU(tokenize="zh")}.items():
        of_a, of_b = (metric.corpus_score(ours, [texts]).score for ours in (good, poor))
        difference = found["metrics"][name]
        assert (difference["a"], difference["b"]) == pytest.approx((of_a, of_b), abs=1e-9)
        assert difference["difference"] == pytest.approx(of_a - of_b, abs=1e-9)
        assert 0 < difference["low"] < of_a - of_b < difference["high"]
        assert difference["p_permutation"] == pytest.approx(1 / 1001)
    first = found["a_better"][0]
    assert first["a_chrf"] - first["b_chrf"] == pytest.approx(
        max(
            CHRF().sentence_score(x, [text]).score - CHRF().sentence_score(y, [text]).score
            for x, y, text in zip(good, poor, texts, strict=True)
        )
    )
    assert (first["a"], first["b"]) == (good[int(first["id"][1:])], poor[int(first["id"][1:])])
    assert all(example["a_chrf"] < example["b_chrf"] for example in found["b_better"])


def test_several_models_are_corrected_for_their_number(tmp_path):
    texts = references()
    rates = {"memory": 0.4, "better": 0.1, "worse": 0.8, "like": 0.4}
    paths = {
        name: write(tmp_path / f"{name}.parquet", worsened(texts, rate, seed), texts)
        for seed, (name, rate) in enumerate(rates.items(), start=20)
    }
    found = compare_with_baseline(paths, "memory", CONFIG, np.random.default_rng(0), "translation")
    assert (found["primary"], found["higher_is_better"]) == ("chrf", True)
    verdicts = {model["a"]: model["verdict"] for model in found["models"]}
    assert verdicts == {"better": "better", "worse": "worse", "like": "no difference shown"}
    chrf = found["models"][0]["metrics"]["chrf"]
    assert chrf["p_holm"] == pytest.approx(3 * chrf["p_permutation"])


def test_a_model_against_itself(tmp_path):
    texts = references()
    a = write(tmp_path / "a.parquet", worsened(texts, 0.3, 1), texts)
    found = compare_translations(a, a, ("a", "a"), CONFIG, np.random.default_rng(0))
    for metric in found["metrics"].values():
        assert (metric["difference"], metric["low"], metric["high"], metric["p_permutation"]) == (0.0, 0.0, 0.0, 1.0)
    assert found["a_better"] == found["b_better"] == []


def test_other_tests_and_other_files_are_refused(tmp_path):
    texts, rng = references(), np.random.default_rng(0)
    a = write(tmp_path / "a.parquet", texts, texts)
    for changed in ({"targets": ["x", *texts[1:]]}, {"targets": texts, "sources": ["x"] * N}):
        b = write(tmp_path / "b.parquet", texts, **changed)
        with pytest.raises(DataError, match="r0 has two sources or references"):
            compare_translations(a, b, ("a", "b"), CONFIG, rng)
    pq.write_table(pq.read_table(a).drop_columns(["hypothesis"]), tmp_path / "c.parquet")
    with pytest.raises(CorruptError, match="hypothesis"):
        evaluate_translations(tmp_path / "c.parquet", CONFIG, rng)
    table = pq.read_table(a)
    hole = table.set_column(3, "hypothesis", [[None, *texts[1:]]])
    pq.write_table(hole, tmp_path / "d.parquet")
    with pytest.raises(CorruptError, match="empty places"):
        evaluate_translations(tmp_path / "d.parquet", CONFIG, rng)


def test_without_sacrebleu_the_extra_is_named(tmp_path, monkeypatch):
    texts = references()
    path = write(tmp_path / "p.parquet", texts, texts)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UsageError, match="sacrebleu") as error:
        evaluate_translations(path, CONFIG, np.random.default_rng(0))
    assert "danlu[mt]" in str(error.value)
