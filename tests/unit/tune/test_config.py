from __future__ import annotations

import pytest

from danlu.core.config import read_overrides, resolve
from danlu.core.errors import UsageError
from danlu.tune.config import Range, TuneConfig


def read(*words: str) -> TuneConfig:
    return resolve(TuneConfig, [read_overrides(words)]).config


def test_a_list_is_choices_and_a_mapping_is_a_range():
    space = read("space={train.epochs: [1, 3], train.learning_rate: {low: 1e-4, high: 0.01, log: true}}").space
    assert space == {"train.epochs": (1, 3), "train.learning_rate": Range(low=1e-4, high=0.01, log=True)}
    assert read().space == {}
    assert TuneConfig(**read("space={train.epochs: [1, 3], a.b: {low: 1, high: 2}}").plain()).space.keys() == {
        "train.epochs",
        "a.b",
    }


def test_keys_may_be_nested_and_the_command_line_lies_over_the_file():
    words = ("space={train.x: {low: 1, high: 9}, train.y: [1, 2], model: {z: {low: 0.5, high: 1}}}",)
    words += ("space.train.x.low=3", "space.train.y=[5, 6]", "space.tokenizer.w=[a, b]")
    assert read(*words).space == {
        "train.x": Range(low=3, high=9),
        "train.y": (5, 6),
        "model.z": Range(low=0.5, high=1),
        "tokenizer.w": ("a", "b"),
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{a: {low: 2, high: 2}}", "space.a: low=2 is not below high=2"),
        ("{a: {low: 0, high: 2, log: true}}", "low=0 has no logarithm"),
        ("{a: {low: 1, high: 2, log: true, step: 1}}", "log and step exclude each other"),
        ("{a: {low: 1, high: 2, step: 0}}", "step=0 is not above 0"),
        ("{a: {low: 0, high: 1, step: 0.3}}", "high=1 is no whole number of steps of 0.3 above low=0"),
        ("{a: {low: 1}}", "space.a.high is missing"),
        ("{a: {low: 1, hihg: 2}}", "unknown key 'space.a.hihg'"),
        ("{a: {low: yes, high: 2}}", "space.a.low: a number is due"),
        ("{a: {low: x, high: 2}}", "space.a.low"),
        ("{a: 3}", "space.a: give a list of choices"),
        ("{a: {}}", "space.a.low is missing"),
        ("{a: [1]}", "space.a: give two choices or more"),
        ("{a: [1, 2, 1]}", "each once"),
        ("[a]", "space"),
    ],
)
def test_what_cannot_be_searched_is_refused_where_it_stands(space, message):
    with pytest.raises(UsageError, match=message.replace("+", r"\+")) as found:
        read(f"space={space}")
    assert found.value.where != "default"


def test_steps_are_exact_and_a_range_knows_its_values():
    tenths = Range(low=0.0, high=0.3, step=0.1)
    assert [tenths.holds(value) for value in (0.0, 0.1, 0.2, 0.3, 0.15, 0.4, -0.1)] == [True] * 4 + [False] * 3
    whole = Range(low=1, high=9, step=2)
    assert whole.whole
    assert [whole.holds(value) for value in (1, 3, 9, 2, 11, 3.5, True, "3", None)] == [True] * 3 + [False] * 6
    assert not Range(low=1, high=2.0).whole
    assert not Range(low=1, high=2, step=0.5).whole
    assert Range(low=1e-4, high=1e-2, log=True).holds(1e-3)
