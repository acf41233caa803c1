from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.train.optimizer import OptimizerConfig, learning_rate


def rates(n_steps, **changes):
    config = OptimizerConfig(**{"learning_rate": 0.5, "warmup": 0.2} | changes)
    return [learning_rate(step, n_steps, config) for step in range(n_steps)]


def test_a_line_up_then_half_a_cosine_down():
    found = rates(10, final_learning_rate=0.1)
    assert found[:2] == [0.25, 0.5]
    expected = [0.5 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 8))) for step in range(8)]
    assert found[2:] == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
def test_it_rises_falls_and_stays_between_nothing_and_the_highest(n_steps, warmup, floor):
    found = rates(n_steps, warmup=warmup, final_learning_rate=floor)
    top = found.index(max(found))
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert found[0] > 0
    assert max(found) == pytest.approx(0.5)
    assert min(found[top:]) >= 0.5 * floor - 1e-12


def test_a_run_of_one_step_takes_the_highest_rate():
    assert rates(1) == [0.5]
