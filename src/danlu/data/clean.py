"""The cleaning of one batch: repair, normalise, mask, filter. Row by row, so batches may be cut and spread at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from danlu.core.config import Config
from danlu.core.errors import DataError
from danlu.data.encoding import repair_texts
from danlu.data.filters import Language, garbage, language, length, measure
from danlu.data.labels import OnConflict
from danlu.data.normalize import Form, key_digests, normal_keys, normalize_texts
from danlu.data.pii import mask_texts

__all__ = ["CleanConfig", "clean_batch", "standard_texts"]

_OWN_COLUMNS = ("id", "reason", "detail", "_digest", "_pii", "_repaired")


class CleanConfig(Config):
    """What happens to a text before it may be trained on, and what is dropped."""

    normalize: Form = "nfkc"
    """Unicode form of the texts. ``nfkc`` turns full-width letters, digits and punctuation into the usual ones."""
    repair: bool = True
    """Repair UTF-8 that was once read as Latin-1, cp1252 or GBK, where that is unambiguous."""
    min_chars: int = Field(1, ge=1)
    """Shorter texts are dropped."""
    max_chars: int = Field(20_000, ge=1)
    """Longer texts are dropped."""
    languages: tuple[Language, ...] = ()
    """Keep only texts in these languages, by their script; empty keeps any."""
    garbage: bool = True
    """Drop texts that say nothing: no letter or digit, unreadable, one thing over and over."""
    pii: Literal["mask", "drop", "keep"] = "mask"
    """Personal data: put a token such as ``<phone>`` in its place, drop the record, or keep it as it is."""
    conflicts: OnConflict = "drop"
    """The same text with different labels: drop all, keep the majority's, or keep all."""
    conflicts_within: Literal["exact", "near"] = "exact"
    """Whether near-duplicates count as the same text there. If not, near-duplicates of different labels all stay."""
    dedup: Literal["none", "exact", "near"] = "near"
    """Drop records whose text (and label) an earlier one has: never, exactly, or nearly. Splits part none of them."""
    near_threshold: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of the texts' character n-grams from which they are near-duplicates."""
    near_ngram: int = Field(3, ge=1, le=12)
    """Characters in an n-gram: 3 suits Chinese, 5 long English texts."""
    near_permutations: int = Field(64, ge=8, le=1024)
    """Length of the MinHash signatures that propose candidates; every candidate is then compared exactly."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> CleanConfig:
        if self.min_chars > self.max_chars:
            raise ValueError("min_chars is above max_chars: no text would fit")
        return self


def clean_batch(batch: pa.RecordBatch, config: CleanConfig) -> pa.RecordBatch:
    """Cleans a batch and judges each of its records.

    Args:
        batch: Columns ``source``, ``text``, optionally ``label`` and ``problem`` (what the reader found wrong; null
            where nothing), and any others, which are carried through.
        config: What to do.

    Returns:
        As many records in the same order, ``problem`` replaced by ``reason`` (null where the record is kept) and
        ``detail``, with ``_digest`` (SHA-256 of the text's key), ``_pii`` (the kinds found) and ``_repaired``.

    Raises:
        DataError: A column has a name that the results need.
    """
    for name in batch.schema.names:
        if name in _OWN_COLUMNS:
            raise DataError(f"the data has a column {name!r}, a name kept for danlu's own", advice="rename the column")
    n = len(batch)
    given = batch.column("text").cast(pa.large_string())
    texts, repaired, kinds = _standard(pc.fill_null(given, ""), config)

    reasons = np.full(n, "", dtype=object)
    details = np.full(n, None, dtype=object)
    if "problem" in batch.schema.names:
        reasons[:] = batch.column("problem").fill_null("").to_pylist()
    _mark(reasons, "missing_text", ~_filled(given))
    if "label" in batch.schema.names:
        _mark(reasons, "missing_label", ~_filled(batch.column("label")))
    if config.pii == "drop":
        found = _mark(reasons, "pii", pc.list_value_length(kinds).to_numpy() > 0)
        details[found] = [", ".join(kinds[row].as_py()) for row in found.tolist()]
    measures = measure(texts)
    verdicts = length(measures, config.min_chars, config.max_chars) + language(measures, config.languages)
    for drop, reason, value in verdicts + (garbage(measures) if config.garbage else []):
        found = _mark(reasons, reason, drop)
        details[found] = [f"{what:.4g}" for what in value[found].tolist()]

    columns = {name: batch.column(name) for name in batch.schema.names if name != "problem"}
    columns["text"] = pc.if_else(pc.is_valid(given), texts, given)
    columns["reason"] = pa.array([reason or None for reason in reasons.tolist()], pa.string())
    columns["detail"] = pa.array(details, pa.string())
    columns["_digest"] = key_digests(normal_keys(texts))
    columns["_pii"] = kinds
    columns["_repaired"] = repaired
    return pa.RecordBatch.from_pydict(columns)


def standard_texts(texts: Sequence[str], config: CleanConfig) -> list[str]:
    """Texts as training saw them: repaired, normalised, personal data masked. What is asked of a model goes through it.

    Args:
        texts: Raw texts.
        config: How the training texts were cleaned; nothing is dropped here, and ``pii: drop`` masks.
    """
    cleaned, _, _ = _standard(pa.array(texts, pa.large_string()), config)
    return list(cleaned.to_pylist())


def _standard(texts: pa.Array, config: CleanConfig) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Repaired, normalised, masked texts; whether each was repaired; the kinds of personal data in each."""
    repaired = pa.array(np.zeros(len(texts), dtype=bool))
    if config.repair:
        texts, repaired = repair_texts(texts)
    texts = normalize_texts(texts, config.normalize)
    kinds = pa.array([[]] * len(texts), pa.list_(pa.string()))
    if config.pii != "keep":
        texts, kinds = mask_texts(texts)
    return texts, repaired, kinds


def _filled(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False))


def _mark(reasons: np.ndarray, reason: str, drop: np.ndarray) -> np.ndarray:
    """Gives a reason to the records that have none yet; the numbers of those that got it."""
    found = np.flatnonzero(drop & (reasons == ""))
    reasons[found] = reason
    return found
