"""What is known of some records, signal by signal: the same for a reference and for a window of live requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.evaluate.metrics import Floats, Ints

__all__ = ["N_CHARACTERS", "Columns", "count_characters", "frequent_characters"]

N_CHARACTERS = 100
"""Characters that are counted one by one; all others are counted together."""


@dataclass(frozen=True)
class Columns:
    """Columns of B records.

    Attributes:
        numbers: Signal -> a number a record, (B,); one signal or more.
        counts: Signal -> counts of N kinds in each record, (B, N).
        vector_BD: What the model's head sees of each record, where it can be looked into.
    """

    numbers: Mapping[str, Floats]
    counts: Mapping[str, Floats] = field(default_factory=dict)
    vector_BD: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        sizes = {len(column) for columns in (self.numbers, self.counts) for column in columns.values()}
        sizes |= set() if self.vector_BD is None else {len(self.vector_BD)}
        if len(sizes) != 1:
            raise DataError(f"columns of one length are due, not of {sorted(sizes)}")

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))

    def take(self, row_B: Ints) -> Columns:
        """These records, in this order."""
        return Columns(
            {name: column[row_B] for name, column in self.numbers.items()},
            {name: column[row_B] for name, column in self.counts.items()},
            None if self.vector_BD is None else self.vector_BD[row_B],
        )

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Records one after the other; only signals that every part has."""
        first = parts[0]
        vectors = [part.vector_BD for part in parts if part.vector_BD is not None]
        return cls(
            {
                name: np.concatenate([part.numbers[name] for part in parts])
                for name in first.numbers
                if all(name in part.numbers for part in parts)
            },
            {name: np.concatenate([part.counts[name] for part in parts]) for name in first.counts},
            np.concatenate(vectors) if len(vectors) == len(parts) else None,
        )


def frequent_characters(texts: Sequence[str]) -> str:
    """The most frequent characters, the most frequent first; of equally frequent ones, the first in Unicode."""
    counted: Counter[str] = Counter()
    for text in texts:
        counted.update(text)
    return "".join(sorted(counted, key=lambda letter: (-counted[letter], letter))[:N_CHARACTERS])


def count_characters(texts: Sequence[str], characters: str) -> Floats:
    """How often each text has each of these characters, and all others together, (B, N + 1)."""
    place = {letter: number for number, letter in enumerate(characters)}
    found_BN = np.zeros((len(texts), len(characters) + 1))
    for row, text in enumerate(texts):
        for letter, n in Counter(text).items():
            found_BN[row, place.get(letter, -1)] += n
    return found_BN
