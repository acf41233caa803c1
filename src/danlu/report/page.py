"""Pages: what the templates are given, and how they are filled."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from danlu._version import __version__
from danlu.core.artifact import Artifact
from danlu.core.config import leaves
from danlu.report import terms, words
from danlu.report.advice import advise, commands
from danlu.report.curve_pictures import style_of
from danlu.report.curves import Together
from danlu.report.dropped import dropped_examples
from danlu.report.facts import Facts
from danlu.report.flow import funnel, length_histograms, similarity_histogram
from danlu.report.headline import cost, finding, headline
from danlu.report.kinds import kind_of
from danlu.report.metrics import Metric
from danlu.report.pictures import Row, few_shot_curves, forest, loss_curves, score_curve
from danlu.report.task import TASKS, TaskReport
from danlu.report.thumbnails import pictures_by_class
from danlu.report.words import Text, integer, markdown, t

__all__ = ["curves_page", "data_page", "model_card", "render", "report_page"]

_EXAMPLES_OF_A_REASON = 3
_PICTURES_OF_A_CLASS = 10
_LONGEST_SHOWN = 360
"""Characters of an example; its whole length is told beside it."""


def report_page(facts: Facts) -> str:
    """The report as one page."""
    task: TaskReport = TASKS[facts.task]
    return render(
        task.page,
        **_told(facts, task),
        commands=commands(facts, task),
        pictures=_pictures(facts, task),
        kind=kind_of(facts.dataset.config["columns"]),
        **task.more(facts),
    )


def model_card(facts: Facts) -> str:
    """The model card as Markdown, in English and then in Chinese."""
    task: TaskReport = TASKS[facts.task]
    told = {**_told(facts, task), "reasons": _reasons(facts.summary["dropped"])}
    english = render(task.card, **told, say=lambda text: markdown(text.en))
    chinese = render(task.card, **told, say=lambda text: markdown(text.zh))
    return render("cards.md", facts=facts, english=english, chinese=chinese)


def data_page(dataset: Artifact) -> str:
    """The data card as one page."""
    summary = dataset.json("summary.json")
    image_size, train = summary.get("image_size"), summary["splits"]["train"]
    dropped = dataset.path / "dropped.parquet"
    shown = {}
    if image_size and train["labels"]:
        shown = pictures_by_class(dataset.path / "train.parquet", train["labels"], image_size, _PICTURES_OF_A_CLASS)
    return render(
        "data.html",
        dataset=dataset,
        summary=summary,
        steps=_steps(dataset, summary),
        kind=kind_of(dataset.config["columns"]),
        settings=list(leaves(dataset.config)),
        examples=dropped_examples(dropped, summary["dropped"], _EXAMPLES_OF_A_REASON, image_size),
        shown=shown,
        pictures=_data_pictures(summary),
    )


def curves_page(together: Together) -> str:
    """Training curves over each other as one page."""
    return render(
        "curves.html",
        together=together,
        views=together.views(),
        differences=together.differences(),
        style_of=style_of,
        day=time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        version=__version__,
    )


def _steps(dataset: Artifact, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a data stage, with their speeds where these were kept."""
    speeds = {step["step"]: step for step in dataset.manifest.get("measured", {}).get("steps", [])}
    return [{**step, **speeds.get(step["step"], {})} for step in summary["steps"]]


def _told(facts: Facts, task: TaskReport) -> dict[str, Any]:
    """What the page and the card both tell."""
    return {
        "facts": facts,
        "task": task,
        "metric": task.metrics[facts.primary],
        "headline": headline(facts, task),
        "finding": finding(facts, task),
        "cost": cost(facts, task),
        "advice": advise(facts, task),
    }


def _reasons(dropped: Mapping[str, int]) -> Text:
    """How many records were dropped for each reason, in a line."""
    if not dropped:
        return t("none", "无")
    listed = [
        t("{n} {reason}", "{reason} {n}", n=integer(n), reason=terms.REASONS.get(name) or words.marked(name))
        for name, n in dropped.items()
    ]
    return Text(Markup("; ").join(text.en for text in listed), Markup("；").join(text.zh for text in listed))


def render(template: str, **values: Any) -> str:
    """A template, filled."""
    return str(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    """The templates, each compiled once."""
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
    return environment


def _excerpt(text: str, n_chars: int = _LONGEST_SHOWN) -> str:
    """The beginning of a text, in one paragraph."""
    joined = " ".join(text.split())
    return joined if len(joined) <= n_chars else f"{joined[:n_chars]}…"


def _pictures(facts: Facts, task: TaskReport) -> dict[str, Markup]:
    metric = task.metrics[facts.primary]
    found = {"scores": _scores(facts, metric), **task.pictures(facts), **_data_pictures(facts.summary)}
    if compared := [model for model in facts.models if model.against is not None]:
        rows = [_difference(model.label, model.against or {}, facts.primary, ours=model.ours) for model in compared]
        found["differences"] = forest(rows, metric.delta, t("Difference from the baseline", "与基线之差"), mark=0.0)
    if trained := facts.trained:
        best_step, curve = trained.training["best_step"], task.curve
        found["loss"] = loss_curves(trained.curve, best_step)
        if curve.key != "loss":
            baseline = None if facts.baseline is None else curve.of(facts.baseline.training["best_score"])
            label = t("Validation {what} over steps", "验证集{what}随步数的变化", what=curve.name)
            found["score"] = score_curve(trained.curve, curve.key, curve.write, best_step, baseline, label)
    if facts.few_shot:
        label = t("{what} by examples of each class", "{what}随每类样本数的变化", what=metric.name)
        found["few_shot"] = few_shot_curves(facts.few_shot, metric.write, label)
    return found


def _scores(facts: Facts, metric: Metric) -> Markup:
    rows = []
    for model in facts.models:
        found = model.metric(facts.primary)
        rows.append(Row(model.label, found["value"], found["low"], found["high"], model.ours, found["n"]))
    return forest(rows, metric.write, t("{what} of every model", "各模型的{what}", what=metric.name))


def _difference(label: str, against: Mapping[str, Any], primary: str, *, ours: bool) -> Row:
    """The difference from the baseline as a value with its interval."""
    found = against["metrics"][primary]
    return Row(label, found["difference"], found["low"], found["high"], ours, against["n"])


def _data_pictures(summary: Mapping[str, Any]) -> dict[str, Markup]:
    found = {"funnel": funnel(summary)}
    if "histogram" in summary["splits"]["train"]:
        found["lengths"] = length_histograms(summary["splits"])
    if "histogram" in summary["leak"]:
        found["similarity"] = similarity_histogram(summary["leak"])
    return found
