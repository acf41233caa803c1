"""From tokens to text, piece by piece: no character is cut, and nothing is shown that a stop string may take back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenizers import Tokenizer

__all__ = ["Pieces", "Spelling"]

_BROKEN = "\ufffd"
"""What decoders write for bytes that are no character, or none yet."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Spelling:
    """What tokens spell in the middle of a text.

    Some tokenizers write the first word of a text without the space that it has after another. Tokens that continue a
    text are therefore decoded behind a token that is known to spell something whole, which is then cut off.

    Args:
        tokenizer: Any tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._before, self._n_before = self._anchor()

    def of(self, tokens: Sequence[int], continues: bool) -> str:
        """What the tokens spell.

        Args:
            tokens: Token ids; special ones spell nothing.
            continues: Whether there is text before them.
        """
        if not continues:
            text: str = self.tokenizer.decode(tokens)
            return text
        return self.tokenizer.decode([*self._before, *tokens])[self._n_before :]

    def whole(self, tokens: Sequence[int], continues: bool) -> str:
        """What all tokens of a finished text spell: the same as its :class:`Pieces` together."""
        text = self.of(tokens, continues)
        if _BROKEN not in text:
            return text
        # Some decoders turn a whole run of bytes to nothing for one that is broken; piece by piece the rest is kept.
        pieces = Pieces(self, (), continues)
        return "".join([*map(pieces.push, tokens), pieces.finish()])

    def _anchor(self) -> tuple[list[int], int]:
        """A token that spells the same whatever follows, and how many characters that is."""
        for token in range(self.tokenizer.get_vocab_size()):
            name = self.tokenizer.id_to_token(token)
            text = self.tokenizer.decode([token])
            if name and text.strip() and _BROKEN not in text and not _BYTE.fullmatch(name):
                return [token], len(text)
        return [], 0


class Pieces:
    """One text as it is written.

    Args:
        spelling: What tokens spell.
        stops: The text ends before the first of these that it comes to.
        continues: Whether there is text before it.

    Attributes:
        stopped: Whether it has come to a stop string; what is pushed after that spells nothing.
    """

    def __init__(self, spelling: Spelling, stops: Sequence[str], continues: bool) -> None:
        self.stopped = False
        self._spelling = spelling
        self._stops = stops
        self._continues = continues
        self._tokens: list[int] = []  # that do not end in a whole character yet
        self._held = ""  # whole characters that may begin a stop string

    def push(self, token: int) -> str:
        """The characters that are certain with one more token; often none, or several."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        text = self._spelling.of(self._tokens, self._continues)
        if not text or text.endswith(_BROKEN):
            return ""
        return self._take(text)

    def finish(self) -> str:
        """What was held back, once no token follows."""
        if self.stopped:
            return ""
        certain = self._take(self._spelling.of(self._tokens, self._continues)) + self._held
        self._held = ""
        return certain

    def _take(self, text: str) -> str:
        self._tokens = []
        self._continues = self._continues or bool(text)
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        n_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def _overlap(text: str, stop: str) -> int:
    """The most characters at the end of a text that are the beginning of a stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
