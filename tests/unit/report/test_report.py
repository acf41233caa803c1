from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from danlu.evaluate.tasks import TASKS as JUDGED
from danlu.model.families import ENSEMBLE, MEMORY, NGRAM, TFIDF
from danlu.model.families import FAMILIES as MODELS
from danlu.report.task import TASKS, TaskReport
from danlu.report.terms import FAMILIES, PLACEHOLDERS
from page_tree import Page, check_both_languages, check_self_contained

HOSTILE_CLASSES = ("<script>alert('c')</script>", "a|b`c`\n</svg><img src=x onerror=alert(1)>")
FIVE = ("退换货", "物流", "质量", "a class with quite a long name", "其他")
FEW_SHOT = [
    {"shots": shots, "label": label, "value": value, "low": value - 0.05, "high": value + 0.05, "n": 5}
    for label, first in (("tfidf-lr", 0.52), ("head", 0.58), ("bert", 0.61))
    for shots, value in zip((8, 16, 32), (first, first + 0.1, first + 0.15), strict=True)
]
TUNED = {"start": True, "training": {"n_trained": 12_345, "merge_difference": 4.8e-7}}
RUNS: dict[str, dict[str, Any]] = {
    "texts": {},
    "hostile": {"classes": HOSTILE_CLASSES},
    "five classes": {"classes": FIVE},
    "alone": {"families": ("bert",), "classes": FIVE},
    "worse": {"skills": (1.4, 3.6), "families": ("bert", "tfidf-lr"), "planned": False},
    "ensemble": {"families": ("ensemble", "tfidf-lr", "bert")},
    "fine-tuned": {**TUNED, "few_shot": FEW_SHOT},
    "pictures": {"task": "image-classification"},
    "pictures alone": {"task": "image-classification", "families": ("cnn",)},
    "language": {"task": "language-modelling"},
    "language worse": {"task": "language-modelling", "skills": (0.0, 0.4, 0.1), "sampled": False},
    "language alone": {"task": "language-modelling", "families": ("gpt",)},
    "translation": {"task": "translation"},
    "translation alone": {"task": "translation", "families": ("transformer",)},
    "no placeholders": {
        "task": "translation",
        "texts": ([f"Row {n} is one" for n in range(90)], [f"第{n}行" for n in range(90)]),
    },
}


def pages(run: Any) -> list[str]:
    return [run.page, run.data_card]


@pytest.fixture(scope="module")
def good(run_of: Callable[..., Any]) -> Any:
    return run_of(skills=(3.6, 1.6, 2.0))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_any_number_of_models(run_of: Callable[..., Any], n: int) -> None:
    html = pages(run_of(families=("bert", "tfidf-lr", "gru", "mlp")[:n]))[0]
    assert Page(html).root.text().count("AUROC") > 0
    board = html[html.index('id="board"') : html.index('id="mistakes"')]
    assert all(f">{family}</code>" in board for family in ("bert", "tfidf-lr", "gru", "mlp")[:n])
    assert ("nothing was compared" in html) == (n == 1)


@pytest.mark.parametrize("name", RUNS)
def test_self_contained(run_of: Callable[..., Any], name: str) -> None:
    for html in pages(run_of(**RUNS[name])):
        check_self_contained(html)


def test_many_classes(run_of: Callable[..., Any]) -> None:
    names = [f"intent {index:02d}" for index in range(40)]
    report, card = pages(run_of(classes=names, families=("bert", "tfidf-lr")))
    for html in (report, card):
        Page(html)
        assert len(html.encode()) < 400_000
        labels = html[html.index(">Label<") :]
        assert labels.index("intent 11") < labels.index("<details") < labels.index("intent 12")
        assert all(f">{name}</span>" in labels for name in names)


@pytest.mark.parametrize("name", RUNS)
def test_both_languages_are_complete(run_of: Callable[..., Any], name: str) -> None:
    for html in pages(run_of(**RUNS[name])):
        assert check_both_languages(html) > 50


@pytest.mark.parametrize("task", ["language-modelling", "translation"])
def test_texts_of_every_task_are_escaped(run_of: Callable[..., Any], task: str) -> None:
    run = run_of(task=task)
    for html in pages(run):
        assert [node.tag for node in Page(html).root.walk()].count("script") == 1
    assert "<script" not in run.model_card


def test_everything_from_the_data_is_escaped(run_of: Callable[..., Any]) -> None:
    run = run_of(classes=HOSTILE_CLASSES, skills=(1.2, 1.0, 1.1))
    report, card = pages(run)
    for html in (report, card):
        tags = [node.tag for node in Page(html).root.walk()]
        assert tags.count("script") == 1
        assert "img" not in tags
        assert "&lt;script&gt;alert(&#39;c&#39;)&lt;/script&gt;" in html
    assert "&lt;script&gt;alert(&#39;x&#39;)" in card, "the hostile text is among the dropped ones shown"
    markdown = run.model_card
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "](http" not in markdown
    rows = [line for line in markdown.splitlines() if "alert" in line and line.startswith("|")]
    assert rows
    assert all(line.count("|") == 3 for line in rows if "classes" in line), "a class name adds no column"
    assert all(line.count("|") == 6 for line in rows if line.count("%") > 2)


def test_the_gate_speaks_plainly(run_of: Callable[..., Any], good: Any) -> None:
    assert good.gate["passed"]
    html = pages(good)[0]
    assert "beats the simple baseline by" in html
    assert f"by {100 * good.gate['difference']:.1f} points" in html
    assert "reviews@champion" in html
    assert "refused" not in html
    refused = run_of(skills=(2.4, 2.4, 2.4))
    assert not refused.gate["passed"]
    html = pages(refused)[0]
    assert "is not shown to be better than the simple baseline" in html
    assert "Gate refused" in html
    assert "门禁拒绝" in html
    assert "beats" not in html
    assert "@champion" not in html
    worse = pages(run_of(skills=(1.0, 3.6, 2.4)))[0]
    assert "is worse than the simple baseline" in worse
    assert "@champion" not in worse


def test_plan_and_fact_both_count_the_pretraining(good: Any) -> None:
    html = pages(good)[0]
    plan = html[html.index('<section id="plan"') : html.index('<section id="provenance"')]
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in plan.split("<tr>")[2:]]
    assert rows[:4] == [
        ["1,234,567", "1,234,567", "1.00"],
        ["2,000", "1,700", "0.85"],
        ["8M", "6.41M", "0.80"],
        ["4 min 11 s", "3 min 3 s", "0.73"],
    ]
    assert rows[4][:2] == ["4.1%", f"{100 * (1 - 6_412_345 / 6_662_000):.1f}%"]
    assert "after 1,700 of 2,000 steps in all: about 3 min 33 s" in plan
    assert "b" * 64 in html, "the pre-trained weights are named"


def test_without_a_plan(run_of: Callable[..., Any], good: Any) -> None:
    assert 'id="plan"' in pages(good)[0]
    assert 'id="plan"' not in pages(run_of(planned=False))[0]


def test_an_ensemble_shows_the_training_of_its_member(run_of: Callable[..., Any]) -> None:
    run = run_of(families=("ensemble", "tfidf-lr", "bert"))
    html = pages(run)[0]
    assert "bert 0.71, tfidf-lr 0.33" in html
    commitments = run.entries[2].model.manifest["commitments"]
    assert len(commitments) == 5
    assert all(commitment in html for commitment in commitments.values())


def test_the_report_names_what_it_was_made_from(good: Any) -> None:
    report = good.report()
    html = (report.path / "report.html").read_text(encoding="utf-8")
    artifacts = [good.dataset, good.comparison, *(e.model for e in good.entries), *(e.evaluation for e in good.entries)]
    assert set(report.manifest["parents"].values()) == {artifact.digest for artifact in artifacts}
    assert all(artifact.digest in html for artifact in artifacts)
    for key in ("train.learning_rate", "data.clean.near_threshold", "model.dropout"):
        assert f">{key}</td>" in html
    assert good.report().digest == report.digest, "the same inputs give the same bytes"


def rows_of(markdown: str, first: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


WRITTEN = {
    "macro_f1": (100, 1, "%"), "accuracy": (100, 1, "%"), "auroc": (1, 3, ""), "ece": (1, 3, ""),
    "bits_per_character": (1, 3, ""), "chrf": (1, 1, ""), "bleu": (1, 1, ""), "exact_match": (100, 1, "%"),
    "placeholders_kept": (100, 1, "%"),
}  # fmt: skip
"""What a value is multiplied by, its digits and its unit; perplexity, which may be of any size, is left out."""


@pytest.mark.parametrize("task", JUDGED.names())
def test_the_model_card_says_what_the_json_says(run_of: Callable[..., Any], task: str) -> None:
    run = run_of(task=task)
    markdown = run.model_card
    assert markdown.index('id="english"') < markdown.index("### Evaluation") < markdown.index('id="chinese"')
    names = list(TASKS[task].metrics)
    for entry in run.entries:
        facts, training = entry.evaluation.json("evaluation.json"), entry.model.json("training.json")
        found = [row for row in rows_of(markdown, facts["family"]) if len(row) == len(names) + 4]
        assert len(found) == 2, "in English and in Chinese"
        for row in found:
            assert row[len(names) + 1] == f"{training['n_parameters']:,}"
            for name, cell in zip(names, row[1:], strict=False):
                if name in WRITTEN:
                    times, digits, sign = WRITTEN[name]
                    metric = facts["metrics"][name]
                    value, low, high = (f"{times * metric[key]:.{digits}f}" for key in ("value", "low", "high"))
                    assert cell == f"{value}{sign} [{low}, {high}]"
    ours = run.entries[0]
    for each in ours.evaluation.json("evaluation.json").get("classes", []):
        row = rows_of(markdown, each["name"])[0]
        shown = [f"{100 * each[key]['value']:.1f}%" for key in ("precision", "recall", "f1")]
        assert row[1] == f"{each['n']:,}"
        assert [cell.split()[0] for cell in row[2:]] == shown
    n_read, n_kept, n_dropped = (run.dataset.json("summary.json")[key] for key in ("n_read", "n_kept", "n_dropped"))
    assert f"Read {n_read:,} records, kept {n_kept:,}, dropped {n_dropped:,}" in markdown
    assert markdown.count(ours.model.digest) == 4
    assert all(markdown.count(value) == 2 for value in ours.model.manifest["commitments"].values())
    assert "\n\n\n" not in markdown


def test_the_card_names_the_placeholders(run_of: Callable[..., Any]) -> None:
    run = run_of(task="translation")
    markdown = run.model_card
    for each in run.entries[0].evaluation.json("evaluation.json")["placeholders"]:
        (row,) = rows_of(markdown, PLACEHOLDERS[each["kind"]][0].en)
        kept, human = (f"{100 * each[who]['value']:.1f}%" for who in ("kept", "reference"))
        assert (row[1], row[2].split()[0], row[3].split()[0]) == (f"{each['kept']['n']:,}", kept, human)


def test_every_task_that_is_judged_has_a_report() -> None:
    assert TASKS.names() == JUDGED.names()
    for task in JUDGED.names():
        report: TaskReport = TASKS[task]
        assert JUDGED[task].primary in report.metrics
        assert report.metrics[JUDGED[task].primary].higher_is_better == JUDGED[task].higher_is_better
        assert set(report.compared) <= set(report.metrics)


def test_every_model_that_can_be_named_has_a_description() -> None:
    assert {*MODELS.names(), ENSEMBLE, NGRAM, MEMORY, TFIDF} <= set(FAMILIES)
