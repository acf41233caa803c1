"""The exact test of the order of data: does a model remember best what our run saw last?

A run of ours shuffles its texts by a seed that it committed itself to. What it saw late it remembers a little better
than what it saw early, and a model derived from it still does. To any other model the shuffle means nothing, so that
every order of the texts is as likely as the one that it came to (Kuditipudi et al., 2025):

    rho = Spearman(step at which text i was last seen, loss of the suspect on it - loss of other models on it)

is then around 0, and well below it for a descendant. Only the suspect's probabilities are needed, not its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["DataOrderTest", "data_order_test"]


@dataclass(frozen=True, kw_only=True)
class DataOrderTest:
    """What came of a test.

    Attributes:
        p: Share of random orders, the run's own among them, with a rank correlation as low: exact.
        p_t: That of Student's t with n - 2 degrees of freedom, where the count runs out; not exact.
        rho: Spearman's rank correlation.
        n: Texts.
        n_orders: Random orders.
    """

    p: float
    p_t: float
    rho: float
    n: int
    n_orders: int


def data_order_test(
    last_seen: npt.NDArray[np.integer], excess: npt.NDArray[np.floating], n_orders: int = 9999
) -> DataOrderTest:
    """Test whether a suspect remembers best what was seen last.

    Args:
        last_seen: int [n]; the step at which each text was seen for the last time. No text may be there twice.
        excess: float [n]; the suspect's loss on each text, less what other models of the same data lose on it, which
            takes away that some texts are easier than others.
        n_orders: Random orders that the count rests on.

    Raises:
        ValueError: There are fewer than three texts, or not as many of one as of the other.
    """
    n = len(last_seen)
    if n < 3 or len(excess) != n:
        raise ValueError(f"{n} steps and {len(excess)} losses: at least three of each are due")
    steps, losses = (_standard(stats.rankdata(each)) for each in (last_seen, excess))
    rho = float(steps @ losses / n)
    draw = np.random.default_rng(0)
    drawn = np.array([draw.permutation(steps) @ losses / n for _ in range(n_orders)])
    t = rho * np.sqrt((n - 2) / max(1e-12, 1 - rho**2))
    return DataOrderTest(
        p=(1 + int((drawn <= rho).sum())) / (n_orders + 1),
        p_t=float(stats.t.cdf(t, n - 2)),
        rho=rho,
        n=n,
        n_orders=n_orders,
    )


def _standard(ranks: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    spread = ranks.std()
    centred: npt.NDArray[np.floating] = ranks - ranks.mean()
    return centred / spread if spread else centred
