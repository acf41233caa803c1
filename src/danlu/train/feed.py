"""The training texts as batches: the order of every epoch planned ahead, each batch cut when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from danlu.core.batch import Batch
from danlu.core.merkle import merkle_root
from danlu.core.seeds import Seeds
from danlu.data.batches import packed, shuffled
from danlu.data.sequences import pack
from danlu.train.config import TrainConfig

__all__ = ["PlannedFeed"]


class PlannedFeed:
    """A :class:`danlu.train.loop.Feed` over rows of known length.

    Args:
        lengths: int [n]; tokens of every training text; or [n, K] where a record has K texts, of which the longest
            counts towards the token budget.
        make: Makes the batch of some rows at a step.
        config: Epochs, token budget, how often to evaluate.
        seeds: The run's seeds; the ``order`` stream is used here, a position an epoch.
        pack_into: Tokens of a row that holds several texts; None: a text is a row of its own.
        records: int [n]; the number in the dataset's train split of the record that each text is of; None: its own.

    Attributes:
        epochs: The steps of each epoch.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        make: Callable[[np.ndarray, int], Batch],
        config: TrainConfig,
        seeds: Seeds,
        pack_into: int | None = None,
        records: np.ndarray | None = None,
    ) -> None:
        self._pack_into = pack_into
        self._records = records
        cut = shuffled if pack_into is None else packed
        self._make = make
        self._lengths_nK = lengths[:, None] if lengths.ndim == 1 else lengths
        longest = self._lengths_nK.max(1)
        self._plan: list[np.ndarray] = []
        evaluate_after: set[int] = set()
        self.epochs: list[range] = []
        for epoch in range(config.epochs):
            room = None if config.max_steps is None else config.max_steps - len(self._plan)
            if room == 0:
                break
            batches = cut(longest, config.batch_tokens, seeds.generator("order", epoch))[:room]
            for part in range(1, config.evaluations_per_epoch + 1):
                evaluate_after.add(len(self._plan) + len(batches) * part // config.evaluations_per_epoch)
            self.epochs.append(range(len(self._plan), len(self._plan) + len(batches)))
            self._plan += batches
        self.n_steps = len(self._plan)
        self.n_tokens = sum(int(self._lengths_nK[rows].sum()) for rows in self._plan)
        self.evaluate_after = frozenset(evaluate_after - {0})

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of a step's batch."""
        return self._plan[step]

    def records(self, step: int) -> np.ndarray:
        """Numbers of the records of a step's batch in the dataset's train split; of a text cut in two, twice."""
        rows = self._plan[step]
        return rows if self._records is None else self._records[rows]

    @cached_property
    def order_root(self) -> str:
        """Merkle root over the steps, of each the little-endian int64 numbers of its records."""
        return merkle_root(self._told())

    def _told(self) -> Iterator[memoryview]:
        """The bytes of every step's record numbers, made an epoch at a time: batch by batch takes far longer."""
        for steps in self.epochs:
            batches = self._plan[steps.start : steps.stop]
            rows = np.concatenate(batches)
            numbers = (rows if self._records is None else self._records[rows]).astype("<i8")
            content, start = numbers.view(np.uint8).data, 0
            for batch in batches:
                end = start + 8 * len(batch)
                yield content[start:end]
                start = end

    def size(self, step: int) -> int:
        """Positions of a step's batch, padding included."""
        rows = self._plan[step]
        if self._pack_into is not None:
            return len(pack(self._lengths_nK[rows, 0], self._pack_into)) * self._pack_into
        return len(rows) * int(self._lengths_nK[rows].max(0).sum())

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self._make(self._plan[step], step)
