"""A p-value by counting: how many orders it takes, and that stopping early keeps it valid."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.audit import counting
from danlu.audit.counting import N_ORDERS, counted_p


def test_clear_cases_are_counted_to_the_end_and_others_are_not() -> None:
    asked: list[int] = []

    def draw(n: int) -> np.ndarray:
        asked.append(n)
        return np.random.default_rng(len(asked)).standard_normal(n)

    assert counted_p(draw, 9.0) == (1 / (N_ORDERS + 1), N_ORDERS)
    assert asked == [9_999, 90_000]
    p, n = counted_p(draw, 0.0)
    assert (round(p, 1), n) == (0.5, 9_999)
    assert counted_p(draw, 9.0, 99) == (1 / 100, 99)
    assert counted_p(draw, 9.0, 10_000)[1] == 10_000


def test_stopping_early_keeps_p_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_FIRST", 19)
    monkeypatch.setattr(counting, "_FEW", 2)
    draw = np.random.default_rng(1)
    p = np.array([counted_p(draw.standard_normal, float(draw.standard_normal()), 199)[0] for _ in range(20_000)])
    for level in np.unique(p):
        share = float((p <= level).mean())
        assert share <= level + 4 * np.sqrt(level / len(p)), level
    assert p.min() == 1 / 200
