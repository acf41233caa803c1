from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from danlu.core.files import write_json
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.pii import KINDS
from danlu.data.prepare import CleanConfig, SplitConfig, prepare
from danlu.report.stage import write_data_card
from danlu.report.terms import PII

HOSTILE_CLASSES = ("<script>alert('c')</script>", "a|b`c`\n</svg><img src=x onerror=alert(1)>")
FIVE = ("退换货", "物流", "质量", "a class with quite a long name", "其他")
VOID = {"meta", "input", "br", "img", "link", "hr"}
UNITS = {"min", "GiB"}


class Node:
    """An element of a page."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def walk(self) -> list[Node]:
        found = [self]
        for child in self.children:
            found += child.walk() if isinstance(child, Node) else []
        return found

    def has_class(self, name: str) -> bool:
        return name in (self.attributes.get("class") or "").split()

    def lineage(self) -> list[Node]:
        return [self, *(self.parent.lineage() if self.parent else [])]


class Page(HTMLParser):
    """A page as a tree; elements that are not closed in order are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Node("root", {}, None)
        self.feed(html)
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Node(tag, dict(attrs), self.at))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.at.tag, f"</{tag}> closes <{self.at.tag}>: …{self.at.text()[-80:]!r}"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def pages(run: Any) -> list[str]:
    card = write_data_card(run.workspace, run.dataset, Silent())
    return [
        (run.report().path / "report.html").read_text(encoding="utf-8"),
        (card.path / "card.html").read_text(encoding="utf-8"),
    ]


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


def test_self_contained(run_of: Callable[..., Any], good: Any) -> None:
    for html in [*pages(good), *pages(run_of(classes=HOSTILE_CLASSES)), *pages(run_of(classes=FIVE))]:
        nodes = Page(html).root.walk()
        assert len(html.encode()) < 400_000
        assert not [
            node.tag for node in nodes if node.tag in {"link", "img", "iframe", "object", "embed", "base", "form"}
        ]
        for node in nodes:
            for name, value in node.attributes.items():
                assert name not in {"src", "srcset", "xlink:href", "action", "data"}, (node.tag, name)
                assert not name.startswith("on"), (node.tag, name)
                if name == "href":
                    target = (value or "").removeprefix("#")
                    assert value == f"#{target}"
                    assert any(other.attributes.get("id") == target for other in nodes), value
        style = "".join(node.text() for node in nodes if node.tag in {"style", "script"})
        style += "".join(node.attributes.get("style") or "" for node in nodes)
        assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp", style)


def test_many_classes(run_of: Callable[..., Any]) -> None:
    names = [f"intent {index:02d}" for index in range(40)]
    report, card = pages(run_of(classes=names, families=("bert", "tfidf-lr")))
    for html in (report, card):
        Page(html)
        assert len(html.encode()) < 400_000
        labels = html[html.index(">Label<") :]
        assert labels.index("intent 11") < labels.index("<details") < labels.index("intent 12")
        assert all(f">{name}</span>" in labels for name in names)


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+(?:[.,]\d+)*", text))


def test_both_languages_are_complete(run_of: Callable[..., Any], good: Any) -> None:
    worse = run_of(skills=(1.4, 3.6), families=("bert", "tfidf-lr"), planned=False)
    ensemble = run_of(families=("ensemble", "tfidf-lr", "bert"))
    for html in [*pages(good), *pages(worse), *pages(ensemble), *pages(run_of(families=("bert",), classes=FIVE))]:
        n_pairs = 0
        for node in Page(html).root.walk():
            for index, child in enumerate(node.children):
                if isinstance(child, str):
                    translated = any(
                        each.has_class("en") or each.has_class("zh") or each.attributes.get("translate") == "no"
                        or each.tag in {"style", "script"}
                        for each in node.lineage()
                    )  # fmt: skip
                    words = set(re.findall(r"[A-Za-z]{3,}|[一-鿿]+", child)) - UNITS
                    assert translated or not words, child
                elif child.has_class("en"):
                    other = node.children[index + 1]
                    assert isinstance(other, Node)
                    assert other.has_class("zh")
                    english, chinese = child.text(), other.text()
                    assert chinese.strip() or not english.strip()
                    assert re.search(r"[一-鿿]", chinese) or not re.search(r"[A-Za-z]{3,}", english), english
                    assert numbers(english) == numbers(chinese), (english, chinese)
                    n_pairs += 1
                elif child.has_class("zh"):
                    before = node.children[index - 1]
                    assert isinstance(before, Node)
                    assert before.has_class("en")
        assert n_pairs > 60


def test_everything_from_the_data_is_escaped(run_of: Callable[..., Any]) -> None:
    run = run_of(classes=HOSTILE_CLASSES, skills=(1.2, 1.0, 1.1))
    report, card = pages(run)
    for html in (report, card):
        tags = [node.tag for node in Page(html).root.walk()]
        assert tags.count("script") == 1
        assert "img" not in tags
        assert "&lt;script&gt;alert(&#39;c&#39;)&lt;/script&gt;" in html
    assert "&lt;script&gt;alert(&#39;x&#39;)" in card, "the hostile text is among the dropped ones shown"
    markdown = (run.report().path / "card.md").read_text(encoding="utf-8")
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


def test_the_model_card_says_what_the_json_says(good: Any) -> None:
    markdown = (good.report().path / "card.md").read_text(encoding="utf-8")
    assert markdown.index('id="english"') < markdown.index("### Evaluation") < markdown.index('id="chinese"')
    for entry in good.entries:
        facts, training = entry.evaluation.json("evaluation.json"), entry.model.json("training.json")
        expected = []
        for name, times, digits, sign in (
            ("macro_f1", 100, 1, "%"),
            ("accuracy", 100, 1, "%"),
            ("auroc", 1, 3, ""),
            ("ece", 1, 3, ""),
        ):
            value, low, high = (f"{times * facts['metrics'][name][key]:.{digits}f}" for key in ("value", "low", "high"))
            expected.append(f"{value}{sign} [{low}, {high}]")
        found = [row for row in rows_of(markdown, facts["family"]) if len(row) == 8]
        assert len(found) == 2, "in English and in Chinese"
        assert all(row[1:6] == [*expected, f"{training['n_parameters']:,}"] for row in found)
    ours = good.entries[0]
    for each in ours.evaluation.json("evaluation.json")["classes"]:
        row = rows_of(markdown, each["name"])[0]
        shown = [f"{100 * each[key]['value']:.1f}%" for key in ("precision", "recall", "f1")]
        assert row[1] == f"{each['n']:,}"
        assert [cell.split()[0] for cell in row[2:]] == shown
    summary = good.dataset.json("summary.json")
    assert (
        f"Read {summary['n_read']:,} records, kept {summary['n_kept']:,}, dropped {summary['n_dropped']:,}" in markdown
    )
    assert markdown.count(ours.model.digest) == 4
    assert all(markdown.count(value) == 2 for value in ours.model.manifest["commitments"].values())


def test_the_data_card_says_what_the_summary_says(good: Any) -> None:
    html = pages(good)[1]
    summary = good.dataset.json("summary.json")
    assert f"{summary['n_kept']:,} of {summary['n_read']:,} records are fit to learn from" in html
    for reason, n in summary["dropped"].items():
        assert re.search(rf">{reason}</code></th><td[^>]*>{n:,}</td>", html), reason
    for split in summary["splits"].values():
        assert f'translate="no">{split["n"]:,}</td>' in html
    assert summary["dropped"].keys() >= {"empty", "no_text"}
    assert "，，，。。。" in html or ",,," in html, "examples of what was dropped are shown"
    assert "13812345678" not in html, "and personal data is not"


def test_data_without_labels(tmp_path: Path) -> None:
    texts = pa.array([f"第 {row} 句各不相同的话，{row * row} 与 {row**3}" for row in range(300)])
    batch = pa.RecordBatch.from_pydict({"source": pa.array(["a.txt"] * 300), "text": texts})
    workspace, clean = Workspace(tmp_path), CleanConfig()
    with workspace.create("dataset", "lines", key="d", config={"clean": clean.plain()}, parents={}) as draft:
        write_json(draft.folder / "summary.json", prepare([batch], clean, SplitConfig(), draft.folder))
    html = (write_data_card(workspace, draft.artifact, Silent()).path / "card.html").read_text(encoding="utf-8")
    Page(html)
    assert ">Label<" not in html


def test_every_kind_of_personal_data_has_a_name() -> None:
    assert set(PII) >= set(KINDS)
