"""Pages: what the templates are given, and how they are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from danlu.core.artifact import Artifact
from danlu.core.config import leaves
from danlu.report import terms, words
from danlu.report.advice import advise, commands
from danlu.report.dropped import dropped_examples
from danlu.report.facts import Facts
from danlu.report.flow import funnel, length_histograms, similarity_histogram
from danlu.report.headline import cost, finding, headline
from danlu.report.pictures import Row, confusion, forest, loss_curves, reliability, score_curve
from danlu.report.words import Text, integer, markdown, percent, points, t

__all__ = ["data_page", "model_card", "report_page"]

_EXAMPLES_OF_A_REASON = 3
_LONGEST_SHOWN = 360
"""Characters of an example; its whole length is told beside it."""


def report_page(facts: Facts) -> str:
    """The report as one page."""
    return _render(
        "report.html",
        facts=facts,
        headline=headline(facts),
        finding=finding(facts),
        cost=cost(facts),
        advice=advise(facts),
        commands=commands(facts),
        pictures=_pictures(facts),
        right=sum(row[index] for index, row in enumerate(facts.ours.evaluation["confusion"])),
    )


def model_card(facts: Facts) -> str:
    """The model card as Markdown, in English and then in Chinese."""
    return _render(
        "card.md",
        facts=facts,
        headline=headline(facts),
        finding=finding(facts),
        cost=cost(facts),
        advice=advise(facts),
        reasons=_reasons(facts.summary["dropped"]),
        english=lambda text: markdown(text.en),
        chinese=lambda text: markdown(text.zh),
    )


def data_page(dataset: Artifact) -> str:
    """The data card as one page."""
    summary = dataset.json("summary.json")
    examples = dropped_examples(dataset.path / "dropped.parquet", summary["dropped"], _EXAMPLES_OF_A_REASON)
    return _render(
        "data.html",
        dataset=dataset,
        summary=summary,
        settings=list(leaves(dataset.config)),
        examples=examples,
        pictures=_data_pictures(summary),
    )


def _reasons(dropped: Mapping[str, int]) -> Text:
    """How many records were dropped for each reason, in a line."""
    if not dropped:
        return t("none", "无")
    listed = [
        t("{n} {reason}", "{reason} {n}", n=integer(n), reason=terms.REASONS.get(name) or words.marked(name))
        for name, n in dropped.items()
    ]
    return Text(Markup("; ").join(text.en for text in listed), Markup("；").join(text.zh for text in listed))


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("danlu.report"),
        autoescape=select_autoescape(("html",)),  # Markdown is escaped value by value
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {name: getattr(words, name) for name in words.__all__}
    environment.globals |= {name: getattr(terms, name) for name in terms.__all__}
    environment.globals["excerpt"] = _excerpt
    environment.filters["md"] = words.unmarked
    return str(environment.get_template(template).render(values))


def _excerpt(text: str, n_chars: int = _LONGEST_SHOWN) -> str:
    """The beginning of a text, in one paragraph."""
    joined = " ".join(text.split())
    return joined if len(joined) <= n_chars else f"{joined[:n_chars]}…"


def _pictures(facts: Facts) -> dict[str, Markup]:
    ours = facts.ours
    found = {
        "scores": forest(
            [_row(model.label, model.metric("macro_f1"), ours=model.ours) for model in facts.models],
            percent,
            t("Macro F1 of every model", "各模型的宏平均 F1"),
        ),
        "confusion": confusion(ours.evaluation["confusion"], ours.evaluation["class_names"]),
        "reliability": reliability(ours.evaluation["calibration"]["bins"]),
        "slices": _slices(ours.evaluation["slices"]["n_chars"], ours.metric("accuracy")["value"]),
        **_data_pictures(facts.summary),
    }
    compared = [model for model in facts.models if model.against is not None]
    if compared:
        found["differences"] = forest(
            [
                _row(model.label, {**_difference(model.against), "n": model.against["n"]}, ours=model.ours)
                for model in compared
                if model.against is not None
            ],
            points,
            t("Difference from the baseline", "与基线之差"),
            mark=0.0,
        )
    if trained := facts.trained:
        baseline = None if facts.baseline is None else facts.baseline.training["best_score"]
        found["loss"] = loss_curves(trained.curve, trained.training["best_step"])
        found["score"] = score_curve(trained.curve, trained.training["best_step"], baseline)
    return found


def _difference(against: Mapping[str, Any]) -> dict[str, Any]:
    """The difference in macro F1 as a value with its interval."""
    macro_f1 = against["metrics"]["macro_f1"]
    return {"value": macro_f1["difference"], "low": macro_f1["low"], "high": macro_f1["high"]}


def _row(name: str, metric: Mapping[str, Any], *, ours: bool) -> Row:
    return Row(name, metric["value"], metric["low"], metric["high"], ours, metric["n"])


def _slices(slices: Sequence[Mapping[str, Any]], overall: float) -> Markup:
    rows = [
        Row(
            t("{name} chars", "{name} 字符", name=part["name"].replace("-", "–")),
            part["accuracy"]["value"],
            part["accuracy"]["low"],
            part["accuracy"]["high"],
            False,
            part["n"],
            f"n = {integer(part['n'])}",
        )
        for part in slices
    ]
    return forest(rows, percent, t("Accuracy by length of text", "按文本长度的准确率"), mark=overall)


def _data_pictures(summary: Mapping[str, Any]) -> dict[str, Markup]:
    return {
        "funnel": funnel(summary),
        "lengths": length_histograms(summary["splits"]),
        "similarity": similarity_histogram(summary["leak"]),
    }
