"""Which pairs the benchmark compares, and what is asked of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from plan import Item
from shop import Shop

__all__ = ["Pair", "Relation", "pairs_of"]

Relation = Literal["kin", "self", "sibling", "told seed", "unrelated"]


@dataclass(frozen=True)
class Pair:
    """A suspect and a reference.

    Attributes:
        suspect: The model that may be derived,
        reference: and the one that it may be derived from.
        relation: What they are: ``kin``: the one was made from the other; ``self``: they are one and the same;
            ``sibling``: both are bases of one recipe; ``told seed``: of the same told seed; ``unrelated``: nothing
            else.
        scored: Whether the published measures are taken, too.
    """

    suspect: str
    reference: str
    relation: Relation
    scored: bool = True


def pairs_of(shop: Shop, n_others: int, n_scored: int) -> list[Pair]:
    """All pairs, kin first.

    Args:
        shop: The models.
        n_others: Other bases that everything derived is compared with.
        n_scored: For how many of those the published measures are taken.
    """
    items = shop.items
    bases = [item for item in items.values() if item.base == item.name]
    derived = [item for item in items.values() if item.base != item.name]
    pairs = [Pair(item.name, item.base, "kin") for item in derived]
    siblings = [item.name for item in bases if item.group == "sibling"]
    pairs += [Pair(one, other, "sibling") for one, other in combinations(siblings, 2)]
    pairs += [Pair(item.name, item.name, "self", False) for item in bases if item.group in ("sibling", "other length")]
    told = [item.name for item in bases if item.group == "told seed"]
    pairs += [Pair(one, other, "told seed") for one, other in combinations(told, 2)]
    for item in bases:
        if item.group != "sibling":
            pairs += [Pair(item.name, reference, "unrelated") for reference in shop.scale.references]
    for number, item in enumerate(derived):
        others = list(_others(item, bases, number))[:n_others]
        pairs += [Pair(item.name, other, "unrelated", place < n_scored) for place, other in enumerate(others)]
    return pairs


def _others(item: Item, bases: list[Item], number: int) -> Iterator[str]:
    """Bases that something derived has nothing of, siblings of its base first, beginning at another one each time."""
    free = [base for base in bases if base.name != item.base and base.name not in item.truth.entangled]
    for group in (True, False):
        some = [base.name for base in free if (base.group == "sibling") is group]
        yield from (some[(number + place) % len(some)] for place in range(len(some)))
