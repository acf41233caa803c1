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

What is compared is the rank of a batch's excess loss with the trace that its step should have left. A step leaves a
trace as large as its learning rate, which the later steps wear off, by their learning rates again: late texts are
remembered best while the rate is high, and worst at the end of a schedule that goes to zero. The learning rates are
those of the plan. How fast a trace wears off, and which epoch was the last to leave one (a run may stop early, or keep
weights of an epoch before), depends on the run and so on the very order that is tested: whoever looked it up in the
run's record would have no exact test. So several speeds and ends at epochs of the *plan* are tried, the test's value is
the largest of all sums, each in its own standard deviations, and random orders are scored by the largest, too.

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

from danlu.audit.counting import N_ORDERS, counted_p

__all__ = ["DataOrderTest", "Moved", "data_order_test", "excess_losses"]

Floats = npt.NDArray[np.float64]
Moved = Literal["batches", "records"]
"""What the seed put into a random order: whole batches, or every record by itself."""

_WORN = (0.1, 0.5, 2.0)
"""Share of all the run's learning rates, added up, after which a trace is worn off to 1/e."""
_MOST_ENDS = 8
"""Epochs that are tried as the last one."""
_AT_ONCE = 2**22
"""Numbers of random orders that are held at a time."""


@dataclass(frozen=True, kw_only=True)
class DataOrderTest:
    """What came of a test.

    Attributes:
        p: Share of random orders, the run's own among them, with a sum as large: exact.
        p_normal: What the normal distribution says, times the number of sums tried; not exact.
        z: The largest sum, in its standard deviations; negative where texts are remembered the wrong way round.
        rho: Correlation of expected trace and rank of excess loss in each epoch up to ``last``; negative where what
            should be remembered best is.
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
    rates: Sequence[float] | None = None,
    moved: Moved = "batches",
    n_orders: int = N_ORDERS,
    subtracted: tuple[str, int] = ("nothing", 0),
    heard: Callable[[int, int], None] = lambda _done, _all: None,
) -> DataOrderTest | str:
    """Test whether a suspect remembers best what should have left most.

    Args:
        epochs: The numbers of the records in each batch of each epoch of the plan, in the run's order.
        excess: float [records]; the suspect's excess loss on each, NaN where it was not asked. Which are asked may not
            depend on the order.
        rates: The planned learning rate of every step of these epochs; None: all the same.
        moved: What is in a random order.
        n_orders: Random orders that the count rests on, at the most.
        subtracted: What was taken off the losses, and of how many models.
        heard: Told how many epochs are done.

    Returns:
        The test; or why it could not be made.
    """
    lengths = [len(epoch) for epoch in epochs]
    lasts, traces = _traces(np.ones(sum(lengths)) if rates is None else np.asarray(rates, np.float64), lengths)
    starts, draw = np.cumsum([0, *lengths]), np.random.default_rng(0)
    sums, squares, rho = np.zeros(len(lasts)), np.zeros(len(lasts)), np.zeros((len(epochs), len(lasts)))
    placed: list[tuple[Floats, Floats]] = []
    for number, epoch in enumerate(epochs):
        values, steps = _values(epoch, excess, moved)
        if len(values) >= 3 and values.std() > 0:
            ranks, left = _standard(stats.rankdata(values)), traces[starts[number] + steps]
            left = left - left.mean(0)
            spreads = left.std(0)
            sums -= ranks @ left
            squares += len(ranks) ** 2 * spreads**2 / (len(ranks) - 1)
            rho[number] = ranks @ left / len(ranks) / np.where(spreads > 0, spreads, 1.0)
            placed.append((ranks, left))
        heard(number + 1, len(epochs))
    tried = squares > 0
    if not tried.any():
        return "fewer than three batches of any epoch have texts that were asked"
    spread = np.sqrt(squares[tried])
    z, lasts, rho = sums[tried] / spread, lasts[tried], rho[:, tried]
    best = int(z.argmax())
    p, n_drawn = counted_p(lambda n: (_drawn(placed, n, draw)[:, tried] / spread).max(1), float(z[best]), n_orders)
    return DataOrderTest(
        p=p,
        p_normal=min(1.0, len(z) * float(stats.norm.sf(z[best]))),
        z=float(z[best]),
        rho=tuple(rho[: lasts[best], best].tolist()),
        last=int(lasts[best]),
        n=int(np.isfinite(excess[np.unique(np.concatenate([rows for epoch in epochs for rows in epoch]))]).sum()),
        n_placed=sum(len(ranks) for ranks, _ in placed),
        moved=moved,
        n_orders=n_drawn,
        subtracted=subtracted[0],
        n_subtracted=subtracted[1],
    )


def _traces(rates: Floats, lengths: Sequence[int]) -> tuple[npt.NDArray[np.int64], Floats]:
    """What each step should leave, in every way that is tried.

    Args:
        rates: float [steps]; learning rates.
        lengths: Steps of each epoch.

    Returns:
        int64 [ways]: the last epoch, counted from 1; float64 ``[steps, ways]``.
    """
    done, ends = np.cumsum(rates), np.cumsum(lengths)
    tried = np.unique(np.ceil(np.linspace(0, len(lengths), min(len(lengths), _MOST_ENDS) + 1)[1:])).astype(np.int64)
    lasts, columns = [], []
    for last in tried[[bool(lengths[each - 1]) for each in tried]]:
        for worn in _WORN:
            end = ends[last - 1]
            left = rates * np.exp((np.minimum(done, done[end - 1]) - done[end - 1]) / (worn * done[-1]))
            columns.append(np.where(np.arange(len(rates)) < end, left, 0.0))
            lasts.append(last)
    return np.array(lasts, np.int64), np.stack(columns, axis=1)


def _values(
    epoch: Sequence[npt.NDArray[np.integer]], excess: Floats, moved: Moved
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The excess loss of everything that changes places, and its step in the epoch; what was not asked is left out.

    Of a batch it is the sum, not the mean: a batch of which few texts were asked is near 0, and weighs little.
    """
    if moved == "records":
        values = excess[np.concatenate(list(epoch))] if len(epoch) else np.empty(0)
        steps = np.repeat(np.arange(len(epoch)), [len(rows) for rows in epoch])
        return values[np.isfinite(values)], steps[np.isfinite(values)]
    found = [excess[np.unique(rows)] for rows in epoch]  # two windows of a text are one text
    sums = np.array([np.nansum(each) if np.isfinite(each).any() else np.nan for each in found])
    return sums[np.isfinite(sums)], np.flatnonzero(np.isfinite(sums))


def _drawn(placed: Sequence[tuple[Floats, Floats]], n: int, draw: np.random.Generator) -> Floats:
    """The sums of random orders, ``[n, ways]``; ``placed`` holds each epoch's ranks, and what should be left there."""
    found = np.zeros((n, placed[0][1].shape[1]))
    for ranks, left in placed:
        at_once = max(1, _AT_ONCE // len(ranks))
        for start in range(0, n, at_once):
            count = min(at_once, n - start)
            found[start : start + count] -= draw.permuted(np.tile(ranks, (count, 1)), axis=1) @ left
    return found


def _standard(numbers: Floats) -> Floats:
    return np.asarray((numbers - numbers.mean()) / numbers.std(), np.float64)
