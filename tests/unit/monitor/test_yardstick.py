"""Columns of records, the effects of windows of them, and what is watched of the effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from danlu.core.errors import DataError, UsageError
from danlu.monitor.columns import Columns, count_characters, frequent_characters
from danlu.monitor.drift import bandwidth_of, ks_distance, mmd_distance, one_hot, psi_distance
from danlu.monitor.records import has_failed, is_question, n_without_input, records_of, seconds_of
from danlu.monitor.series import Series
from danlu.monitor.shift import observed_shift
from danlu.monitor.signals import MINIMUM, SERVICE, minimums
from danlu.monitor.stream import seed_of
from danlu.monitor.yardstick import Yardstick


def columns(n: int, seed: int, moved: float = 0.0) -> Columns:
    rng = np.random.default_rng(seed)
    vector_BD = rng.normal(size=(n, 5)).astype(np.float32) + np.float32(moved)
    numbers = {"length": rng.integers(3, 40, n) + 10 * moved, "confidence": rng.beta(8, 2, n)}
    return Columns(numbers, {"classes": one_hot(rng.integers(0, 3, n), 3)}, vector_BD)


def test_effects_are_the_distances_of_the_table() -> None:
    base, window = columns(90, 1), columns(30, 2, 0.4)
    correct_B = np.random.default_rng(3).random(90) < 0.8
    found = Yardstick(base, correct_B).effects(window)
    assert list(found) == ["length", "confidence", "classes", "embedding", "accuracy"]
    for name in ("length", "confidence"):
        both = np.concatenate([base.numbers[name], window.numbers[name]])
        assert found[name] == pytest.approx(observed_shift(ks_distance(both), 90, 30), abs=1e-11)
    both = np.concatenate([base.counts["classes"], window.counts["classes"]])
    assert found["classes"] == pytest.approx(observed_shift(psi_distance(both), 90, 30), abs=1e-11)
    assert base.vector_BD is not None
    assert window.vector_BD is not None
    width = bandwidth_of(base.vector_BD)
    distance = mmd_distance(np.concatenate([base.vector_BD, window.vector_BD]), width)
    assert found["embedding"] == pytest.approx(observed_shift(distance, 90, 30), abs=1e-6)


def test_without_labels_and_vectors_there_are_fewer_signals() -> None:
    base = Columns({"length": np.arange(40.0)})
    yardstick = Yardstick(base)
    assert yardstick.names == ("length",)
    assert yardstick.unlike(base) is None


def test_the_most_unlike_records_are_the_planted_ones() -> None:
    base, window = columns(90, 1), columns(30, 2)
    assert window.vector_BD is not None
    window.vector_BD[7] += 9
    unlike_B = Yardstick(base).unlike(window)
    assert unlike_B is not None
    assert unlike_B.argmax() == 7
    texts = ["今天很好", "明天很好", "今天不好"]
    kinds = frequent_characters(texts)
    by_letters = Yardstick(Columns({"length": np.ones(3)}, {"characters": count_characters(texts, kinds)}))
    asked = Columns({"length": np.ones(2)}, {"characters": count_characters(["今天好", "犇骉"], kinds)})
    nats_B = by_letters.unlike(asked)
    assert nats_B is not None
    assert nats_B[1] > nats_B[0]


def test_characters_are_counted_and_the_rest_together() -> None:
    kinds = frequent_characters(["aab", "abc"])
    assert kinds == "abc"
    assert count_characters(["abx", "", "yya"], kinds).tolist() == [[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 2]]


def test_columns_of_different_lengths_are_refused_and_parts_are_joined() -> None:
    with pytest.raises(DataError, match="columns of one length"):
        Columns({"a": np.ones(3), "b": np.ones(2)})
    one = Columns({"a": np.zeros(2), "b": np.ones(2)})
    joined = Columns.joined([one, Columns({"a": np.ones(1)})])
    assert (joined.numbers["a"].tolist(), list(joined.numbers)) == ([0, 0, 1], ["a"])
    assert len(joined.take(np.array([2, 0]))) == 2


def test_minimums() -> None:
    assert minimums(("length", *SERVICE), {"latency": 2}) == {"length": 0.1, "latency": 2.0, "failures": 0.02}
    with pytest.raises(UsageError, match="no signal 'classes'"):
        minimums(("length",), {"classes": 1})


def test_a_live_reference_is_the_first_windows_and_its_minimum_a_share_of_the_usual() -> None:
    series = Series(("latency", "failures"), None, MINIMUM, 0.05, 0.5, 1)
    for n in range(20):
        assert series.n_missing == 20 - n
        assert series.add({"latency": 0.2 + 0.001 * n, "failures": 0.0}) == []
    assert series.n_missing == 0
    assert series.smallest("latency") == pytest.approx(0.5 * series.usual("latency"))
    assert series.smallest("failures") == 0.02
    for _ in range(40):
        states = {state.name: state for state in series.add({"latency": 0.28, "failures": 0.0})}
    assert states["latency"].p_adjusted < 0.05
    assert not states["latency"].alarm, "half as slow again is the smallest that counts"
    assert states["failures"].p_adjusted > 0.05


def test_a_part_of_the_level_is_told_as_the_whole() -> None:
    usual = {"length": np.linspace(0, 1, 30).tolist()}
    whole, half = (Series(("length",), usual, MINIMUM, 0.05, part, 1) for part in (1.0, 0.5))
    for _ in range(12):
        (one,), (other,) = whole.add({"length": 2.0}), half.add({"length": 2.0})
        assert other.p_adjusted == pytest.approx(min(1.0, 2 * one.p_adjusted))
        assert other.alarm == (other.p_adjusted <= 0.05)
    assert one.alarm


def event(**changes: Any) -> dict[str, Any]:
    told = {"time": 1.5, "id": "r", "route": "/predict", "status": 200, "seconds": 0.5, "inputs": ["a", None, "c"]}
    answers = [{"label": x, "probability": 0.9} for x in "xyz"]
    return {**told, "answers": answers, **changes}


def test_records_of_a_request() -> None:
    found = records_of(event())
    assert [(record.index, record.input, record.label) for record in found] == [(0, "a", "x"), (2, "c", "z")]
    assert n_without_input(event()) == 1
    assert n_without_input(event(inputs=None)) == 3
    assert records_of(event(status=503)) == []
    assert n_without_input(event(status=422)) == 0
    (written,) = records_of(event(inputs=["p"], answers=None, completion_tokens=7))
    assert (written.written, written.label) == (7.0, None)


def test_what_a_question_and_a_failure_are() -> None:
    routes = ("/predict", "/v1/completions", "/v1/chat/completions", "/v2/models/{name}/infer")
    assert all(is_question(event(route=route)) for route in routes)
    assert not any(is_question(event(route=route)) for route in ("/explain", "/v1/embeddings", "/v2/models/{name}", ""))
    assert [has_failed(event(status=status)) for status in (200, 404, 429, 499, 500, 503)] == [False] * 4 + [True] * 2
    assert seconds_of(event(completion_tokens=10)) == 0.05
    assert seconds_of(event()) == 0.5


def test_seeds_follow_from_the_model_and_the_beginning() -> None:
    assert seed_of("a", 0.0, "content") == seed_of("a", 0.0, "content")
    assert len({seed_of(*of) for of in (("a", 0.0, "c"), ("b", 0.0, "c"), ("a", 1.0, "c"), ("a", 0.0, "d"))}) == 4
