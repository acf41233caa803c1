"""How well a language model foresees texts, in bits per character, from its predictions file.

Bits per character do not depend on how a model cuts text into tokens, so any two models can be compared by them, also
one of characters with one of words. Perplexity per token does depend on it, and is given as context only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from danlu.core.errors import DataError
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.corpus import compare_sums, measure_slices, measure_sums
from danlu.evaluate.metrics import Floats, Ints
from danlu.evaluate.pairing import different_test, match_records, paired_facts
from danlu.evaluate.predictions import RowWriter, columns_of, latency, open_predictions
from danlu.evaluate.slices import length_quarters
from danlu.evaluate.tasks import Task

__all__ = ["LANGUAGE_MODELLING", "LanguageWriter", "compare_language", "evaluate_language"]

LARGEST_EXPONENT = 700.0
"""exp of more overflows float64; a perplexity of 10^304 says enough."""


class LanguageWriter(RowWriter):
    """Writes what a language model makes of texts; a context manager.

    The columns: ``id`` (string), ``nats`` (float64), ``n_chars`` and ``n_tokens`` (int32), ``milliseconds`` (float32).

    Args:
        path: The parquet file to make.
    """

    def __init__(self, path: Path) -> None:
        columns = {
            "id": pa.string(),
            "nats": pa.float64(),
            "n_chars": pa.int32(),
            "n_tokens": pa.int32(),
            "milliseconds": pa.float32(),
        }
        super().__init__(path, pa.schema(columns))

    def write(
        self,
        ids: Sequence[str],
        nats_B: NDArray[np.floating],
        n_chars_B: NDArray[np.integer],
        n_tokens_B: NDArray[np.integer],
        milliseconds_B: NDArray[np.floating],
    ) -> None:
        """Add a batch.

        Args:
            ids: B record ids, unique within the split.
            nats_B: Minus the natural log of the probability of each whole text and its end.
            n_chars_B: Its characters, at least 1.
            n_tokens_B: The tokens that were predicted, the end among them; at least 1.
            milliseconds_B: Time spent on each text.

        Raises:
            DataError: A text has no characters, or its negative log-likelihood is no finite number from 0 up.
        """
        empty = (n_chars_B < 1) | (n_tokens_B < 1)
        if empty.any():
            raise DataError(
                "a text has no characters, so it has no bits per character",
                where=f"record {ids[int(empty.argmax())]}",
                advice="leave empty texts out of the split",
            )
        off = ~(np.isfinite(nats_B) & (nats_B >= 0))
        if off.any():
            raise DataError(
                f"the model gives a text a negative log-likelihood of {nats_B[off][0]}",
                where=f"record {ids[int(off.argmax())]}",
                advice="its training has probably diverged: look at the loss, and train with a lower learning rate",
            )
        self._add(ids, nats_B, n_chars_B, n_tokens_B, milliseconds_B)


def evaluate_language(path: Path, config: EvaluateConfig, rng: np.random.Generator) -> dict[str, Any]:
    """Bits per character with its interval, and what to look at.

    Both metrics are ratios of sums over all texts, so that a long text counts by its length; the bootstrap draws whole
    texts, because the characters of one text are not independent.

    Args:
        path: A file by :class:`LanguageWriter`.
        config: Resamples, confidence, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``n`` texts, ``n_chars``, ``n_tokens``, ``confidence``, ``n_resamples``; ``metrics``
        (``bits_per_character`` and, as context, ``perplexity_per_token``), each a ``value`` with ``low``, ``high``,
        ``n`` and ``method``; ``slices`` by length; the ``hardest``, ``easiest`` and ``slowest`` texts; ``latency_ms``
        a text.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is not a predictions file.
        DataError: It holds no records.
    """
    found = _read(path)
    names, slice_B = length_quarters(found.n_chars_B)
    by_difficulty = np.argsort(-found.bits_per_character, kind="stable")
    return {
        "n": len(found.ids),
        "n_chars": int(found.n_chars_B.sum()),
        "n_tokens": int(found.n_tokens_B.sum()),
        "confidence": config.confidence,
        "n_resamples": config.bootstrap,
        "metrics": measure_sums(found.parts, _all_metrics, config, rng),
        "slices": {"n_chars": measure_slices(names, slice_B, found.parts, _bits_per_character, config, rng)},
        "hardest": found.examples(by_difficulty[: config.examples]),
        "easiest": found.examples(by_difficulty[::-1][: config.examples]),
        "slowest": found.examples(np.argsort(-found.milliseconds_B, kind="stable")[: config.examples]),
        "latency_ms": latency(found.milliseconds_B),
    }


def compare_language(
    a_path: Path, b_path: Path, names: tuple[str, str], config: EvaluateConfig, rng: np.random.Generator
) -> dict[str, Any]:
    """Model A against model B on the texts that both have read.

    Both divide by the same number of characters. Swapping the models on a text therefore only turns the sign of its
    difference in nats, and the permutation test is the paired sign-flip test of the sum of those differences: exact
    under the null hypothesis that on every text the two are exchangeable, whatever the lengths of the texts.

    Args:
        a_path: Predictions of A.
        b_path: Predictions of B; the records may be in another order.
        names: What to call A and B.
        config: Resamples, permutations, confidence, examples.
        rng: The source of all randomness; the same generator state gives the same result.

    Returns:
        ``a``, ``b``, ``n``, ``confidence``, ``n_resamples``, ``n_permutations``; ``metrics``, of which
        ``bits_per_character`` has ``a``, ``b``, ``difference`` (A - B: negative where A is better), ``low``, ``high``,
        ``p_bootstrap`` and ``p_permutation``; and the texts on which A saves most bits (``a_better``) and B does
        (``b_better``).

    Raises:
        UsageError: A file is missing.
        CorruptError: A file is not a predictions file.
        DataError: They are not predictions of the same test: ids or lengths differ.
    """
    a, b = _read(a_path), _read(b_path)
    b = b.take(match_records(a.ids, b.ids, names))
    other_length = a.n_chars_B != b.n_chars_B
    if other_length.any():
        raise different_test(f"record {a.ids[int(other_length.argmax())].as_py()} has two lengths", names)
    saved_B = (b.nats_B - a.nats_B) / math.log(2)
    by_saving = np.argsort(-saved_B, kind="stable")

    def examples(rows: Ints) -> list[dict[str, Any]]:
        return [
            {
                "id": a.ids[row].as_py(),
                "n_chars": int(a.n_chars_B[row]),
                "a": float(a.bits_per_character[row]),
                "b": float(b.bits_per_character[row]),
                "bits_saved": abs(float(saved_B[row])),
            }
            for row in rows.tolist()[: config.examples]
        ]

    return {
        **paired_facts(names, len(a.ids), config),
        "metrics": compare_sums(a.parts, b.parts, _bits_per_character, config, rng),
        "a_better": examples(by_saving[saved_B[by_saving] > 0]),
        "b_better": examples(by_saving[::-1][saved_B[by_saving[::-1]] < 0]),
    }


LANGUAGE_MODELLING = Task(
    primary="bits_per_character", higher_is_better=False, evaluate=evaluate_language, compare=compare_language
)


@dataclass(frozen=True)
class _Predictions:
    """The columns of a language model's predictions file."""

    ids: pa.Array
    nats_B: Floats
    n_chars_B: NDArray[np.int32]
    n_tokens_B: NDArray[np.int32]
    milliseconds_B: NDArray[np.float32]

    @property
    def parts(self) -> Floats:
        """What the metrics sum, [B, 3]: nats, characters, tokens."""
        return np.stack([self.nats_B, self.n_chars_B, self.n_tokens_B], axis=1).astype(np.float64)

    @property
    def bits_per_character(self) -> Floats:
        """Of each text."""
        return _bits_per_character(self.parts)["bits_per_character"]

    def take(self, row_B: Ints) -> _Predictions:
        """These records, in this order."""
        return _Predictions(
            self.ids.take(pa.array(row_B)),
            self.nats_B[row_B],
            self.n_chars_B[row_B],
            self.n_tokens_B[row_B],
            self.milliseconds_B[row_B],
        )

    def examples(self, rows: Ints) -> list[dict[str, Any]]:
        """Records as plain JSON, to be looked at."""
        bits_B = self.bits_per_character
        return [
            {
                "id": self.ids[row].as_py(),
                "bits_per_character": float(bits_B[row]),
                "n_chars": int(self.n_chars_B[row]),
                "milliseconds": float(self.milliseconds_B[row]),
            }
            for row in rows.tolist()
        ]


def _read(path: Path) -> _Predictions:
    with open_predictions(path) as table:
        column = columns_of(table, ("id", "nats", "n_chars", "n_tokens", "milliseconds"))
        numbers = [column[name].to_numpy() for name in ("nats", "n_chars", "n_tokens", "milliseconds")]
        found = _Predictions(column["id"], *numbers)
    return found


def _bits_per_character(sums_RJ: Floats) -> dict[str, Floats]:
    nats_R, n_chars_R, _ = sums_RJ.T
    return {"bits_per_character": nats_R / math.log(2) / n_chars_R}


def _all_metrics(sums_RJ: Floats) -> dict[str, Floats]:
    nats_R, _, n_tokens_R = sums_RJ.T
    perplexity_R = np.exp(np.minimum(nats_R / n_tokens_R, LARGEST_EXPONENT))
    return {**_bits_per_character(sums_RJ), "perplexity_per_token": perplexity_R}
