"""The cleaning of one batch: repair, normalise, mask, filter. Row by row, so batches may be cut and spread at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from danlu.core.config import Config
from danlu.data.encoding import repair_texts
from danlu.data.filters import Language, Verdicts, garbage, language, length, measure, pairs
from danlu.data.labels import OnConflict
from danlu.data.normalize import Form, Whitespace, key_digests, normal_keys, normalize_texts
from danlu.data.pii import mask_texts
from danlu.data.records import check_names
from danlu.data.script import Script, convert_texts

__all__ = ["ROLES", "CleanConfig", "clean_batch", "standard_texts"]

_Side = Annotated[int, Field(ge=1, le=4096)]


class CleanConfig(Config):
    """What happens to a record before it may be trained on, and what is dropped."""

    normalize: Form = "nfkc"
    """Unicode form of the texts. ``nfkc`` turns full-width letters, digits and punctuation into the usual ones."""
    whitespace: Whitespace = "fold"
    """White space of the texts: ``fold`` makes a run of it one space or line break and trims the ends; or ``keep``."""
    script: Script = "keep"
    """Chinese characters in one script, ``simplified`` or ``traditional``; or ``keep`` them as they are."""
    repair: bool = True
    """Repair UTF-8 that was once read as Latin-1, cp1252 or GBK, where that is unambiguous."""
    min_chars: int = Field(1, ge=1)
    """Shorter texts are dropped."""
    max_chars: int = Field(20_000, ge=1)
    """Longer texts are dropped."""
    max_length_ratio: float | None = Field(None, ge=1)
    """Drop pairs of text and target of which one has more than so many times the bytes of the other; null keeps any."""
    languages: tuple[Language, ...] = ()
    """Keep only texts in these languages, by their script; empty keeps any."""
    garbage: bool = True
    """Drop texts that say nothing: no letter or digit, unreadable, one thing over and over."""
    pii: Literal["mask", "drop", "keep"] = "mask"
    """Personal data: put a token such as ``<phone>`` in its place, drop the record, or keep it as it is."""
    conflicts: OnConflict = "drop"
    """The same text or picture with different labels: drop all, keep the majority's, or keep all."""
    conflicts_within: Literal["exact", "near"] = "exact"
    """Whether near-duplicates count as the same text there. If not, near-duplicates of different labels all stay."""
    dedup: Literal["none", "exact", "near"] = "near"
    """Drop records whose content (and label) an earlier one has: never, exactly, or nearly. Splits part none of them.
    Pictures are the same where every pixel is, with ``near`` too."""
    near_threshold: float = Field(0.7, gt=0, le=1)
    """Jaccard similarity of the texts' character n-grams from which they are near-duplicates."""
    near_ngram: int = Field(3, ge=1, le=12)
    """Characters in an n-gram: 3 suits Chinese, 5 long English texts."""
    near_permutations: int = Field(64, ge=8, le=1024)
    """Length of the MinHash signatures that propose candidates; every candidate is then compared exactly."""
    image_size: tuple[_Side, _Side] | None = None
    """Height and width that every picture is resized to; null keeps the size that most have and drops the others."""
    channels: Literal[1, 3] | None = None
    """Make every picture grey (1) or coloured (3); null keeps each as it is."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> CleanConfig:
        if self.min_chars > self.max_chars:
            raise ValueError("min_chars is above max_chars: no text would fit")
        return self


_FOR_ANY = ("conflicts", "dedup")
_FOR_OTHERS = {"max_length_ratio": "target", "image_size": "image", "channels": "image"}
ROLES = {name: _FOR_OTHERS.get(name, "text") for name in CleanConfig.model_fields if name not in _FOR_ANY}
"""The column that each option is about."""


def clean_batch(batch: pa.RecordBatch, config: CleanConfig) -> pa.RecordBatch:
    """Cleans a batch and judges each of its records.

    Args:
        batch: Columns ``source``, ``text``, optionally ``target`` (the text's translation), ``label`` and ``problem``
            (what the reader found wrong; null where nothing), and any others, which are carried through.
        config: What to do.

    Returns:
        As many records in the same order, ``problem`` replaced by ``reason`` (null where the record is kept) and
        ``detail``, with ``_digest`` and ``_target`` (SHA-256 of the key of the text and of the target), ``_pii`` (the
        kinds found) and ``_repaired``.

    Raises:
        DataError: A column has a name that the results need.
    """
    names = batch.schema.names
    check_names(names)
    columns = {name: batch.column(name) for name in names if name != "problem"}
    reasons, details = np.full(len(batch), "", dtype=object), np.full(len(batch), None, dtype=object)
    if "problem" in names:
        reasons[:] = batch.column("problem").fill_null("").to_pylist()
    cleaned: dict[str, pa.Array] = {}
    for role, digests in (("text", "_digest"), ("target", "_target")):
        if role in names:
            given = batch.column(role).cast(pa.large_string())
            texts, repaired, kinds = _standard(pc.fill_null(given, ""), config)
            _mark(reasons, f"missing_{role}", ~_filled(given))
            columns[role] = pc.if_else(pc.is_valid(given), texts, given)
            columns[digests] = key_digests(normal_keys(texts))
            if cleaned:
                repaired, kinds = pc.or_(repaired, columns["_repaired"]), _joined(columns["_pii"], kinds)
            columns |= {"_repaired": repaired, "_pii": kinds}
            cleaned[role] = texts
    if "label" in names:
        _mark(reasons, "missing_label", ~_filled(batch.column("label")))
    if config.pii == "drop":
        found = _mark(reasons, "pii", pc.list_value_length(columns["_pii"]).to_numpy() > 0)
        details[found] = [", ".join(columns["_pii"][row].as_py()) for row in found.tolist()]
    for drop, reason, value in _verdicts(cleaned, config):
        found = _mark(reasons, reason, drop)
        details[found] = [f"{what:.4g}" for what in value[found].tolist()]
    columns["reason"] = pa.array([reason or None for reason in reasons.tolist()], pa.string())
    columns["detail"] = pa.array(details, pa.string())
    return pa.RecordBatch.from_pydict(columns)


def standard_texts(texts: Sequence[str], config: CleanConfig) -> list[str]:
    """Texts as training saw them: repaired, normalised, personal data masked. What is asked of a model goes through it.

    Args:
        texts: Raw texts.
        config: How the training texts were cleaned; nothing is dropped here, and ``pii: drop`` masks.

    Raises:
        UsageError: ``script`` needs a package that is not installed.
    """
    cleaned, _, _ = _standard(pa.array(texts, pa.large_string()), config)
    return list(cleaned.to_pylist())


def _standard(texts: pa.Array, config: CleanConfig) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Repaired, normalised, masked texts; whether each was repaired; the kinds of personal data in each."""
    repaired = pa.array(np.zeros(len(texts), dtype=bool))
    if config.repair:
        texts, repaired = repair_texts(texts)
    texts = convert_texts(normalize_texts(texts, config.normalize, config.whitespace), config.script)
    kinds = pa.array([[]] * len(texts), pa.list_(pa.string()))
    if config.pii != "keep":
        texts, kinds = mask_texts(texts)
    return texts, repaired, kinds


def _verdicts(cleaned: dict[str, pa.Array], config: CleanConfig) -> Verdicts:
    """What speaks against each record: of its text, of its target, of the two together."""
    found: Verdicts = []
    for role, texts in cleaned.items():
        measures = measure(texts)
        found += length(measures, config.min_chars, config.max_chars)
        found += language(measures, config.languages) if role == "text" else []
        found += garbage(measures) if config.garbage else []
    return found + (pairs(cleaned["text"], cleaned["target"], config.max_length_ratio) if "target" in cleaned else [])


def _joined(kinds: pa.Array, others: pa.Array) -> pa.Array:
    """The lists of two arrays of lists, row by row one after the other."""
    return pa.array([a + b for a, b in zip(kinds.to_pylist(), others.to_pylist(), strict=True)], kinds.type)


def _filled(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False))


def _mark(reasons: np.ndarray, reason: str, drop: np.ndarray) -> np.ndarray:
    """Gives a reason to the records that have none yet; the numbers of those that got it."""
    found = np.flatnonzero(drop & (reasons == ""))
    reasons[found] = reason
    return found
