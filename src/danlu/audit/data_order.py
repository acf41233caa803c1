"""The exact test of the order of data: does a model remember best what our run saw last?

A run of ours draws the order of its texts from a seed that it committed itself to. What it saw late it remembers a
little better than what it saw early, and a model derived from it still does. To any other model that order means
nothing (Kuditipudi et al., 2025). Only the suspect's losses are needed, not its weights.

What is equally likely under the null. A feed that pads (:func:`danlu.data.batches.shuffled`) sorts the texts of a
window by length, cuts batches, and then draws the order of the *batches*: given which texts share a batch, every order
of an epoch's batches is as likely as any other, and orders of texts are not. So whole batches change places in the
random orders, and the losses of a batch's texts go with it: however losses depend on length, p is exact. A feed that
packs (:func:`danlu.data.batches.packed`) draws the order of the *texts* and cuts afterwards: there each text changes
places alone. Epochs are drawn one by one, independently. A suspect that is independent of the seed is independent of
all these orders, and so are losses that are subtracted, if the models that they come from are.

What is compared, in each epoch: the rank correlation of a batch's place with the excess loss of its texts, as a number
of standard deviations z, positive where late ones are remembered best. Epochs are added with weights that halve with
every epoch that lies further back. Which epoch was the last to leave a trace depends on the run (it may have stopped
early, or kept weights of an epoch before) and so on the very order that is tested: whoever looked it up in the run's
record would have no exact test. So every epoch of the *plan* is taken for the last in turn, and the test's value is the
largest of these sums; random orders are scored by the largest, too.

An epoch cut short by ``max_steps`` is a random part of its batches in random order, still exact; of single texts it is
not, for where a packed epoch ends depends on the lengths of the texts in their order, so that it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["DataOrderTest", "Moved", "data_order_test", "excess_losses"]

Floats = npt.NDArray[np.float64]
Moved = Literal["batches", "records"]
"""What the seed put into a random order: whole batches, or every record by itself."""

_FADES = 0.5
"""What the epoch before counts, where the last counts 1."""
_AT_ONCE = 2**22
"""Numbers of random orders that are held at a time."""


@dataclass(frozen=True, kw_only=True)
class DataOrderTest:
    """What came of a test.

    Attributes:
        p: Share of random orders, the run's own among them, with a sum as large: exact.
        p_normal: What the normal distribution says, times the number of sums tried; not exact.
        z: The largest sum, in standard deviations of one sum; negative where the early ones are remembered best.
        rho: Spearman's rank correlation of place and excess loss in each epoch; negative where late ones are
            remembered best.
        last: The epoch up to which the largest sum goes, counted from 1.
        n: Texts whose losses were used.
        n_placed: Batches, or texts, that changed places, over all epochs.
        moved: What changed places.
        n_orders: Random orders.
        subtracted: What was taken off the suspect's losses besides what goes with length: ``siblings``, ``controls`` or
            ``nothing``,
        n_subtracted: and of how many models the mean was taken.
    """

    p: float
    p_normal: float
    z: float
    rho: tuple[float, ...]
    last: int
    n: int
    n_placed: int
    moved: Moved
    n_orders: int
    subtracted: str = "nothing"
    n_subtracted: int = 0


def excess_losses(losses: Floats, lengths: npt.NDArray[np.integer], others: Floats | None = None) -> Floats:
    """What a model loses on texts beyond what their length, and what other models lose on them, leads to expect.

    The residual of a least-squares fit: a function of losses and lengths alone, so that the test stays exact.

    Args:
        losses: float [n]; in nats.
        lengths: int [n]; characters.
        others: float [n]; the mean loss of other models.
    """
    relative = lengths / lengths.mean()
    columns = [np.ones(len(losses)), relative, relative**2, *([] if others is None else [others])]
    matrix = np.stack(columns, axis=1)
    fitted, *_ = np.linalg.lstsq(matrix, losses, rcond=None)
    return np.asarray(losses - matrix @ fitted, np.float64)


def data_order_test(
    epochs: Sequence[Sequence[npt.NDArray[np.integer]]],
    excess: Floats,
    moved: Moved = "batches",
    n_orders: int = 9999,
    subtracted: tuple[str, int] = ("nothing", 0),
    heard: Callable[[int, int], None] = lambda _done, _all: None,
) -> DataOrderTest | str:
    """Test whether a suspect remembers best what was seen last.

    Args:
        epochs: The numbers of the records in each batch of each epoch of the plan, in the run's order.
        excess: float [records]; the suspect's excess loss on each, NaN where it was not asked. Which are asked may not
            depend on the order.
        moved: What is in a random order.
        n_orders: Random orders that the count rests on.
        subtracted: What was taken off the losses, and of how many models.
        heard: Told how many epochs are done.

    Returns:
        The test; or why it could not be made.
    """
    pairs = []
    for number, epoch in enumerate(epochs):
        values = _values(epoch, excess, moved)
        if len(values) >= 3 and values.std() > 0:
            ranks = stats.rankdata(values)
            pairs.append((number + 1, _standard(np.arange(len(values), dtype=np.float64)), _standard(ranks)))
    if not pairs:
        return "fewer than three batches of any epoch have texts that were asked"
    draw = np.random.default_rng(0)
    rho = [float(places @ ranks / len(places)) for _, places, ranks in pairs]
    z = np.array([_in_spreads(each, len(places)) for each, (_, places, _) in zip(rho, pairs, strict=True)])
    drawn = np.empty((len(pairs), n_orders))
    for row, (_, places, ranks) in enumerate(pairs):
        drawn[row] = _in_spreads(_drawn(places, ranks, draw, n_orders), len(places))
        heard(row + 1, len(pairs))
    sums, sums_drawn = _faded(z[:, None])[:, 0], _faded(drawn)
    best = int(sums.argmax())
    asked = np.unique(np.concatenate([np.concatenate(list(epoch)) for epoch in epochs if len(epoch)]))
    return DataOrderTest(
        p=(1 + int((sums_drawn.max(0) >= sums[best]).sum())) / (n_orders + 1),
        p_normal=min(1.0, len(pairs) * float(stats.norm.sf(sums[best]))),
        z=float(sums[best]),
        rho=tuple(rho),
        last=pairs[best][0],
        n=int(np.isfinite(excess[asked]).sum()),
        n_placed=sum(len(places) for _, places, _ in pairs),
        moved=moved,
        n_orders=n_orders,
        subtracted=subtracted[0],
        n_subtracted=subtracted[1],
    )


def _values(epoch: Sequence[npt.NDArray[np.integer]], excess: Floats, moved: Moved) -> Floats:
    """The excess loss of everything that changes places, in the run's order; what was not asked is left out.

    Of a batch it is the sum, not the mean: a batch of which few texts were asked is near 0, and weighs little.
    """
    if moved == "records":
        values: Floats = excess[np.concatenate(list(epoch))] if len(epoch) else np.empty(0)
        return values[np.isfinite(values)]
    found = [excess[np.unique(rows)] for rows in epoch]  # two windows of a text are one text
    asked = [each[np.isfinite(each)] for each in found]
    return np.array([each.sum() for each in asked if len(each)])


def _in_spreads(rho: Floats | float, n: int) -> Floats:
    """Rank correlations in standard deviations over all orders; positive where late ones are remembered best."""
    return np.asarray(-np.asarray(rho) * np.sqrt(n - 1))


def _drawn(places: Floats, ranks: Floats, draw: np.random.Generator, n_orders: int) -> Floats:
    """The rank correlation of random orders, ``[n_orders]``."""
    n = len(places)
    found = np.empty(n_orders)
    at_once = max(1, _AT_ONCE // n)
    for start in range(0, n_orders, at_once):
        count = min(at_once, n_orders - start)
        found[start : start + count] = draw.permuted(np.tile(places, (count, 1)), axis=1) @ ranks / n
    return found


def _faded(z: Floats) -> Floats:
    """``[epochs, k]``: for every epoch the sum up to it, of standard deviation 1, the last epoch counting most."""
    sums = np.empty_like(z)
    total, square = np.zeros(z.shape[1:]), 0.0
    for row, each in enumerate(z):
        total, square = _FADES * total + each, _FADES**2 * square + 1
        sums[row] = total / np.sqrt(square)
    return sums


def _standard(numbers: Floats) -> Floats:
    centred: Floats = numbers - numbers.mean()
    return np.asarray(centred / centred.std(), np.float64)
