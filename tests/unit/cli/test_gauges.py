from __future__ import annotations

import pytest

from danlu.cli.gauges import Pace, Sparkline, clock, written


def test_the_time_left_is_that_of_the_steps_to_come_at_the_pace_of_those_seen():
    pace = Pace()
    assert pace.left(10.0, 100, 200) is None  # nothing seen yet
    assert pace.left(12.0, 100, 200) is None
    assert pace.left(20.0, 120, 200) == pytest.approx(80 * 10 / 20)
    assert pace.left(70.0, 200, 200) == 0
    assert pace.left(71.0, 201, 200) == 0  # a total that was too low
    assert pace.left(72.0, 202, None) is None


def test_what_an_earlier_process_did_makes_no_pace():
    fresh, resumed = Pace(), Pace()
    fresh.left(0.0, 0, 1000)
    resumed.left(0.0, 900, 1000)
    assert fresh.left(10.0, 10, 1000) == pytest.approx(990)
    assert resumed.left(10.0, 910, 1000) == pytest.approx(90)


def test_a_curve_falls_as_its_values_do_and_keeps_its_width():
    curve = Sparkline(8)
    assert str(curve) == ""
    curve.add(3.0)
    assert str(curve) == ""
    curve.add(1.0)
    assert str(curve) == "█▁ 1.000 to 3.000"
    for step in range(500):
        curve.add(1.0 - step / 1000)
        bars = str(curve).split()[0]
        assert len(bars) <= 8
        assert (bars[0], bars[-1]) == ("█", "▁")
        assert list(bars) == sorted(bars, reverse=True)
    assert len(bars) == 8


def test_a_column_is_the_mean_of_its_values():
    curve = Sparkline(2)
    for value in (4.0, 0.0, 1.0, 0.0, 7.0):
        curve.add(value)
    assert str(curve) == "▁█ 1.250 to 7.000"  # of the first four, and the last


def test_the_plunge_at_the_beginning_does_not_flatten_the_rest():
    curve = Sparkline(16)
    for value in (50.0, 30.0, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 1.7):
        curve.add(value)
    assert str(curve) == "███▇▇▆▆▅▅▄▄▃▃▂▂▁ 1.700 to 3.000"


def test_a_curve_that_is_level_has_no_shape():
    curve = Sparkline()
    for _ in range(5):
        curve.add(2.0)
    assert str(curve) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.84321, "0.8432"),
        (0.0021, "0.0021"),
        (0.00002104, "2.10e-05"),
        (-0.00002104, "-2.10e-05"),
        (0.0, "0.0000"),
        (7.8470672, "7.847"),
        (-6.584, "-6.584"),
        (412.345, "412.3"),
        (15321.4, "15,321"),
        (120, "120"),
        (1200, "1,200"),
    ],
)
def test_a_number_is_written_with_the_digits_that_count(value, text):
    assert written(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (83.0, "0:01:23"), (3599.6, "1:00:00"), (90061, "25:01:01")]
)
def test_a_span_of_time(seconds, text):
    assert clock(seconds) == text
