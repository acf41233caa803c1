from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from danlu.report.flow import funnel, length_histograms, similarity_histogram
from danlu.report.pictures import (
    MANY_CLASSES,
    Row,
    confusion,
    few_shot_curves,
    forest,
    loss_curves,
    reliability,
    score_curve,
)
from danlu.report.svg import Linear, clip, ticks
from danlu.report.words import (
    Noun,
    duration,
    interval,
    markdown,
    p_value,
    percent,
    points,
    scientific,
    short,
    signed,
    significant,
    t,
    typed,
    unmarked,
)


def drawn(picture: Markup) -> ElementTree.Element:
    """The picture as a tree; every mark is inside it."""
    root = ElementTree.fromstring(picture)
    _, _, width, height = (float(value) for value in root.attrib["viewBox"].split())
    for mark in root.iter():
        for name, value in mark.attrib.items():
            if name in {"x", "x1", "x2", "cx"}:
                assert -1 <= float(value) <= width + 1, mark.attrib
            if name in {"y", "y1", "y2", "cy"}:
                assert -1 <= float(value) <= height + 1, mark.attrib
    return root


def marks(root: ElementTree.Element, tag: str, style: str) -> list[ElementTree.Element]:
    return [mark for mark in root.iter(tag) if style in mark.attrib.get("class", "").split()]


def summary(n_read: int, drops: list[int], splits: tuple[int, int, int]) -> dict[str, object]:
    steps, left = [], n_read
    for index, n in enumerate(drops):
        steps.append({"step": ("clean", "exact_duplicates", "made_up <step>")[index], "n_in": left, "n_out": left - n})
        left -= n
    return {
        "n_read": n_read,
        "n_kept": left,
        "steps": steps,
        "splits": {name: {"n": n} for name, n in zip(("train", "valid", "test"), splits, strict=True)},
    }


def test_the_funnel_is_in_proportion() -> None:
    root = drawn(funnel(summary(1000, [0, 500, 100], (300, 50, 50))))
    stream = marks(root, "rect", "stream")
    widths = [float(mark.attrib["width"]) for mark in stream]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 0.5, 0.4, 0.4], abs=0.01)
    assert len(marks(root, "path", "dropped")) == 2, "a step that drops nothing is not drawn"
    assert len(marks(root, "path", "split")) == 3


@pytest.mark.parametrize("splits", [(999_999, 1, 0), (1, 0, 0)])
def test_the_funnel_of_unequal_parts(splits: tuple[int, int, int]) -> None:
    n_kept = sum(splits)
    drawn(funnel(summary(n_kept + 1, [1], splits)))
    drawn(funnel(summary(10_000_000 + n_kept, [10_000_000], splits)))


def test_lengths_put_every_record_in_a_bar() -> None:
    histogram = {"edges": [0, 10, 20, 2876], "counts": [5, 3, 2]}
    splits = {
        "train": {"n": 10, "histogram": histogram},
        "valid": {"n": 0, "histogram": {**histogram, "counts": [0, 0, 0]}},
        "test": {"n": 1, "histogram": {**histogram, "counts": [0, 0, 1]}},
    }
    root = drawn(length_histograms(splits))
    assert len(marks(root, "rect", "train")) == 3
    assert not marks(root, "rect", "valid")
    assert "≥20" in "".join(root.itertext())
    drawn(length_histograms({"train": {"n": 4, "histogram": {"edges": [0, 1], "counts": [4]}}}))


def test_a_leak_is_drawn_in_another_colour() -> None:
    leak = {"threshold": 0.7, "histogram": {"edges": [0.0, 0.5, 0.6, 0.7, 0.8, 1.0], "counts": [90, 3, 2, 0, 1]}}
    root = drawn(similarity_histogram(leak))
    assert len(marks(root, "rect", "valid")) == 2
    assert len(marks(root, "rect", "miss")) == 2


def test_forest() -> None:
    rows = [
        Row("ours", 0.87, 0.85, 0.89, True, 100),
        Row("<b>a very long name of a model</b>", 0.85, 0.83, 0.87, False, 100, "n = 100"),
        Row("undefined", None, None, None, False, 0),
        Row("no interval", 0.86, None, None, False, 1),
    ]
    root = drawn(forest(rows, percent, t("a", "甲"), mark=0.86))
    dots = marks(root, "circle", "dot")
    assert len(dots) == 3
    x = [float(dot.attrib["cx"]) for dot in dots]
    assert x[1] < x[2] < x[0]
    assert marks(root, "line", "mark")[0].attrib["x1"] == pytest.approx(dots[2].attrib["cx"])
    drawn(forest([Row("alone", 0.5, 0.5, 0.5, True, 1)], percent, t("a", "甲")))
    drawn(forest([Row("nothing", None, None, None, True, 0)], percent, t("a", "甲")))


def test_forest_beside() -> None:
    beside = Row("", 0.5, 0.4, 0.6, False, 9)
    root = drawn(forest([Row("ours", 0.8, 0.7, 0.9, True, 9, "n = 9", beside)], percent, t("a", "甲")))
    ours, other = marks(root, "circle", "model")[0], marks(root, "circle", "other")[0]
    assert float(other.attrib["cx"]) < float(ours.attrib["cx"]), "both are on one axis"
    assert float(other.attrib["cy"]) > float(ours.attrib["cy"])


@pytest.mark.parametrize("n", [2, 3, MANY_CLASSES, 10, 40])
@pytest.mark.parametrize("name", ["{}", "类 <{}> & a long name"])
def test_confusion(n: int, name: str) -> None:
    matrix = [[(row * 7 + column) % 5 for column in range(n)] for row in range(n)]
    matrix[-1] = [0] * n
    root = drawn(confusion(matrix, [name.format(index) for index in range(n)]))
    wrong = np.array(matrix) - np.diag(np.diag(matrix))
    assert len(marks(root, "rect", "hit")) == n
    assert len(marks(root, "rect", "miss")) == (np.count_nonzero(wrong) if n >= MANY_CLASSES else n * (n - 1))


def test_rare_mistakes_are_seen_beside_many_right_answers() -> None:
    matrix = np.diag([1000] * 10)
    matrix[3, 5], matrix[4, 9] = 8, 4
    shade = {cell[0].text: float(cell.attrib["fill-opacity"]) for cell in marks(drawn_matrix(matrix), "rect", "miss")}
    (worst,), (half,) = ([shade[note] for note in shade if note and arrow in note] for arrow in ("3 → 5", "4 → 9"))
    assert worst == pytest.approx(0.9)
    assert half == pytest.approx(0.06 + 0.84 * (4 / 1004) / (8 / 1008), abs=0.01)


def drawn_matrix(matrix: np.ndarray) -> ElementTree.Element:
    return drawn(confusion(matrix.tolist(), [str(index) for index in range(len(matrix))]))


def test_curves() -> None:
    curve = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.6}, {"step": 2, "valid": {"score": 0.8, "loss": 0.5}}]
    assert len(marks(drawn(loss_curves(curve, 2)), "polyline", "curve")) == 2
    assert len(marks(drawn(score_curve(curve, "score", percent, 2, 0.7, t("a", "甲"))), "line", "mark")) == 1
    assert not marks(drawn(score_curve(curve, "score", percent, 2, None, t("a", "甲"))), "line", "mark")


def test_the_curve_of_what_has_no_validation_loss() -> None:
    bits = [{"step": 2, "valid": {"score": -6.0, "bits_per_character": 6.0}}]
    bits += [{"step": 4, "valid": {"score": -5.0, "bits_per_character": 5.0}}]
    curve = [{"step": 1, "loss": 0.7}, *bits]
    root = drawn(loss_curves(curve, 2))
    assert len(marks(root, "polyline", "curve")) == 1
    assert "validation" not in "".join(root.itertext())
    first, last = marks(drawn(score_curve(curve, "bits_per_character", percent, 2, 5.5, t("a", "甲"))), "circle", "dot")
    assert float(first.attrib["cy"]) < float(last.attrib["cy"]), "fewer bits are lower"


def test_few_shot_curves_double_from_place_to_place() -> None:
    def line_of(first: float) -> dict[int, dict[str, float | None]]:
        found: dict[int, dict[str, float | None]] = {}
        for place, shots in enumerate((8, 16, 32, 64)):
            value = first + 0.05 * place
            found[shots] = {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 5}
        return found

    lines = {"ours": line_of(0.6), "head": line_of(0.55), "base": line_of(0.5)}
    lines["head"][8] |= {"low": None, "high": None}
    root = drawn(few_shot_curves(lines, percent, t("a", "甲")))
    assert [len(marks(root, "circle", style)) for style in ("model", "third", "other")] == [4, 4, 4]
    assert len(marks(root, "line", "thin")) == 11, "one has no interval"
    x = [float(dot.attrib["cx"]) for dot in marks(root, "circle", "model")]
    assert np.diff(x) == pytest.approx([x[1] - x[0]] * 3, abs=0.2)
    many = {str(index): line_of(0.5) for index in range(9)}
    drawn(few_shot_curves(many, percent, t("a", "甲")))
    drawn(few_shot_curves({"alone": {8: line_of(0.5)[8]}}, percent, t("a", "甲")))


def test_reliability_keeps_dots_on_the_diagonal_where_they_belong() -> None:
    bins = [
        {"n": 5, "from": 0.5, "to": 0.7, "confidence": 0.6, "accuracy": 0.6, "low": 0.2, "high": 0.9},
        {"n": 9, "from": 0.7, "to": 1.0, "confidence": 1.0, "accuracy": 1.0, "low": 0.7, "high": 1.0},
    ]
    root = drawn(reliability(bins))
    diagonal = marks(root, "line", "mark")[0].attrib
    x, y = (Linear(float(diagonal[f"{axis}1"]), float(diagonal[f"{axis}2"]), 0, 1) for axis in "xy")
    for dot in marks(root, "circle", "dot"):
        assert x(float(dot.attrib["cx"])) == pytest.approx(y(float(dot.attrib["cy"])), abs=0.01)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 10))
def test_ticks_are_few_and_inside(low: float, span: float, n: int) -> None:
    found = ticks(low, low + span, n)
    assert len(found) <= n + 1
    assert all(low - 1e-6 * span - 1e-9 <= value <= low + span * (1 + 1e-6) + 1e-9 for value in found)


def test_numbers_as_they_are_written() -> None:
    assert [percent(x) for x in (0.8693, 0.0, 1.0, 0.0001, None)] == ["86.9%", "0.0%", "100.0%", "<0.1%", "–"]
    assert [points(x) for x in (0.0172, -0.009, 0.0001, None)] == ["+1.7", "−0.9", "0.0", "–"]
    assert interval(0.855, 0.882) == "[85.5, 88.2]"
    assert interval(None, 0.5) == ""
    assert [p_value(p) for p in (0.00049975, 0.01, 0.3333, 1e-9, None)] == [
        "= 0.00050", "= 0.010", "= 0.33", "< 0.0001", "= –",
    ]  # fmt: skip
    assert [duration(s) for s in (0.25, 41, 59.7, 212, 7500)] == ["0.25 s", "41 s", "60 s", "3 min 32 s", "2 h 05 min"]
    assert [short(n) for n in (9_999, 412_345, 1_234_567, 4.1e13)] == ["9,999", "412k", "1.23M", "41T"]
    assert [signed(x) for x in (0.0261, -0.311, 0.0001, None)] == ["+0.026", "−0.311", "0.000", "–"]
    assert [significant(x) for x in (48.251, 3512.3, 5.3, 0.0, 41234.0, 1e304, None)] == [
        "48.3", "3,512", "5.30", "0.00", "41.2k", "1e304", "–",
    ]  # fmt: skip
    assert [scientific(x) for x in (4.8e-7, 0.0, 0.012)] == ["4.8 × 10⁻⁷", "0", "1.2 × 10⁻²"]
    assert typed("it's\na bad 'one' and a long one") == "'it’s a bad ’one’ and a l'"
    assert clip("a very long name", 8) == "a very l…"
    assert clip("物流配送时间", 8) == "物流配送…"
    assert clip("短", 8) == "短"


def test_values_in_sentences_are_escaped() -> None:
    text = t("<b>{x}</b> left", "剩 <b>{x}</b>", x="<i>&")
    assert text.__html__().count("<b>&lt;i&gt;&amp;</b>") == 2
    nested = t("a {inner}", "甲 {inner}", inner=text)
    assert "a <b>&lt;i&gt;&amp;</b> left" in nested.en
    assert "left" not in nested.zh
    assert markdown(nested.en) == "a **&lt;i&gt;&amp;** left"
    assert unmarked("a|b\n`c` <d>'") == "a&#124;b &#96;c&#96; &#60;d&#62;&#39;"


def test_records_are_counted_in_both_languages() -> None:
    noun = Noun("picture", "pictures", "张", "图片")
    assert noun.tested(1234).label == "1,234 test pictures · 1,234 张测试图片"
    assert noun.counted(3, t("held-out ", "留出")).label == "3 held-out pictures · 3 张留出图片"
    assert t("each {x}", "每{x}", x=noun.one).label == "each picture · 每张图片"


def test_scripts_that_meet_are_kept_apart() -> None:
    f1, loss = t("macro F1", "宏平均 F1"), t("loss", "损失")
    assert t("{a} of {b}", "{b}之{a}与{a}为{b}", a=f1, b=loss).zh == "损失之宏平均 F1 与宏平均 F1 为损失"
    assert t("{a}", "的{a}", a=t("chrF", "chrF")).zh == "的 chrF"
    assert t("{a}{b}", "{a}{b}高", a=f1, b=f1).zh == "宏平均 F1 宏平均 F1 高"
    assert t("{a}", "甲{a}", a="b中").zh == "甲b中", "what comes with the data is left as it is"
