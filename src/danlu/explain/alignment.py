"""Where in the text that was typed stands what a model read?

A model reads a text after it was made standard: full-width signs are ordinary ones then, white space is folded,
invisible characters are gone, a phone number is ``<phone>``. How that is done is not followed step by step, which would
have to be kept in line with every step for ever. It is asked: a text can be cut at a place if its two parts, each made
standard by itself, are together the whole text made standard. Then what stands before the cut comes from what was
typed before it, and from nothing else. What cannot be cut apart, such as a masked number, belongs together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Alignment", "Extent", "align", "joined"]

Extent = tuple[int, int]
"""Characters of a text, from the first to before the last."""
_Cut = tuple[int, int, int]
"""A place in the text that was typed, and the characters of the other that lie between the parts: none, or a space."""

_HALF = 40
"""A text of up to twice so many characters is tried at every place; a longer one is parted near its middle first."""
_NEAR = 3
"""How far from the middle a place is looked for at first; at last it is ``_HALF``."""


@dataclass(frozen=True)
class Alignment:
    """Which characters of a text come from which of another.

    Attributes:
        places: Where the text that was made can be cut, ascending.
        starts: Where, in the text that was typed, that begins which begins at each place, and
        ends: where that ends which ends there.
    """

    places: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]

    def origin(self, extent: Extent) -> Extent:
        """The shortest part of the text that was typed from which some characters come, and perhaps others."""
        first = bisect_right(self.places, extent[0]) - 1
        last = bisect_left(self.places, extent[1])
        return self.starts[first], self.ends[last]


def align(text: str, read: Callable[[Sequence[str]], Sequence[str]]) -> Alignment:
    """Find out where a text comes from.

    Args:
        text: What was typed.
        read: What is made of texts, each by itself.
    """
    (made,) = read([text])
    cuts = [(place, place, place) for place in range(len(text) + 1)] if made == text else _cuts(text, made, read)
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for place, before, after in cuts:
        ends.setdefault(before, place)
        starts[after] = place
    places = sorted({*starts, *ends})
    return Alignment(
        places,
        [starts.get(place, ends.get(place, 0)) for place in places],
        [ends.get(p, starts.get(p, 0)) for p in places],
    )


def joined(extents: Sequence[Extent]) -> list[tuple[Extent, list[int]]]:
    """Extents that share a character become one.

    Args:
        extents: In the order of a text.

    Returns:
        Each with the numbers of those that it is made of.
    """
    found: list[tuple[Extent, list[int]]] = []
    for number, (start, end) in enumerate(extents):
        if found and start < found[-1][0][1]:
            (first, last), numbers = found.pop()
            found.append(((min(first, start), max(last, end)), [*numbers, number]))
        else:
            found.append(((start, end), [number]))
    return found


def _cuts(text: str, made: str, read: Callable[[Sequence[str]], Sequence[str]]) -> list[_Cut]:
    """All places, in order, at which a text can be cut; its ends are among them."""
    if len(text) <= 2 * _HALF:
        return _tried(text, made, read, range(len(text) + 1))
    middle = len(text) // 2
    for reach in (_NEAR, _HALF):
        clean = [cut for cut in _tried(text, made, read, range(middle - reach, middle + reach)) if cut[1] == cut[2]]
        if clean:
            break
    else:  # it belongs together
        return [(0, 0, 0), (len(text), len(made), len(made))]
    place, there, _ = min(clean, key=lambda cut: abs(cut[0] - middle))
    left = _cuts(text[:place], made[:there], read)
    right = _cuts(text[place:], made[there:], read)
    return left + [(place + at, there + before, there + after) for at, before, after in right]


def _tried(text: str, made: str, read: Callable[[Sequence[str]], Sequence[str]], places: Sequence[int]) -> list[_Cut]:
    parts = read([*(text[:place] for place in places), *(text[place:] for place in places)])
    found = []
    for place, before, after in zip(places, parts[: len(places)], parts[len(places) :], strict=True):
        start, end = len(before), len(made) - len(after)
        # A space between the parts is at the end of one or the beginning of the other, where it is taken away.
        if start <= end and made.startswith(before) and made.endswith(after) and not made[start:end].strip():
            found.append((place, start, end))
    return found
