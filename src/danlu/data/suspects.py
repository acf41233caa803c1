"""Which texts of a batch are worth a closer look.

Arrow compiles a regular expression at every call, which takes longer than to search a few texts: those of one request
are searched by Python, which compiles it once. The expression must mean the same to both.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["FEW", "suspects"]

FEW = 64
"""Texts up to which Python is the faster one."""


def suspects(texts: pa.Array, pattern: str) -> np.ndarray:
    r"""Whether a pattern is found in each text.

    Args:
        texts: n strings; in a null nothing is found.
        pattern: A regular expression that RE2 and Python's ``re`` read alike: neither ``\x{..}`` nor classes of
            characters by name.

    Returns:
        bool [n].
    """
    if len(texts) <= FEW:
        search = re.compile(pattern).search
        return np.array([text is not None and search(text) is not None for text in texts.to_pylist()], dtype=bool)
    return np.asarray(pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False))
