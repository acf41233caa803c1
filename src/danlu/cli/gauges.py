"""What a progress display is put together from: how a number is written, the time left, a curve made of characters."""

from __future__ import annotations

import math

__all__ = ["Pace", "Sparkline", "clock", "written"]

_BARS = "▁▂▃▄▅▆▇█"
_PLUNGE = 8
"""One in so many columns is at the beginning, where a loss falls from far above all that comes later."""


class Pace:
    """How long the rest of a stage takes, by what this process has done of it.

    What an earlier process had done counts for nothing: the first moment told of is where the clock starts.
    """

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def left(self, now: float, done: int, total: int | None) -> float | None:
        """Seconds to the end of the stage; None where that cannot be known yet.

        Args:
            now: The time in seconds, by any clock.
            done: Units done.
            total: Units in all.
        """
        if self._first is None:
            self._first = now, done
        started, already = self._first
        if total is None or done <= already:
            return None
        return max(0, total - done) * (now - started) / (done - already)


class Sparkline:
    """A curve made of characters; each column is the mean over as many values as the others.

    Args:
        n_columns: The most columns, an even number.
    """

    def __init__(self, n_columns: int = 32) -> None:
        self._n_columns = n_columns
        self._each = 1
        """Values that a column stands for."""
        self._columns: list[tuple[float, int]] = []
        """The sum of a column's values, and how many they are."""

    def add(self, value: float) -> None:
        """The value of this moment."""
        if self._columns and self._columns[-1][1] < self._each:
            total, n = self._columns[-1]
            self._columns[-1] = total + value, n + 1
            return
        if len(self._columns) == self._n_columns:
            pairs = zip(self._columns[::2], self._columns[1::2], strict=True)
            self._columns = [(a + b, n + m) for (a, n), (b, m) in pairs]
            self._each *= 2
        self._columns.append((value, 1))

    def __str__(self) -> str:
        """The curve, its lowest and its highest value; nothing where it has no shape yet.

        Where many columns are there the first few are as tall as those after them, above which they may well be.
        """
        means = [total / n for total, n in self._columns]
        settled = means[len(means) // _PLUNGE :]
        low, high = min(settled, default=0.0), max(settled, default=0.0)
        if len(means) < 2 or not low < high:
            return ""
        shares = (min(1.0, max(0.0, (mean - low) / (high - low))) for mean in means)
        bars = "".join(_BARS[round(share * (len(_BARS) - 1))] for share in shares)
        return f"{bars} {written(low)} to {written(high)}"


def written(value: float) -> str:
    """A number of any size: ``0.8432``, ``15,321``, ``2.10e-05``; a count as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    whole = math.floor(math.log10(abs(value))) + 1 if value else 0
    return f"{value:,.{min(4, max(0, 4 - whole))}f}"


def clock(seconds: float) -> str:
    """A span of time: ``0:01:23``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
