"""The page about a search."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from danlu.report.tuning import shown, tuning_page
from danlu.report.tuning_pictures import Dot, against_value, importance_bars, score_by_trial, trial_curves
from danlu.report.words import decimal, percent, t
from made_search import SPACE, made_search
from page_tree import Page

PARENTS, COMMITMENTS = {"dataset": "a" * 64}, {"sample": "b" * 64}
NAME = t("macro F1", "宏平均 F1")


def page(task: str = "text-classification", n: int = 20, **changes: Any) -> str:
    return tuning_page(made_search(task, n, **changes), PARENTS, COMMITMENTS)


def main_of(html: str) -> str:
    return html[html.index("<main>") : html.index("</main>")] + "</main>"


@pytest.mark.parametrize("task", ["text-classification", "image-classification", "language-modelling", "translation"])
@pytest.mark.parametrize("n", [1, 2, 20])
def test_the_page_is_whole_in_both_languages_and_loads_nothing(task: str, n: int) -> None:
    html = page(task, n)
    root = Page(html).root
    assert not re.search(r"(src|href)=\"(?!#|data:)", html)
    english = [node for node in root.walk() if node.has_class("en")]
    chinese = [node for node in root.walk() if node.has_class("zh")]
    assert len(english) == len(chinese) > 60
    assert all(re.search("[一-鿿–]|^[^A-Za-z]*$|F1|[a-z]+\\.[a-z]", node.text()) for node in chinese)
    assert not any(re.search("[一-鿿]", node.text()) for node in english)
    assert "None" not in root.text()
    assert not re.search(r"\bnan\b", root.text().replace("the loss is nan", ""))


def test_it_says_what_the_trials_say() -> None:
    facts = made_search()
    html, best = page(), facts["best"]
    text = Page(main_of(html)).root.text()
    assert f"The best of 20 trials: macro F1 {percent(best['score'])} on the validation split" in text
    assert f"trial {best['trial']} came to {percent(best['score'])}" in text
    assert f"came to {percent(facts['trials'][0]['score'])}" in text
    assert "The best of many scores on one validation split is optimistic" in text
    assert "同一验证集上多次得分中的最佳值偏乐观" in text
    assert f"danlu train RECIPE {' '.join(facts['words'])}" in text
    assert "train.epochs = 2, the recipe has 8" in text
    for key in SPACE:
        assert f"{key}</code></th>" in html
    table = html[html.index('id="all"') : html.index('id="provenance"')]
    assert table.count("<tr>") == 21
    assert "same values as trial 2" in table
    assert "the loss is nan at step 3 &lt;b&gt;" in table
    assert "a" * 64 in html
    assert "b" * 64 in html
    planned = sum(trial["n_steps"] or 0 for trial in facts["trials"] if trial["same_as"] is None)
    taken = sum(trial["curve"][-1][0] for trial in facts["trials"] if trial["same_as"] is None and trial["curve"])
    assert f'translate="no">{percent(1 - taken / planned, 0)}</div>' in html


def test_less_is_better_where_it_is() -> None:
    facts = made_search("language-modelling")
    assert facts["best"]["score"] < 0
    assert (
        f"bits per character {decimal(-facts['best']['score'])} on the validation split"
        in Page(page("language-modelling")).root.text()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held": False}, "were not tried: the space does not hold them"),
        (
            {"own": {"values": {**made_search()["own"]["values"]}, "trial": made_search()["best"]["trial"]}},
            "No trial did better",
        ),
        ({"own": {"values": {**made_search()["own"]["values"]}, "trial": 9}}, "with the recipe’s own values failed"),
        ({"importances": None}, "computed from eight complete trials on"),
        ({"sampler": "random"}, "All values are drawn at random."),
        ({"pruner": "none"}, "Every trial was trained to its end."),
        ({"seed": None}, "Each trial drew seeds of its own"),
    ],
)
def test_what_is_otherwise_is_told_otherwise(changes: dict[str, Any], said: str) -> None:
    assert said not in Page(page()).root.text()
    assert said in Page(page(**changes)).root.text()


def test_values_from_the_recipe_are_shown_as_they_are() -> None:
    space = {"train.optimizer": ["<script>", "muon"], **SPACE}
    trials = [
        trial | {"values": {**trial["values"], "train.optimizer": "<script>"}} for trial in made_search()["trials"]
    ]
    best = made_search()["best"] | {"values": trials[0]["values"]}
    own = {"values": trials[0]["values"], "trial": 1}
    html = page(space=space, trials=trials, best=best, own=own, name="a<b")
    assert "<script>" not in main_of(html)
    assert html.count("&lt;script&gt;") > 20
    assert [shown(value) for value in (0.001, 1e-05, 3, None, True, [1, 2], "好")] == [
        "0.001", "1e-05", "3", "null", "true", "[1, 2]", "好",
    ]  # fmt: skip


# Pictures


def drawn(picture: Markup) -> ElementTree.Element:
    """The picture as a tree; every mark is inside it."""
    root = ElementTree.fromstring(picture)
    _, _, width, height = (float(value) for value in root.attrib["viewBox"].split())
    for mark in root.iter():
        places = [
            (name, value)
            for name, value in mark.attrib.items()
            if name in {"x", "x1", "x2", "cx", "y", "y1", "y2", "cy"}
        ]
        places += [("xy"[n % 2], value) for n, value in enumerate(re.split("[ ,]", mark.attrib.get("points", "")))]
        for name, value in places:
            limit = width if "x" in name else height
            assert not value or -1 <= float(value) <= limit + 1, mark.attrib
    return root


def marks(root: ElementTree.Element, style: str) -> list[ElementTree.Element]:
    return [mark for mark in root.iter("circle") if style in mark.attrib["class"].split()]


DOTS = [
    Dot(1, "complete", 0.7),
    Dot(2, "pruned", 0.5),
    Dot(3, "best", 0.8),
    Dot(4, "failed", None),
    Dot(5, "complete", 0.75),
]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_line_is_the_best_so_far_of_complete_trials(sign: int) -> None:
    dots = [Dot(dot.number, dot.state, None if dot.value is None else sign * dot.value) for dot in DOTS]
    root = drawn(score_by_trial(dots, sign, decimal, NAME))
    (line,) = root.iter("polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    at = {
        dot.number: float(mark.attrib["cy"])
        for dot in dots
        for mark in root.iter("circle")
        if mark[0].text.startswith(f"{dot.number}:")
    }
    assert heights == [at[1], at[1], at[3], at[3]]
    assert [len(marks(root, style)) for style in ("model", "other", "hollow", "fifth")] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("dimension", "values"),
    [
        ({"low": 1e-4, "high": 1e-2, "log": True, "step": None}, [1e-4, 1e-3, 1e-2, 2e-3, 5e-4]),
        ({"low": 7e-4, "high": 8e-4, "log": True, "step": None}, [7e-4, 8e-4, 7.5e-4, 7.2e-4, 7.9e-4]),
        ({"low": 1e-12, "high": 1.0, "log": True, "step": None}, [1e-12, 1.0, 1e-4, 1e-6, 1e-3]),
        ({"low": 0.0, "high": 1.0, "log": False, "step": None}, [0.0, 1.0, 0.5, 0.2, 0.3]),
        ({"low": 1, "high": 3, "log": False, "step": None}, [1, 2, 3, 3, 3]),
        ({"low": 0, "high": 1000, "log": False, "step": 100}, [0, 100, 1000, 300, 400]),
        (["adamw", "muon"], ["adamw", "muon", "adamw", "adamw", "muon"]),
        ([[0.9, 0.98], None, True, "a very long name that has to be cut", 5], [None, True, 5, [0.9, 0.98], 5]),
    ],
)
def test_every_trial_stands_at_its_value(dimension: Any, values: list[Any]) -> None:
    root = drawn(against_value("train.x", dimension, list(zip(values, DOTS, strict=True)), decimal, shown))
    assert len(list(root.iter("circle"))) == 5
    assert len([mark for mark in root.iter("text") if mark.attrib["text-anchor"] == "middle"]) >= 2
    if isinstance(dimension, dict) and not dimension["step"] and isinstance(dimension["low"], float):
        at = {float(mark[0].text.rsplit(" ", 1)[1]): float(mark.attrib["cx"]) for mark in root.iter("circle")}
        assert [at[value] for value in sorted(at)] == sorted(at.values())


def test_curves_end_where_the_trial_ended() -> None:
    lines = [
        ("best", [(10, 0.5), (20, 0.8)]),
        ("pruned", [(5, 0.4), (10, 0.45)]),
        ("complete", [(40, 0.6)]),
        ("failed", []),
    ]
    root = drawn(trial_curves(lines, decimal, NAME))
    assert len(list(root.iter("polyline"))) == 3
    ends = [mark[0].text for mark in root.iter("circle")]
    assert sorted(ends) == ["10: 0.450", "40: 0.600"]


def test_a_bar_is_as_long_as_its_share() -> None:
    root = drawn(importance_bars({"train.learning_rate": 0.75, "model.dropout": 0.25, "a": 0.0}))
    lengths = [float(mark.attrib["width"]) for mark in root.iter("rect")]
    assert lengths[0] == pytest.approx(3 * lengths[1], rel=0.01)
    assert lengths[2] == 0
