from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup

from danlu.core.errors import UsageError
from danlu.core.workspace import Workspace
from danlu.report.curve_pictures import MOST, Axis, Line, overlaid, smoothed, style_of, time_axis
from danlu.report.curves import Together
from danlu.report.histories import find
from danlu.report.stage import write_curves
from danlu.report.words import integer, t
from made_curves import config_of, make_model, make_run, metrics, timing
from page_tree import Page, check_both_languages, check_self_contained

STYLE = Path(__file__).parents[3] / "src/danlu/report/templates/style.css"
STEPS = Axis(t("steps", "步"), integer)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "workspace")


def together(workspace: Workspace, *targets: str) -> Together:
    return Together([find(workspace, target) for target in targets])


def marks(picture: Markup, tag: str, style: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(picture)
    return [mark for mark in root.iter(tag) if style in mark.attrib.get("class", "").split()]


def drawn(lines: list[Line], **how: Any) -> Markup:
    return overlaid(lines, STEPS, lambda value: f"{value:g}", t("a", "甲"), **how)


# Pages


@pytest.mark.parametrize("task", ["text-classification", "language-modelling", "translation"])
@pytest.mark.parametrize("n", [1, 2, MOST])
def test_a_page_is_complete_in_both_languages(workspace: Workspace, task: str, n: int) -> None:
    make_run(workspace, "0-begun", task, 35)
    for number in range(1, n):
        config = config_of(task, learning_rate=1e-3 * number)
        lines = metrics(task, 100, loss=1 + number / 10)
        make_model(workspace, f"{number}-<b>模型&", task, config=config, metrics=lines)
    names = ["0-begun", *(f"{number}-<b>模型&" for number in range(1, n))]
    found, path = write_curves(workspace, names)
    html = path.read_text(encoding="utf-8")
    assert path.parent == workspace.curves
    check_self_contained(html)
    assert check_both_languages(html) > 20
    assert "<b>模型&" not in html
    assert len(re.findall("<svg viewBox", html)) == 6  # loss and score: by step, by tokens, by time
    assert [each.label.partition("@")[0] for each in found.histories] == names
    assert write_curves(workspace, names)[1] == path, "asked again, the page is there anew"
    assert len(list(workspace.curves.iterdir())) == 1


def test_what_is_best_and_what_differs(workspace: Workspace) -> None:
    for name, loss, rate in (("a", 1.0, 1e-3), ("b", 0.8, 2e-3), ("c", 1.2, 1e-3)):
        config = config_of("language-modelling", learning_rate=rate)
        lines = metrics("language-modelling", 100, loss=loss)
        make_model(workspace, name, "language-modelling", config=config, metrics=lines)
    found = together(workspace, "a", "b", "c")
    assert found.best is not None
    assert found.best.label == "b@latest"
    assert found.differences() == {"train.learning_rate": [1e-3, 2e-3, 1e-3]}
    assert list(found.cautions()) == []
    _, path = write_curves(workspace, ["a", "b", "c"])
    page = Page(path.read_text(encoding="utf-8")).root
    heading = next(node.text() for node in page.walk() if node.tag == "h1")
    assert "b@latest has come furthest" in heading
    assert "b@latest 目前最好" in heading


def test_differences_name_what_a_key_lacks_and_where_each_came_from(workspace: Workspace) -> None:
    make_model(workspace, "a", config=config_of("text-classification", adapt={"mode": "full"}))
    make_model(workspace, "b", parents={"dataset": "d" * 64, "pretrained": "e" * 64})
    assert together(workspace, "a", "b").differences() == {
        "train.adapt.mode": ["full", None],
        "pretrained": [None, "e" * 12],
    }


def test_what_cannot_be_compared_as_it_stands_is_said(workspace: Workspace) -> None:
    other = config_of("translation") | {"tokenizer": {"kind": "bpe"}}
    make_model(workspace, "a", "translation")
    make_model(workspace, "b", "translation", parents={"dataset": "e" * 64})
    make_model(workspace, "c", "translation", config=other)
    make_model(workspace, "old", "translation", config=other, timing=[])

    def said(*targets: str) -> list[str]:
        return [str(caution.en.striptags()) for caution in together(workspace, *targets).cautions()]

    assert [line[:24] for line in said("a", "b")] == ["They were trained and va", "Their tokenizers may dif"]
    assert [line[:24] for line in said("a", "c")] == ["Their tokenizers may dif"]
    assert [line[:24] for line in said("c", "old")] == ["old@latest: made by an e"]
    classifier = config_of("text-classification") | {"tokenizer": {"kind": "bpe"}}
    make_model(workspace, "d")
    make_model(workspace, "e", config=classifier)
    assert said("d", "e") == []  # a loss per text does not depend on its tokens


def test_without_what_steps_cost_there_is_only_the_view_by_step(workspace: Workspace) -> None:
    make_model(workspace, "new")
    make_model(workspace, "old", timing=[], config=config_of("text-classification", epochs=3))
    (view,) = together(workspace, "old").views()
    assert view.title.en == "By step"
    for view, n in zip(together(workspace, "new", "old").views(), (2, 1, 1), strict=True):
        assert len(marks(view.loss or Markup(), "polyline", "faint")) == n


def test_a_point_stands_where_its_step_cost_what_it_cost(workspace: Workspace) -> None:
    lines = metrics("text-classification", 100)
    make_model(workspace, "slow", metrics=lines, timing=timing("a", 0, 100, seconds=2.0, n_tokens=50))
    make_model(workspace, "fast", metrics=lines, timing=timing("a", 0, 100, seconds=0.5, n_tokens=100))
    ends = []
    for view in together(workspace, "slow", "fast").views():
        curves = [
            mark.attrib["points"].split()[-1].split(",") for mark in marks(view.score or Markup(), "polyline", "curve")
        ]
        (slow, low), (fast, high) = curves
        assert low == high
        left = 46.0
        ends.append((float(fast) - left) / (float(slow) - left))
    assert ends == pytest.approx([1, 2, 0.25], abs=0.01)


def test_a_point_whose_cost_is_not_known_yet_is_left_out(workspace: Workspace) -> None:
    make_run(workspace, "a", n_done=100, timing=timing("a", 0, 60))
    n_points = []
    for view in together(workspace, "a").views():
        (curve,) = marks(view.loss or Markup(), "polyline", "faint")
        n_points.append(len(curve.attrib["points"].split()))
    assert n_points == [95, 60, 60]  # by step without the plunge


def test_a_run_before_its_first_evaluation_has_no_picture_of_scores(workspace: Workspace) -> None:
    make_run(workspace, "a", n_done=5)
    assert [view.score for view in together(workspace, "a").views()] == [None] * 3
    _, path = write_curves(workspace, ["a"])
    check_both_languages(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("made", "targets", "what"),
    [
        ([("a", "translation"), ("b", "text-classification")], ["a", "b"], "learn different things"),
        ([("a", "translation")], ["a", "a@latest"], "are the same"),
        ([(f"m{n}", "translation") for n in range(MOST + 1)], [f"m{n}" for n in range(MOST + 1)], f"{MOST} at most"),
    ],
)
def test_what_is_refused(workspace: Workspace, made: Any, targets: list[str], what: str) -> None:
    for name, task in made:
        make_model(workspace, name, task)
    with pytest.raises(UsageError, match=what) as error:
        write_curves(workspace, targets)
    assert error.value.advice
    assert not workspace.curves.exists()


def test_a_backbone_is_not_compared_with_a_model_made_from_it(workspace: Workspace) -> None:
    make_model(workspace, "a")
    lines = metrics("translation", 100)
    backbone = make_model(workspace, "a", kind="pretrained", metrics=lines, alias="")
    with pytest.raises(UsageError, match="pre-training for text-classification"):
        together(workspace, "a", backbone.path.name)
    assert str(together(workspace, backbone.path.name).curve.name.en) == "loss on hidden tokens"


# Pictures


@pytest.mark.parametrize("rise", [1, -1])
def test_curves_stay_inside_the_picture_and_names_apart(rise: int) -> None:
    points = [(step, 1 - rise / step) for step in range(1, 101)]
    lines = [Line(f"name {n}", style_of(n), [(x, y + n / 1000) for x, y in points], points) for n in range(MOST)]
    picture = drawn(lines)
    root = ElementTree.fromstring(picture)
    _, _, width, height = (float(value) for value in root.attrib["viewBox"].split())
    for mark in root.iter():
        for name, value in mark.attrib.items():
            assert not re.fullmatch("[xy][12]?|c[xy]", name) or -1 <= float(value) <= max(width, height)
        for x, y in (place.split(",") for place in mark.attrib.get("points", "").split()):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height
    names = sorted(float(mark.attrib["y"]) for mark in marks(picture, "text", "name"))
    assert len(names) == MOST
    assert all(below - above >= 12 for above, below in itertools.pairwise(names))
    assert 12 <= names[0] <= names[-1] <= height - 20


def test_a_loss_that_falls_far_has_a_logarithmic_axis() -> None:
    def ticks(low: float, *, falls: bool) -> list[str]:
        points = [(step, 2 * (low / 2) ** (step / 30)) for step in range(31)]
        found = marks(drawn([Line("a", "c1", points)], falls=falls), "text", "tick")
        return [mark.text or "" for mark in found if mark.attrib["text-anchor"] == "end" and mark.text]

    assert ticks(0.002, falls=True) == ["0.01", "0.1", "1"]
    assert ticks(0.1, falls=True) == ["0.1", "0.2", "0.5", "1", "2"]
    assert "0" in ticks(0.002, falls=False)
    assert ticks(1.5, falls=True) == ticks(1.5, falls=False)


def test_the_plunge_at_the_beginning_takes_no_room() -> None:
    points = [(step, 100.0 if step < 3 else 3.0 - step / 200) for step in range(1, 201)]
    picture = drawn([Line("a", "c1", smoothed(points), points)])
    (faint,) = marks(picture, "polyline", "faint")
    assert len(faint.attrib["points"].split()) == 190
    heights = [float(place.split(",")[1]) for place in faint.attrib["points"].split()]
    assert max(heights) - min(heights) > 100
    level = [(step, 3.0 - step / 200) for step in range(1, 201)]
    (faint,) = marks(drawn([Line("a", "c1", smoothed(level), level)]), "polyline", "faint")
    assert len(faint.attrib["points"].split()) == 200, "where there is none, nothing is cut"


def test_the_running_mean_follows_a_level_exactly_and_a_ripple_hardly() -> None:
    assert smoothed([(step, 3.0) for step in range(5)]) == [(step, pytest.approx(3.0)) for step in range(5)]
    assert smoothed([]) == []
    ripple = [(step, 1.0 + (-1) ** step) for step in range(400)]
    assert all(abs(y - 1) < 0.1 for _, y in smoothed(ripple)[100:])


@pytest.mark.parametrize(
    ("seconds", "name", "unit"), [(0.2, "seconds", 1), (119, "seconds", 1), (121, "minutes", 60), (7201, "hours", 3600)]
)
def test_time_is_told_in_a_unit_of_its_size(seconds: float, name: str, unit: float) -> None:
    axis = time_axis(seconds)
    assert (str(axis.name.en), axis.unit) == (name, unit)


# Colours. Simulation of colour blindness: Machado, Oliveira and Fernandes (2009), severity 1.0.

SIGHTS = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    """Linear sRGB of ``#rrggbb``."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB."""
    share = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    root = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_apart_by_everybody_and_seen_on_the_page(theme: int) -> None:
    css = STYLE.read_text()
    colours = [re.findall(rf"--c{number}: (#\w+);", css)[theme] for number in range(1, 6)]
    for name, matrix in SIGHTS.items():
        seen = {colour: lab(np.asarray(matrix) @ linear(colour)) for colour in colours}
        for a, b in itertools.combinations(colours, 2):
            assert np.linalg.norm(seen[a] - seen[b]) > 20, (name, a, b)
    panel = float(XYZ[1] @ linear(re.findall(r"--panel: (#\w+);", css)[theme]))
    for colour in colours:
        low, high = sorted((panel, float(XYZ[1] @ linear(colour))))
        assert (high + 0.05) / (low + 0.05) >= 3, colour  # WCAG 2.2, graphical objects
    assert len({style_of(index) for index in range(MOST)}) == MOST
