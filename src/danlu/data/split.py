"""Which split a text is in: decided by the text itself, never by its place or by chance.

A text's split follows from the SHA-256 of its key and the seed, so it is the same whatever else is in the data, and a
larger held-out share holds all that a smaller one held. Near-duplicates take the split of the first of their cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from danlu.core.config import Config
from danlu.core.errors import DataError

__all__ = ["SPLITS", "SplitConfig", "given_splits", "hash_splits"]

SPLITS = ("train", "valid", "test")
"""The splits, by rank: what leaks into a split of higher rank is taken out of the lower."""


class SplitConfig(Config):
    """How the records are parted into train, valid and test."""

    valid: float = Field(0.1, ge=0, lt=1)
    """Share of the texts held out for choosing (early stopping, sizes, thresholds)."""
    test: float = Field(0.1, ge=0, lt=1)
    """Share of the texts held out for the final measurement."""
    seed: int = 0
    """Another seed gives another split."""
    column: str | None = None
    """A column of the data that says ``train``, ``valid`` or ``test``. A split that it never names is taken from train,
    by the share above."""

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> SplitConfig:
        if self.valid + self.test >= 1:
            raise ValueError("valid and test leave nothing to train on: their sum must be below 1")
        return self


def hash_splits(digests: Iterable[bytes], config: SplitConfig) -> NDArray[np.int64]:
    """The split of each text, by hash.

    Args:
        digests: SHA-256 of each text's key.
        config: Shares and seed.

    Returns:
        int64 [N]: indices into ``SPLITS``.
    """
    salt = f"split {config.seed} ".encode()
    words = [int.from_bytes(hashlib.sha256(salt + digest).digest()[:8], "big") for digest in digests]
    at = np.array(words, dtype=np.uint64) / 2.0**64
    return np.where(at < config.test, 2, np.where(at < config.test + config.valid, 1, 0)).astype(np.int64)


def given_splits(values: list[str | None], sources: list[str], column: str) -> NDArray[np.int64]:
    """The split of each record, as a column of the data says.

    Args:
        values: The column.
        sources: Where each record comes from, for the error.
        column: Its name.

    Returns:
        int64 [N]: indices into ``SPLITS``.

    Raises:
        DataError: A value is none of ``SPLITS``.
    """
    for value, source in zip(values, sources, strict=True):
        if value not in SPLITS:
            raise DataError(
                f"the split column {column!r} says {value!r}",
                where=source,
                advice=f"use one of {', '.join(SPLITS)}, or leave data.split.column out to split by hash",
            )
    return np.array([SPLITS.index(value) for value in values if value is not None], dtype=np.int64)
