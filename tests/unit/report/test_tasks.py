"""What the report of each task shows, against the artifacts that it was made from."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from page_tree import Node, Page

FEW_SHOT = [
    {"shots": shots, "label": label, "value": value, "low": value - 0.05, "high": value + 0.05, "n": 5}
    for label, first in (("tfidf-lr", 0.52), ("head", 0.58), ("bert", 0.61))
    for shots, value in zip((8, 16), (first, first + 0.1), strict=True)
]


def section(html: str, name: str) -> Node:
    (found,) = [node for node in Page(html).root.walk() if node.attributes.get("id") == name]
    return found


def english(node: Node) -> str:
    """Its text without the Chinese, in one line."""
    if node.has_class("zh"):
        return ""
    found = "".join(child if isinstance(child, str) else english(child) for child in node.children)
    return " ".join(found.split())


def headings(html: str) -> list[str]:
    return [english(node) for node in Page(html).root.walk() if node.tag in {"h1", "h2", "h3"}]


def evaluation(run: Any, index: int = 0) -> Any:
    return run.entries[index].evaluation.json("evaluation.json")


def comparison(run: Any) -> Any:
    return run.comparison.json("comparison.json")["models"][0]


@pytest.mark.parametrize(
    ("wanted", "headline"),
    [
        ({"task": "image-classification"}, "The model beats the simple baseline by {points} points"),
        ({"task": "image-classification", "families": ("cnn",)}, "The model reaches a macro F1 of"),
        ({"task": "language-modelling"}, "The model needs {percent}% fewer bits than the simple baseline"),
        ({"task": "language-modelling", "skills": (0.0, 0.4, 0.1)}, "The model is worse than the simple baseline"),
        ({"task": "language-modelling", "skills": (0.2, 0.2, 0.2)}, "The model is not shown to be better than"),
        ({"task": "language-modelling", "families": ("gpt",)}, "bits per character; nothing was compared with it"),
        ({"task": "translation"}, "The model beats the simple baseline by {chrf} chrF"),
        ({"task": "translation", "skills": (0.5, 0.8)}, "The model is worse than the simple baseline"),
        ({"task": "translation", "families": ("transformer",)}, "The model reaches a chrF of"),
    ],
)
def test_headlines(run_of: Callable[..., Any], wanted: dict[str, Any], headline: str) -> None:
    run = run_of(**wanted)
    difference = run.gate["difference"] or 0.0
    baseline = evaluation(run, len(run.entries) > 1)["metrics"][run.gate["metric"]]["value"]
    said = headline.format(
        points=f"{100 * difference:.1f}", percent=f"{-100 * difference / baseline:.1f}", chrf=f"{difference:.1f}"
    )
    html = run.page
    assert said in headings(html)[0]
    assert ("@champion" in html) == run.gate["passed"]


def test_a_language_models_samples_stand_beside_the_baselines(run_of: Callable[..., Any]) -> None:
    run = run_of(task="language-modelling")
    ours, theirs = (evaluation(run, index)["samples"] for index in (0, 1))
    shown = [node for node in section(run.page, "samples").walk() if node.has_class("verse")]
    said = [
        [sample["continuation"], other["continuation"], sample["true"]]
        for sample, other in zip(ours, theirs, strict=True)
    ]
    assert [node.text() for node in shown] == [
        ours[index]["prompt"] + words for index, all_three in enumerate(said) for words in all_three
    ]
    assert 'id="samples"' not in run_of(task="language-modelling", sampled=False).page


def test_what_a_language_model_finds_hard_and_easy(run_of: Callable[..., Any]) -> None:
    run = run_of(task="language-modelling")
    html = run.page
    shown = english(section(html, "hard"))
    for name in ("hardest", "easiest"):
        for record in evaluation(run)[name]:
            assert f"{record['bits_per_character']:.2f} bits a character · {record['n_chars']} characters" in shown
    for name in ("a_better", "b_better"):
        for record in comparison(run)[name]:
            said = f"{record['a']:.2f} bits a character, 5-gram {record['b']:.2f} · {record['bits_saved']:.0f} bits"
            assert said in shown
    board = english(section(html, "board"))
    assert "fewer is better" in board
    assert "McNemar" not in html
    assert "better is to its left" in board


@pytest.mark.parametrize(
    ("task", "metric"),
    [("text-classification", "accuracy"), ("language-modelling", "bits_per_character"), ("translation", "chrf")],
)
def test_slices_by_length_are_drawn_beside_the_baselines(run_of: Callable[..., Any], task: str, metric: str) -> None:
    run = run_of(task=task)
    parts = evaluation(run)["slices"]["n_chars"]
    (drawn,) = [
        node for node in Page(run.page).root.walk() if "by length of text" in (node.attributes.get("aria-label") or "")
    ]
    said = english(drawn)
    times = 100 if metric == "accuracy" else 1
    for index, part in enumerate((*parts, *evaluation(run, 1)["slices"]["n_chars"])):
        assert f"{times * part[metric]['value']:.1f}" in said, index
        assert part["name"].replace("-", "–") in said or len(set(part["name"].split("-"))) == 1
    dots = [node.attributes["class"] for node in drawn.walk() if node.tag == "circle"]
    assert dots == ["dot model", "dot other"] * len(parts)


def test_bits_are_drawn_as_they_are_and_the_baseline_too(run_of: Callable[..., Any]) -> None:
    training = section(run_of(task="language-modelling").page, "training")
    assert "with the fewest bits per character on the validation split (5.940)" in english(training)
    loss, bits = (node for node in training.walk() if node.tag == "svg")
    assert "validation" not in english(loss)
    assert "simple baseline" in english(bits)
    assert all(tick > 0 for tick in map(float, re.findall(r"[56]\.\d+", english(bits))))


def test_translations_stand_beside_the_human_ones(run_of: Callable[..., Any]) -> None:
    run = run_of(task="translation")
    ours, base = evaluation(run), evaluation(run, 1)
    html = run.page
    blocks = [node for node in Page(html).root.walk() if node.has_class("ex") and " · " not in english(node)]
    shown = [[part.text() for part in node.walk() if is_said(part)] for node in blocks]  # comparisons left out
    known = {record["id"]: record["b"] for name in ("a_better", "b_better") for record in comparison(run)[name]}
    known |= {record["id"]: record["hypothesis"] for name in ("worst", "typical") for record in base[name]}
    n_beside = 0
    for name in ("worst", "typical", "lost_placeholders"):
        for record in ours[name]:
            lines = [record["source"], record["reference"], record["hypothesis"] or "–"]
            lines += [known[record["id"]] or "–"] if record["id"] in known else []
            n_beside += len(lines) == 4
            squeezed = [" ".join(line.split()) for line in lines]
            assert any(said[: len(squeezed)] == squeezed for said in shown), squeezed
    assert n_beside > 3


def is_said(part: Node) -> bool:
    """Whether it is a source or a translation."""
    return part.tag in {"p", "span"} and part.attributes.get("translate") == "no"


def test_placeholders_by_kind_beside_the_human_translations(run_of: Callable[..., Any]) -> None:
    run = run_of(task="translation")
    html = run.page
    found = section(html, "placeholders")
    rows = [
        [english(cell) for cell in row.children if isinstance(cell, Node)] for row in found.walk() if row.tag == "tr"
    ]
    expected = [
        [f"{100 * share['value']:.1f}%" for share in (each["kept"], other["kept"], each["reference"])]
        for each, other in zip(evaluation(run)["placeholders"], evaluation(run, 1)["placeholders"], strict=True)
    ]
    assert [row[1:] for row in rows[1:-1]] == expected
    assert len(expected) >= 4
    assert evaluation(run)["signatures"]["bleu"] in html
    assert "p of BLEU, permutation" in english(section(html, "board"))
    few = run_of(task="translation", texts=([f"Row {n} is one" for n in range(90)], [f"第{n}行" for n in range(90)]))
    assert "No source of the test split has any." in english(section(few.page, "placeholders"))


def test_pictures_are_shown_the_wrong_ones_first(run_of: Callable[..., Any]) -> None:
    run = run_of(task="image-classification")
    html = run.page
    shots = [node for node in section(html, "examples").walk() if node.has_class("shot")]
    wrong, slowest = evaluation(run)["most_confident_wrong"], evaluation(run)["slowest"]
    ids = {record["id"] for record in wrong}
    others = [record for record in slowest if record["id"] not in ids]
    assert others
    against = comparison(run)
    only = [*against["only_a_right"], *against["only_b_right"]]
    assert len(shots) == len(wrong) + len(others) + len(only)
    for record, shot in zip(wrong, shots, strict=False):
        (image,) = [node for node in shot.walk() if node.tag == "img"]
        assert image.attributes["src"] == record["image"]
        assert english(shot).startswith(f"{record['label']}→{record['predicted']}")
        assert f"{100 * record['confidence']:.1f}%" in english(shot)
        assert shot.has_class("bad")
    least = shots[len(wrong)]
    right = [record for record in others if record["label"] == record["predicted"]]
    assert english(least).startswith(min(right, key=lambda record: record["confidence"])["label"])
    assert least.has_class("good")
    assert base64.b64decode(wrong[0]["image"].split(",")[1]).startswith(b"\x89PNG")


def test_a_page_of_pictures_speaks_of_pictures(run_of: Callable[..., Any]) -> None:
    html = run_of(task="image-classification").page
    (main,) = [node for node in Page(html).root.walk() if node.tag == "main"]
    said = english(main)
    assert "Personal data" not in said
    assert not re.search(r"\b(texts?|characters)\b", said)
    assert "pictures read" in said
    assert "told apart: none is the same in every pixel" in said


def test_the_most_frequent_confusions_are_named(run_of: Callable[..., Any]) -> None:
    run = run_of(task="image-classification")
    facts = evaluation(run)
    cells = [
        (count, row, column)
        for row, counts in enumerate(facts["confusion"])
        for column, count in enumerate(counts)
        if row != column
    ]
    most, row, column = max(cells, key=lambda cell: (cell[0], -cell[1], -cell[2]))
    names = facts["class_names"]
    said = f"{names[row]} taken for {names[column]} {most} of {sum(facts['confusion'][row])}"
    assert said in english(section(run.page, "mistakes"))
    assert "taken for" not in run_of().page


def test_fine_tuning_is_told(run_of: Callable[..., Any]) -> None:
    training = {"n_trained": 147_000, "n_parameters": 22_713_216, "merge_difference": 4.77e-7}
    run = run_of(start=True, training=training)
    said = english(section(run.page, "training"))
    assert "It started from the weights of sample:minilm." in said
    assert "Only 147k of its 22.7M parameters (0.6%) were trained." in said
    assert "no output moved by more than 4.8 × 10⁻⁷" in said
    assert "c" * 64 in english(section(run.page, "provenance"))
    markdown = run.model_card
    assert "| started from | sample:minilm |" in markdown
    assert "| parameters trained | 147,000 |" in markdown
    plain = english(section(run_of().page, "training"))
    assert not re.search("started from|Only|LoRA", plain)


def test_few_shot_curves_are_shown_where_there_are_any(run_of: Callable[..., Any]) -> None:
    html = run_of(few_shot=FEW_SHOT).page
    found = section(html, "few-shot")
    rows = [
        [english(cell) for cell in row.children if isinstance(cell, Node)] for row in found.walk() if row.tag == "tr"
    ]
    assert rows == [
        ["examples", "bert", "head", "tfidf-lr"],
        ["8", "61.0%[56.0, 66.0]", "58.0%[53.0, 63.0]", "52.0%[47.0, 57.0]"],
        ["16", "71.0%[66.0, 76.0]", "68.0%[63.0, 73.0]", "62.0%[57.0, 67.0]"],
    ]
    assert 'id="few-shot"' not in run_of().page
