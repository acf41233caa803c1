"""Pictures of an audit: the suspect among unrelated models, and which block came from which."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from danlu.report.svg import Linear, circle, line, picture, rect, text, ticks
from danlu.report.words import Text, decimal, integer, percent, t

__all__ = ["axis_of_chance", "axis_of_shares", "block_map"]

_WIDTH = 640.0
_LEFT, _RIGHT = 150.0, _WIDTH - 24.0
_CHANCE = 3.0
"""Standard deviations within which nearly all that is chance lies."""


def axis_of_chance(rows: Sequence[tuple[Text, float, Sequence[float]]]) -> Markup:
    """Each test as a row: the suspect and unrelated models on one axis, in standard deviations from chance.

    The axis is linear near chance and logarithmic beyond.

    Args:
        rows: Name of a test, z of the suspect, z of the unrelated models.
    """
    largest = max([10.0, *(abs(z) for _, z, others in rows for z in (z, *others))])
    scale = Linear(-math.asinh(_CHANCE + 1), math.asinh(largest * 1.15), _LEFT, _RIGHT)

    def place(z: float) -> float:
        return scale(math.asinh(max(z, -_CHANCE - 1)))

    bottom = 16.0 + 46.0 * len(rows)
    parts = [rect(place(-_CHANCE), 8, place(_CHANCE) - place(-_CHANCE), bottom - 8, "band")]
    marks = [0.0, _CHANCE, *(10.0**n for n in range(1, 1 + math.floor(math.log10(largest))))]
    for mark in marks:
        parts.append(line(place(mark), 8, place(mark), bottom, "grid"))
        parts.append(text(place(mark), bottom + 17, integer(mark), "tick", "middle"))
    for number, (name, z, others) in enumerate(rows):
        y = 34.0 + 46.0 * number
        parts += [text(_LEFT - 14, y + 4, name, "name", "end"), line(_LEFT, y, _RIGHT, y, "grid")]
        parts += [circle(place(other), y, 4.0, "dot other", decimal(other, 1)) for other in others]
        parts.append(circle(place(z), y, 6.0, "dot model", decimal(z, 1)))
        parts.append(text(place(z), y - 11, decimal(z, 1), "value", "middle"))
    unit = t("standard deviations above chance", "高出偶然水平的标准差数")
    parts.append(text(_RIGHT, bottom + 36, unit, "axis", "end"))
    return picture(_WIDTH, bottom + 46, parts, t("The suspect among unrelated models", "被审模型与无关模型的对照"))


def axis_of_shares(rows: Sequence[tuple[Text, float, Sequence[float]]]) -> Markup:
    """Each measure as a row: the suspect and the models beside it on one axis, as shares.

    Args:
        rows: Name of a measure, the share of the suspect, those of the models that it is held against.
    """
    largest = max(0.01, *(share for _, value, others in rows for share in (value, *others)))
    scale = Linear(0.0, min(1.0, largest * 1.15), _LEFT, _RIGHT)
    bottom = 16.0 + 46.0 * len(rows)
    parts = []
    for mark in ticks(scale.low, scale.high, 6):
        parts.append(line(scale(mark), 8, scale(mark), bottom, "grid"))
        parts.append(text(scale(mark), bottom + 17, percent(mark, 0 if largest > 0.1 else 1), "tick", "middle"))
    for number, (name, value, others) in enumerate(rows):
        y = 34.0 + 46.0 * number
        parts += [text(_LEFT - 14, y + 4, name, "name", "end"), line(_LEFT, y, _RIGHT, y, "grid")]
        parts += [circle(scale(other), y, 4.0, "dot other", percent(other)) for other in others]
        parts.append(circle(scale(value), y, 6.0, "dot model", percent(value)))
        parts.append(text(scale(value), y - 11, percent(value), "value", "middle"))
    parts.append(text(_RIGHT, bottom + 36, t("share of the questions counted", "占所计问题的比例"), "axis", "end"))
    return picture(_WIDTH, bottom + 46, parts, t("Answers beside those of other models", "与其他模型回答的对照"))


def block_map(layer_map: Sequence[int], z: Sequence[float], n_reference: int, name: Text) -> Markup:
    """Which block of the reference each block of the suspect goes back to; the fuller, the clearer.

    Args:
        layer_map: The block of the reference for each of the suspect.
        z: How clearly.
        n_reference: Blocks of the reference.
        name: What the suspect's are called.
    """
    side = min(26.0, 420.0 / max(len(layer_map), n_reference))
    left, top = 58.0, 14.0
    largest = max(10.0, *z)
    parts = []
    for block in range(len(layer_map)):
        for origin in range(n_reference):
            parts.append(rect(left + block * side, top + origin * side, side - 2, side - 2, "cell"))
    for block, (origin, each) in enumerate(zip(layer_map, z, strict=True)):
        share = math.sqrt(max(0.0, each) / largest)
        inset = (side - 2) * (1 - share) / 2
        at = left + block * side + inset
        parts.append(rect(at, top + origin * side + inset, (side - 2) * share, (side - 2) * share, "split test"))
    every = max(1, round(24 / side))
    for block in range(0, len(layer_map), every):
        x, y = left + (block + 0.5) * side - 1, top + n_reference * side + 15
        parts.append(text(x, y, integer(block), "tick", "middle"))
    for origin in range(0, n_reference, every):
        parts.append(text(left - 8, top + (origin + 0.5) * side + 3, integer(origin), "tick", "end"))
    width = left + len(layer_map) * side + 14
    parts += [
        text(left, top + n_reference * side + 36, name, "axis"),
        text(8, top - 3, t("block of the reference", "参照模型的层"), "axis"),
    ]
    return picture(max(width, 240.0), top + n_reference * side + 46, parts, t("Block by block", "逐层对应"))
