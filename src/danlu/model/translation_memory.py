"""The baseline of translation: the known translation of the most similar known text, mended where the two differ."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.core.files import read_json, write_json

__all__ = ["TranslationMemory", "TranslationMemoryConfig"]

_PLACEHOLDER = r"</?[A-Za-z][^<>]*>|&\#?\w+;|%\([\w.]+\)[a-z]|%(?:\d+\$)?[a-z]\b|%\d|\$?\{[^{}]*\}"
_TOKEN = re.compile(rf"(?P<placeholder>{_PLACEHOLDER})|(?P<number>\d+)|[㐀-鿿]|(?P<word>[^\W\d_]+)|\s+|.", re.DOTALL)
"""A Chinese character is a token of its own, and so is any sign; words, numbers and spaces run on."""

N_ROWS = 256
"""How many texts are looked up at once: with 25,000 known ones, 26 MB of similarities."""


class TranslationMemoryConfig(Config):
    """A translation memory."""

    ngram_max: int = Field(default=3, ge=1)
    """The longest character n-gram by which similar texts are found."""

    n_candidates: int = Field(default=20, ge=1)
    """How many of the most similar texts are mended and compared."""

    token_weight: float = Field(default=0.5, ge=0, le=1)
    """The weight of the share of agreeing tokens in the similarity; the rest is that of the cosine."""


class _Token(NamedTuple):
    kind: str | None
    """``placeholder``, ``number``, ``word``, or none of these."""
    text: str
    start: int
    end: int

    @property
    def key(self) -> str:
        """What tokens are aligned by: placeholders are all alike, and so are numbers; case does not count."""
        return self.kind if self.kind in ("placeholder", "number") else self.text.lower()


class _Answer(NamedTuple):
    similarity: float
    place: int
    translation: str


class TranslationMemory:
    """Nearest neighbour among known pairs, with the repair of fuzzy matches (in the way of Ortega et al. 2016).

    A known text gets its translation. For any other, the known texts that are nearest by the cosine of their TF-IDF
    of character n-grams are aligned with it token by token, and their translations are mended where the two differ:

    - a placeholder, a number or a word that the translation carries over unchanged is swapped for what now stands in
      its place;
    - where both stretches are known texts themselves, the translation of the one is put for that of the other;
    - a placeholder that the text does not have is taken out.

    The answer is the mended translation whose mean of the cosine and of the share of tokens that now agree is highest.

    Chosen by chrF (BLEU) on 2,000 held-out sources of program interfaces, English to Chinese: the nearest by the
    cosine alone 34.0 (33.4), chosen among ten by the edit distance of characters 31.3 (31.2); mended 36.5 (35.2),
    chosen among twenty after mending 38.1 (37.2), among forty 38.3 (37.4) at twice the time.

    Args:
        config: See :class:`TranslationMemoryConfig`.
    """

    def __init__(self, config: TranslationMemoryConfig) -> None:
        self.config = config
        self.pairs: list[tuple[str, str]] = []
        """Every different source with its most frequent target, the first of equals."""
        self._vectorizer = TfidfVectorizer(
            analyzer="char", ngram_range=(1, config.ngram_max), sublinear_tf=True, dtype=np.float32
        )
        self._features_NV = sparse.csr_matrix((0, 0), dtype=np.float32)
        self._places: dict[str, int] = {}
        self._terms: dict[str, list[str]] = {}
        """Source in small letters -> its targets."""

    @property
    def n_parameters(self) -> int:
        """The pairs; nothing is trained."""
        return len(self.pairs)

    def fit(self, sources: Sequence[str], targets: Sequence[str]) -> Self:
        """Remember.

        Args:
            sources: Texts.
            targets: Their translations; a source may come with several.

        Raises:
            DataError: There is nothing to remember.
        """
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for source, target in zip(sources, targets, strict=True):
            counts[source][target] += 1
        self.pairs = [(source, targets.most_common(1)[0][0]) for source, targets in counts.items()]
        self._places = {source: place for place, (source, _) in enumerate(self.pairs)}
        self._terms = defaultdict(list)
        for source, target in self.pairs:
            self._terms[source.lower()].append(target)
        try:
            self._features_NV = self._vectorizer.fit_transform(list(counts))
        except ValueError as error:
            raise DataError("a translation memory needs texts to remember", where="the training split") from error
        return self

    def translate(self, sources: Sequence[str]) -> list[str]:
        """The translation of every text."""
        return [answer.translation for answer in self._answers(sources)]

    def matches(self, sources: Sequence[str]) -> list[tuple[int, float]]:
        """Which of ``pairs`` each text is answered by, and its similarity: from 0 to 1, and 1 for a known text."""
        return [(answer.place, answer.similarity) for answer in self._answers(sources)]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``pairs.json`` into a folder; all else follows from them."""
        write_json(folder / "config.json", self.config.plain())
        write_json(folder / "pairs.json", self.pairs)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; the answers are the same.

        Raises:
            CorruptError: A file is not what was written.
        """
        try:
            model = cls(TranslationMemoryConfig(**read_json(folder / "config.json")))
            pairs = TypeAdapter(list[tuple[str, str]]).validate_python(read_json(folder / "pairs.json"))
            return model.fit([source for source, _ in pairs], [target for _, target in pairs])
        except (DataError, TypeError, ValidationError) as error:
            raise CorruptError(f"not a saved translation memory: {error}", where=str(folder)) from error

    def _answers(self, sources: Sequence[str]) -> Iterator[_Answer]:
        assert self.pairs, "fit or load first"
        n_candidates = min(self.config.n_candidates, len(self.pairs))
        for start in range(0, len(sources), N_ROWS):
            rows = sources[start : start + N_ROWS]
            cosines_BN = (self._vectorizer.transform(rows) @ self._features_NV.T).toarray()
            nearest_BK = np.argpartition(-cosines_BN, n_candidates - 1, axis=1)[:, :n_candidates]
            for source, cosines_N, nearest_K in zip(rows, cosines_BN, nearest_BK, strict=True):
                yield self._answer(source, cosines_N, nearest_K)

    def _answer(self, source: str, cosines_N: NDArray[np.float32], nearest_K: NDArray[np.intp]) -> _Answer:
        if (known := self._places.get(source)) is not None:
            return _Answer(1.0, known, self.pairs[known][1])
        weight, answers = self.config.token_weight, []
        for place in nearest_K.tolist():
            agreement, translation = self._mend(place, source)
            cosine = min(1.0, float(cosines_N[place]))  # in float32 it may be above 1 by the last bits
            answers.append(_Answer(weight * agreement + (1 - weight) * cosine, place, translation))
        return max(answers)

    def _mend(self, place: int, source: str) -> tuple[float, str]:
        """The share of tokens that agree after mending, and the mended translation."""
        known, target = self.pairs[place]
        known_tokens, tokens = _tokens(known), _tokens(source)
        carried = {token.text for token in _tokens(target)}
        swaps: dict[str, str] = {}
        n_agreed = 0
        stretches = _aligned(known_tokens, tokens)
        for old, new in stretches:  # which grows
            first, other = old[0], new[0]
            olds, news = known[first.start : old[-1].end], source[other.start : new[-1].end]
            if [token.text.lower() for token in old] == [token.text.lower() for token in new]:
                n_agreed += len(old) + len(new)
            elif (mended := self._put_term(target, olds, news)) is not None:
                target = mended
                n_agreed += len(old) + len(new)
            elif len(old) == len(new) > 1:
                stretches += [([one], [another]) for one, another in zip(old, new, strict=True)]
            elif len(old) == len(new) and first.kind and first.kind == other.kind and first.text in carried:
                n_agreed += 2 * (swaps.setdefault(first.text, other.text) == other.text)
        allowed = {token.text for token in tokens if token.kind == "placeholder"}
        pieces = [(token.kind, swaps.get(token.text, token.text)) for token in _tokens(target, spaces=True)]
        translation = "".join(text for kind, text in pieces if kind != "placeholder" or text in allowed)
        return n_agreed / max(1, len(known_tokens) + len(tokens)), translation

    def _put_term(self, target: str, old: str, new: str) -> str | None:
        """A target with the translation of a new term in the place of that of an old one, if both are known."""
        if news := self._terms.get(new.lower()):
            for rendering in self._terms.get(old.lower(), ()):
                if rendering and rendering in target:
                    return target.replace(rendering, news[0], 1)
        return None


def _tokens(text: str, spaces: bool = False) -> list[_Token]:
    found = (_Token(match.lastgroup, match[0], match.start(), match.end()) for match in _TOKEN.finditer(text))
    return [token for token in found if spaces or not token.text.isspace()]


def _aligned(olds: list[_Token], news: list[_Token]) -> list[tuple[list[_Token], list[_Token]]]:
    """The stretches of two texts that stand for each other: alike by their keys, or one in the place of the other."""
    matcher = SequenceMatcher(None, [token.key for token in olds], [token.key for token in news], autojunk=False)
    kept = [code[1:] for code in matcher.get_opcodes() if code[0] in ("equal", "replace")]
    return [(olds[i1:i2], news[j1:j2]) for i1, i2, j1, j2 in kept]
