"""What a text is like, and whether to keep it: length, language, garbage.

The measures come from one pass over a batch's characters in numpy. The thresholds are set so that an honest review of
two characters stays ("很好", "666"): only what says nothing at all goes.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["Language", "Measures", "Verdicts", "garbage", "language", "length", "measure", "pairs"]

Language = Literal["zh", "en"]
Verdicts = list[tuple[NDArray[np.bool_], str, NDArray[np.float64]]]
"""For each reason: which texts it drops, its name, and the measure that decided."""

_SPACE, _DIGIT, _SYMBOL, _HAN, _LATIN, _KANA, _OTHER, _BROKEN = range(8)
_LATIN_LETTERS_TO_A_HAN = 3.0
_SYMBOL_SHARE = 0.95
_ENTROPY_BITS = 0.5
_BROKEN_SHARE = 0.1
_REPEATED_SHARE = 0.5
_ENOUGH = 100
"""Characters from which symbols and repetition count: "厚!厚!厚!厚!厚!" and "一般////////" are honest reviews."""


@dataclass(frozen=True)
class Measures:
    """What N texts are made of.

    Attributes:
        n_chars: int64 [N]; Unicode code points.
        counts: int64 [N, 8]; characters that are space, digit, symbol, Han, Latin, kana, other letter, broken.
        entropy: float64 [N]; bits a character of the text's own character distribution; infinite for a text too short
            to be judged by it.
        repeated: float64 [N]; share of the text's characters in lines that came before in it; 0 for a short text.
    """

    n_chars: NDArray[np.int64]
    counts: NDArray[np.int64]
    entropy: NDArray[np.float64]
    repeated: NDArray[np.float64]

    def share(self, kind: int) -> NDArray[np.float64]:
        """float64 [N]; share of one kind of character."""
        return self.counts[:, kind] / np.maximum(self.n_chars, 1)


@functools.cache
def _kinds() -> NDArray[np.uint8]:
    """The kind of every code point."""
    by_category = {"N": _DIGIT, "P": _SYMBOL, "S": _SYMBOL, "M": _OTHER, "L": _OTHER, "Z": _SPACE}
    table = np.empty(0x110000, dtype=np.uint8)
    for point in range(0x110000):
        category = unicodedata.category(chr(point))
        table[point] = by_category.get(category[0], _BROKEN)
    for kind, ranges in (
        (_HAN, ((0x3005, 0x3008), (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x323B0))),
        (_LATIN, ((0x41, 0x5B), (0x61, 0x7B), (0xC0, 0xD7), (0xD8, 0xF7), (0xF8, 0x250), (0x1E00, 0x1F00))),
        (_KANA, ((0x3041, 0x3100), (0x31F0, 0x3200), (0xFF66, 0xFFA0))),
        (_SPACE, ((0x09, 0x0E), (0x20, 0x21))),
        (_SYMBOL, ((0x200C, 0x200E),)),
        (_BROKEN, ((0xFFFD, 0xFFFE),)),
    ):
        for begin, end in ranges:
            table[begin:end] = kind
    return table


def measure(texts: pa.Array) -> Measures:
    """Measures every text of a batch.

    Args:
        texts: N strings without nulls.
    """
    n_texts = len(texts)
    strings = texts.to_pylist()
    n_chars = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    points = np.frombuffer("".join(strings).encode("utf-32-le"), dtype=np.uint32)
    owner = np.repeat(np.arange(n_texts), n_chars)
    counts = np.bincount(owner * 8 + _kinds()[points], minlength=8 * n_texts).reshape(n_texts, 8)

    # From the run lengths c of a text's n sorted characters: log2 n - (sum of c log2 c) / n.
    long = n_chars >= _ENOUGH
    pairs = np.sort(((owner << 21) | points)[long[owner]])
    begins = np.flatnonzero(np.diff(pairs, prepend=-1))
    runs = np.diff(begins, append=len(pairs))
    spread = np.bincount(pairs[begins] >> 21, weights=runs * np.log2(runs), minlength=n_texts)
    n = np.maximum(n_chars, 1)
    entropy = np.where(long, np.log2(n) - spread / n, np.inf)
    repeated = np.zeros(n_texts)
    for row in np.flatnonzero(long).tolist():
        repeated[row] = _repeated(strings[row])
    return Measures(n_chars, counts, entropy, repeated)


def _repeated(text: str) -> float:
    lines = text.split("\n")
    return 1.0 - sum(map(len, set(lines))) / sum(map(len, lines)) if len(lines) > 3 else 0.0


def length(measures: Measures, min_chars: int, max_chars: int) -> Verdicts:
    """Texts too short or too long, in characters; ``empty`` where there are none at all."""
    n_chars = measures.n_chars
    return [
        (n_chars == 0, "empty", n_chars.astype(np.float64)),
        (n_chars < min_chars, "too_short", n_chars.astype(np.float64)),
        (n_chars > max_chars, "too_long", n_chars.astype(np.float64)),
    ]


def language(measures: Measures, languages: Sequence[Language]) -> Verdicts:
    """Texts in none of the languages, by the share of their letters' scripts.

    A Han character weighs as much as three Latin letters. Text with a good share of kana is not Chinese. A text without
    letters is in every language.

    Args:
        measures: From ``measure``.
        languages: Those to keep; none keeps all.
    """
    if not languages:
        return []
    han, latin, kana, other = (measures.counts[:, kind].astype(np.float64) for kind in (_HAN, _LATIN, _KANA, _OTHER))
    latin /= _LATIN_LETTERS_TO_A_HAN
    total = np.maximum(han + latin + kana + other, 1e-9)
    shares = {"zh": np.where(kana > 0.25 * han, 0.0, han / total), "en": latin / total}
    best = np.max([shares[name] for name in languages], axis=0)
    return [((best < 0.5) & (total >= 1), "language", best)]


def garbage(measures: Measures) -> Verdicts:
    """Texts that say nothing.

    ``no_text``: not one letter or digit. ``broken``: replacement, private-use or unassigned characters. ``symbols``:
    hardly anything but punctuation. ``repetition``: one character over and over, by entropy.
    ``repeated_lines``: most of a text of lines has stood in it before (after Rae et al. 2021, "Scaling language
    models", appendix A).
    """
    enough = measures.n_chars >= _ENOUGH
    n_text = measures.counts[:, [_DIGIT, _HAN, _LATIN, _KANA, _OTHER]].sum(axis=1)
    symbols, broken = measures.share(_SYMBOL), measures.share(_BROKEN)
    return [
        (n_text == 0, "no_text", symbols),
        (broken > _BROKEN_SHARE, "broken", broken),
        (enough & (symbols > _SYMBOL_SHARE), "symbols", symbols),
        (enough & (measures.entropy < _ENTROPY_BITS), "repetition", measures.entropy),
        (measures.repeated > _REPEATED_SHARE, "repeated_lines", measures.repeated),
    ]


def pairs(texts: pa.Array, targets: pa.Array, max_length_ratio: float | None) -> Verdicts:
    """Pairs of a text and its translation that are none.

    ``untranslated``: the two are one. ``length_ratio``: one is far longer than the other, in bytes of UTF-8, of which a
    Chinese character has three and says about as much as so many Latin letters.

    Args:
        texts: N strings without nulls.
        targets: N others.
        max_length_ratio: The most times that one of a pair may be as long as the other; None allows any.
    """
    n_text, n_target = (
        np.maximum(pc.binary_length(side).to_numpy(zero_copy_only=False), 1).astype(np.float64)
        for side in (texts, targets)
    )
    same = np.asarray(pc.equal(texts, targets).to_numpy(zero_copy_only=False), dtype=bool)
    ratio = np.maximum(n_text, n_target) / np.minimum(n_text, n_target)
    too_different = [] if max_length_ratio is None else [(ratio > max_length_ratio, "length_ratio", ratio)]
    return [(same, "untranslated", ratio), *too_different]
