"""The baseline of language modelling: an interpolated character n-gram model with modified Kneser-Ney smoothing.

The n-grams of one order are one sorted array of integers. An n-gram's key is ``context * V + symbol``, where
``context`` is the place of its first n-1 symbols among the (n-1)-grams. So an n-gram of any order fits into 64 bits,
fitting is one sort an order, and scoring is one binary search an order for all positions at once.

Shape suffixes of this file: G n-grams of one order, C their contexts, P positions of some texts laid end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.core.files import read_json, write_atomic, write_json
from danlu.model.decode import DecodeConfig

__all__ = ["NgramConfig", "NgramModel"]

Ints = NDArray[np.int64]
Counts = NDArray[np.int32]
Floats = NDArray[np.float64]

BEGIN, END, UNKNOWN = range(3)
"""The symbols that are not characters; the known characters follow, in the order of their code points."""

N_CODE_POINTS = 0x110000
"""The code points of Unicode: all that a character of a text can be."""

FALLBACK = (0.5, 1.0, 1.5)
"""The discounts where there are too few n-grams to estimate them from."""


class NgramConfig(Config):
    """A character n-gram language model."""

    order: int = Field(default=5, ge=1)
    """How many characters an n-gram spans: the predicted one and those before it."""


@dataclass(frozen=True)
class _Level:
    """The n-grams of one order. G and C end with an entry for all that was never seen: count 0, backoff 1."""

    keys_G: Ints
    counts_G: Counts
    discounts: Floats
    """What to take off a count of 0, of 1, of 2, and of 3 or more."""
    totals_C: Floats
    """The sum of the counts of a context's n-grams."""
    backoffs_C: Floats
    """The share of a context's mass that goes to the order below."""

    @classmethod
    def of(cls, keys_G: Ints, counts_G: Counts, n_contexts: int, n_symbols: int) -> _Level:
        discounts = _discounts(counts_G)
        contexts_G = keys_G // n_symbols
        totals_C = _sums(contexts_G, counts_G, n_contexts + 1)
        taken_C = _sums(contexts_G, discounts[np.minimum(counts_G, 3)], n_contexts + 1)
        childless_C = totals_C == 0
        totals_C[childless_C] = taken_C[childless_C] = 1
        unseen = np.iinfo(np.int64).max
        return cls(np.append(keys_G, unseen), np.append(counts_G, np.int32(0)), discounts, totals_C, taken_C / totals_C)

    def find(self, keys_P: Ints) -> Ints:
        """The place of every key; that of the last entry where there is none."""
        order_P = np.argsort(keys_P)  # in ascending order, searches share their path: ten times as fast
        places_P = np.empty_like(keys_P)
        places_P[order_P] = np.searchsorted(self.keys_G, keys_P[order_P])
        places_P[self.keys_G[places_P] != keys_P] = len(self.keys_G) - 1
        return places_P

    def own(self, places: Ints | slice, contexts: Ints | int) -> Floats:
        """The part of the probability that comes from this order's own counts."""
        counts = self.counts_G[places]
        share: Floats = (counts - self.discounts[np.minimum(counts, 3)]) / self.totals_C[contexts]
        return share


class NgramModel:
    """Interpolated modified Kneser-Ney over characters (Kneser and Ney 1995; Chen and Goodman 1999, section 3).

    With h a context, h' the same without its first character, and c the counts of an order::

        P(w | h) = (c(hw) - D(c(hw))) / sum_v c(hv) + backoff(h) P(w | h')

    In the highest order c counts occurrences; below it, the different symbols seen before hw, except that an n-gram
    at the very beginning of a text, which nothing precedes, keeps its occurrences. D has one value each for counts of
    1, of 2 and of 3 or more, estimated for every order from its counts of counts; what it takes away is the backoff.

    A text is one document: after a begin symbol, which is never predicted, come its characters and an end symbol,
    which is. Below the single characters stands the uniform distribution over the end and every code point of
    Unicode. So whatever the single characters leave over is the mass of the unknown, spread evenly over the
    characters that were never seen; any text has a probability, and bits per character may be compared with those of
    a model that can spell any character.

    Args:
        config: See :class:`NgramConfig`.
    """

    def __init__(self, config: NgramConfig) -> None:
        self.config = config
        self._characters = np.zeros(0, np.uint32)
        self._symbols = np.zeros(0, np.int64)
        """Code point -> symbol."""
        self._levels: list[_Level] = []

    @property
    def n_parameters(self) -> int:
        """The counts: one for every n-gram of every order."""
        return sum(int(np.count_nonzero(level.counts_G)) for level in self._levels)

    def fit(self, texts: Sequence[str]) -> Self:
        """Count. At its peak this takes about 160 bytes of memory a character.

        Args:
            texts: Training texts, one document each.

        Raises:
            DataError: There is no character in them.
        """
        self._learn_characters(np.unique(_code_points(texts)))
        if not len(self._characters):
            raise DataError("a language model needs text to learn from", where="the training split")
        symbols_P, begins_B = self._stream(texts)
        n_symbols = self._n_symbols
        since_P = np.arange(len(symbols_P)) - np.repeat(begins_B, _lengths(texts))
        keys, counts = [np.arange(n_symbols)], [np.bincount(symbols_P, minlength=n_symbols)]
        counts[0][BEGIN] = 0
        places_P = symbols_P
        for order in range(2, self.config.order + 1):
            ends = np.flatnonzero(since_P >= order - 1)  # so that no n-gram reaches over the beginning of its text
            keys_G, first_G, places, counts_G = np.unique(
                places_P[ends - 1] * n_symbols + symbols_P[ends],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            preceded_C = np.bincount(places_P[ends[first_G]], minlength=len(keys[-1]))
            counts[-1] = np.where(preceded_C, preceded_C, counts[-1])
            places_P = np.zeros_like(symbols_P)
            places_P[ends] = places
            keys.append(keys_G)
            counts.append(counts_G)
        self._learn_counts(keys, [counts_G.astype(np.int32) for counts_G in counts])
        return self

    def nats(self, texts: Sequence[str]) -> Floats:
        """The negative log-likelihood of every text and its end, in nats (B,)."""
        symbols_P, begins_B = self._stream(texts)
        nats_P = self._nats(symbols_P)
        nats_P[begins_B] = 0
        rows_P = np.repeat(np.arange(len(texts)), _lengths(texts))
        return _sums(rows_P, nats_P, len(texts))

    def write(self, prompts: Sequence[str], config: DecodeConfig) -> list[str]:
        """What comes after each prompt, drawn as the model says.

        Args:
            prompts: Beginnings of texts.
            config: Its ``max_new_tokens`` counts characters; its ``seed`` is used; the temperature is 1.
        """
        return [
            self.generate(prompt, config.max_new_tokens, np.random.default_rng([config.seed, row]))
            for row, prompt in enumerate(prompts)
        ]

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """int64 [n]: characters of each text, and its end."""
        return np.array([len(text) + 1 for text in texts], np.int64)

    def nats_per_character(self, text: str) -> Floats:
        """The negative log-likelihood of every character of a text, then of its end, in nats (len(text) + 1,)."""
        return self._nats(self._stream([text])[0])[1:]

    def generate(self, prompt: str, n_characters: int, generator: np.random.Generator) -> str:
        """Write on, one character drawn after the other; never a character that no training text has.

        Args:
            prompt: The beginning of the text.
            n_characters: How many to write at most; the text may end before.
            generator: The source of all randomness.

        Returns:
            The continuation, without the prompt.
        """
        symbols = self._stream([prompt])[0][:-1].tolist()
        n_prompt = len(symbols)
        while len(symbols) < n_prompt + n_characters:
            weights_V = self._weights(np.array(symbols[-self.config.order + 1 :]))
            drawn = int(generator.choice(self._n_symbols, p=weights_V / weights_V.sum()))
            if drawn == END:
                break
            symbols.append(drawn)
        return "".join(chr(self._characters[symbol - UNKNOWN - 1]) for symbol in symbols[n_prompt:])

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder."""
        levels = list(enumerate(self._levels, start=1))
        tensors: dict[str, NDArray[np.generic]] = {"characters": self._characters}
        tensors |= {f"counts_{order}": level.counts_G[:-1] for order, level in levels}
        tensors |= {f"keys_{order}": level.keys_G[:-1] for order, level in levels[1:]}
        write_json(folder / "config.json", self.config.plain())
        write_atomic(folder / "model.safetensors", save(tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; the answers are the same to the bit.

        Raises:
            CorruptError: A file is not what was written.
        """
        try:
            model = cls(NgramConfig(**read_json(folder / "config.json")))
            tensors = load_file(folder / "model.safetensors")
            orders = range(1, model.config.order + 1)
            model._learn_characters(tensors["characters"])
            keys = [np.arange(model._n_symbols), *(tensors[f"keys_{order}"] for order in orders[1:])]
            model._learn_counts(keys, [tensors[f"counts_{order}"] for order in orders])
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            ValidationError,
            SafetensorError,
            FileNotFoundError,
        ) as error:
            raise CorruptError(f"not a saved n-gram model: {error}", where=str(folder)) from error
        return model

    @property
    def _n_symbols(self) -> int:
        return UNKNOWN + 1 + len(self._characters)

    def _learn_characters(self, characters: NDArray[np.uint32]) -> None:
        self._characters = characters
        self._symbols = np.full(N_CODE_POINTS, UNKNOWN)
        self._symbols[characters] = np.arange(UNKNOWN + 1, self._n_symbols)

    def _learn_counts(self, keys: list[Ints], counts: list[Counts]) -> None:
        """The one way to become ready, after fitting and after loading."""
        n_contexts, self._levels = 1, []
        for keys_G, counts_G in zip(keys, counts, strict=True):
            if (
                len(keys_G) != len(counts_G)
                or (np.diff(keys_G, prepend=-1, append=n_contexts * self._n_symbols) < 1).any()
            ):
                raise ValueError("the n-grams do not fit together")
            self._levels.append(_Level.of(keys_G, counts_G, n_contexts, self._n_symbols))
            n_contexts = len(keys_G)

    def _stream(self, texts: Sequence[str]) -> tuple[Ints, Ints]:
        """The symbols of all texts end to end (P,), and where each text begins (B,)."""
        lengths_B = _lengths(texts)
        begins_B = np.cumsum(lengths_B) - lengths_B
        symbols_P = np.full(lengths_B.sum(), UNKNOWN)
        symbols_P[begins_B] = BEGIN
        symbols_P[begins_B + lengths_B - 1] = END
        symbols_P[symbols_P == UNKNOWN] = self._symbols[_code_points(texts)]
        return symbols_P, begins_B

    def _walk(self, symbols_P: Ints) -> Iterator[tuple[_Level, Ints, Ints]]:
        """Every order from the lowest: the place of the n-gram that ends at each position, and that of its context."""
        contexts_P = np.zeros_like(symbols_P)
        for level in self._levels:
            places_P = level.find(contexts_P * self._n_symbols + symbols_P)
            yield level, places_P, contexts_P
            contexts_P = np.append(len(level.keys_G) - 1, places_P[:-1])

    def _nats(self, symbols_P: Ints) -> Floats:
        assert self._levels, "fit or load first"
        probabilities_P = np.full(len(symbols_P), 1 / (N_CODE_POINTS + 1))
        for level, places_P, contexts_P in self._walk(symbols_P):
            probabilities_P = level.own(places_P, contexts_P) + level.backoffs_C[contexts_P] * probabilities_P
        nats_P: Floats = -np.log(probabilities_P)
        return nats_P

    def _weights(self, recent_P: Ints) -> Floats:
        """The probabilities of the end and the known characters after some symbols (V,); 0 for begin and unknown."""
        assert self._levels, "fit or load first"
        contexts = [0, *(int(places_P[-1]) for _, places_P, _ in self._walk(recent_P))]
        weights_V = np.full(self._n_symbols, 1 / (N_CODE_POINTS + 1))
        for level, context in zip(self._levels, contexts, strict=False):
            first = context * self._n_symbols
            low, high = np.searchsorted(level.keys_G, [first, first + self._n_symbols])
            weights_V *= level.backoffs_C[context]
            weights_V[level.keys_G[low:high] - first] += level.own(slice(low, high), context)
        weights_V[[BEGIN, UNKNOWN]] = 0
        return weights_V


def _code_points(texts: Sequence[str]) -> NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))


def _lengths(texts: Sequence[str]) -> Ints:
    """Symbols in each text, begin and end included (B,)."""
    return np.array([len(text) + 2 for text in texts], np.int64)


def _sums(groups: Ints, values: NDArray[np.floating] | Counts, n_groups: int) -> Floats:
    """The sum of the values of each group, added in their order."""
    return np.bincount(groups, values, minlength=n_groups).astype(np.float64, copy=False)


def _discounts(counts_G: Counts) -> Floats:
    """Chen and Goodman's estimate, or the fallback where one of its counts of counts is 0 or a discount not above 0."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts_G, 5), minlength=6)[1:5].tolist()
    if min(n1, n2, n3, n4) > 0:
        y = n1 / (n1 + 2 * n2)
        estimates = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if min(estimates) > 0:
            return np.array([0, *estimates])
    return np.array([0, *FALLBACK])
