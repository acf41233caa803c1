"""A p-value by counting random orders: few where few will do, many where the case is clear.

The first orders show whether a value is nothing out of the ordinary. Only where next to none of them is as large are
the others drawn, so that p may become as small as the level of a conviction asks. To stop early by this rule keeps p
valid: p <= u needs either a count of the first orders or one of all that has at most the chance u by itself, and for
every u one of the two events holds the other (compare Besag & Clifford, 1991).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["N_ORDERS", "counted_p"]

N_ORDERS = 99_999
"""Random orders that a count rests on where the case is clear."""
_FIRST = 9_999
_FEW = 10


def counted_p(draw: Callable[[int], npt.NDArray[np.float64]], value: float, most: int = N_ORDERS) -> tuple[float, int]:
    """The share of random orders, the real one among them, that give a value as large.

    Args:
        draw: The values of so many random orders more.
        value: That of the real order.
        most: Random orders that are drawn at the most.

    Returns:
        p, and how many random orders it rests on.
    """
    n = min(_FIRST, most)
    n_as_large = int((draw(n) >= value).sum())
    if n_as_large < _FEW and n < most:
        n_as_large += int((draw(most - n) >= value).sum())
        n = most
    return (1 + n_as_large) / (n + 1), n
