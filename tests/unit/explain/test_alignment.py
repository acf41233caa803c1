from __future__ import annotations

import random

import pytest

from danlu.data.clean import CleanConfig, standard_texts
from danlu.explain.alignment import align, joined


def read(texts, **values):
    return standard_texts(texts, CleanConfig(**values))


def origins(text, **values):
    """What every character of the standard text comes from."""
    (made,) = read([text], **values)
    alignment = align(text, lambda texts: read(texts, **values))
    extents = [alignment.origin((place, place + 1)) for place in range(len(made))]
    return [(made[place], text[start:end]) for place, (start, end) in enumerate(extents)]


def pairs(*given):
    return [tuple(pair) if isinstance(pair, tuple) else (pair, pair) for pair in given]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("好，很好", pairs("好", (",", "，"), "很", "好")),
        ("ａｂ１！！", pairs(("a", "ａ"), ("b", "ｂ"), ("1", "１"), ("!", "！"), ("!", "！"))),
        ("  a \t b\n \nc  ", pairs("a", (" ", " \t "), "b", ("\n", "\n \n"), "c")),
        ("a\u200bb\ufeff", pairs("a", "b")),
        ("e\u0301te", pairs(("é", "e\u0301"), "t", "e")),
        ("㈱x", [*((c, "㈱") for c in "(株)"), ("x", "x")]),
        (
            "打１３８００１３８０００吧",
            [("打", "打"), *((c, "１３８００１３８０００") for c in "<phone>"), ("吧", "吧")],
        ),
        # "a@b.co" is an address as well, but then there would be an "m" after it
        ("问a@b.com吗", [("问", "问"), *((c, "a@b.com") for c in "<email>"), ("吗", "吗")]),
        ("cafÃ© ok", pairs("c", "a", "f", ("é", "Ã©"), " ", "o", "k")),
        ("", []),
        (" \n ", []),
    ],
)
def test_every_character_is_traced_to_what_was_typed(text, expected):
    assert origins(text) == expected


def test_phrases_of_another_script_stay_together():
    pytest.importorskip("opencc")
    # 乾 is 干, but not in 乾坤
    assert origins("乾的乾坤大", script="simplified") == pairs(("干", "乾"), "的", ("乾", "乾坤"), ("坤", "乾坤"), "大")


def test_a_long_text_is_traced_as_a_short_one_is():
    draw = random.Random(1)
    pieces = ["好", "，", "ａ", "  ", "\u200b", "13800138000", "一", "e\u0301", "，，", "\n", "㈱"]
    for _ in range(5):
        text = "".join(draw.choices(pieces, k=300))
        (made,) = read([text])
        alignment = align(text, read)
        assert len(text) > 300
        found = [alignment.origin((place, place + 1)) for place in range(len(made))]
        assert found == sorted(found)
        parts = joined(found)
        assert len(parts) > 180
        for (start, end), numbers in parts:  # what a part comes to by itself is what stands there
            (alone,) = read([text[start:end]])
            assert alone == made[numbers[0] : numbers[-1] + 1].strip()


def test_a_text_that_cannot_be_cut_belongs_together():
    alignment = align("abc" * 100, lambda texts: ["".join(sorted(text)) for text in texts])
    assert alignment.origin((150, 151)) == (0, 300)


def test_extents_that_share_a_character_are_joined():
    assert joined([(0, 2), (2, 3), (2, 3), (2, 5), (6, 7)]) == [((0, 2), [0]), ((2, 5), [1, 2, 3]), ((6, 7), [4])]
