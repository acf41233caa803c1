"""What kinds of records a dataset has, and what is said of each: texts, texts with a translation, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from danlu.report.words import Noun, Text, t

__all__ = ["PAIRS", "PICTURE", "PICTURES", "TEXT", "TEXTS", "Kind", "kind_of"]

TEXT = Noun("text", "texts", "条", "文本")
PICTURE = Noun("picture", "pictures", "张", "图片")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of records.

    Attributes:
        kept_once: What becomes of those that say the same.
        noun: What of a record is compared with others.
    """

    kept_once: Text
    noun: Noun


TEXTS = Kind(
    kept_once=t(
        "Texts that say the same are kept once, and none of them stands on both sides of a split.",
        "内容相同的文本只保留一份，绝不跨越划分。",
    ),
    noun=TEXT,
)
PAIRS = Kind(
    kept_once=t(
        "A source is kept once, with the translation that most records give it, and none stands on both sides of "
        "a split: the model is tested on sources that it has never seen.",
        "每个原文只保留一份，取多数记录给出的译文，绝不跨越划分：考核用的原文模型从未见过。",
    ),
    noun=Noun("source", "sources", "条", "原文"),
)
PICTURES = Kind(
    kept_once=t(
        "Pictures that are the same pixel by pixel are kept once, and none of them stands on both sides of a split.",
        "逐像素相同的图片只保留一份，绝不跨越划分。",
    ),
    noun=PICTURE,
)


def kind_of(columns: Mapping[str, str]) -> Kind:
    """The kind of a dataset whose config has these columns."""
    if "image" in columns:
        return PICTURES
    return PAIRS if "target" in columns else TEXTS
