"""Two predictions files of the same test, record by record: what every task's comparison begins with."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from danlu.core.errors import DataError
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.metrics import Ints

__all__ = ["different_test", "match_records", "paired_facts"]


def different_test(what: str, names: tuple[str, str]) -> DataError:
    """The error for predictions that cannot be compared.

    Args:
        what: In what the tests differ.
        names: What the models are called.
    """
    return DataError(
        f"these are not predictions of the same test: {what}",
        where=f"{names[0]} and {names[1]}",
        advice="evaluate both models on the same split of the same data, then compare again",
    )


def match_records(a_ids: pa.Array, b_ids: pa.Array, names: tuple[str, str]) -> Ints:
    """Where in B each record of A is.

    Args:
        a_ids: The record ids of A.
        b_ids: The record ids of B, in any order.
        names: What A and B are called.

    Raises:
        DataError: They are not the same ids, each once.
    """
    if len(a_ids) != len(b_ids):
        raise different_test(f"{len(a_ids)} records and {len(b_ids)}", names)
    if pc.count_distinct(a_ids).as_py() != len(a_ids):
        raise different_test(f"an id of {names[0]} occurs twice", names)
    place = pc.index_in(a_ids, value_set=b_ids)
    if place.null_count:
        missing = a_ids.filter(pc.is_null(place))[0].as_py()
        raise different_test(f"record {missing} is missing from {names[1]}", names)
    place_B: Ints = place.cast(pa.int64()).to_numpy()
    return place_B


def paired_facts(names: tuple[str, str], n: int, config: EvaluateConfig) -> dict[str, Any]:
    """What the comparison of any two models says first: ``a``, ``b``, ``n`` and how it was reckoned."""
    return {
        "a": names[0],
        "b": names[1],
        "n": n,
        "confidence": config.confidence,
        "n_resamples": config.bootstrap,
        "n_permutations": config.permutations,
    }
