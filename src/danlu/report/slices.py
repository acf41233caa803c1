"""Scores by the length of a text, the model's above the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from danlu.report.facts import Facts, ModelFacts
from danlu.report.metrics import METRICS
from danlu.report.pictures import Row, forest
from danlu.report.words import Text, integer, t

__all__ = ["length_forest", "length_slices", "span"]


def length_slices(model: ModelFacts) -> list[dict[str, Any]]:
    """The slices by length; records without a length have none."""
    found: list[dict[str, Any]] = model.evaluation.get("slices", {}).get("n_chars", [])
    return found


def span(part: Mapping[str, Any]) -> str:
    """The lengths of a slice: ``12–35``, or ``12`` where all are."""
    low, _, high = part["name"].partition("-")
    return low if low == high else f"{low}–{high}"


def length_forest(facts: Facts, metric: str) -> dict[str, Markup]:
    """A metric of each slice, the model's above the baseline's, under the name ``slices``; nothing without slices."""
    others = {part["name"]: part for part in (length_slices(facts.baseline) if facts.baseline else ())}
    rows = []
    for part in length_slices(facts.ours):
        name = t("{name} chars", "{name} 字符", name=span(part))
        row = _row(name, part, metric, ours=True)
        other = others.get(part["name"])
        rows.append(row if other is None else replace(row, beside=_row("", other, metric, ours=False)))
    if not rows:
        return {}
    label = t("{metric} by length of text", "按文本长度的{metric}", metric=METRICS[metric].name)
    return {"slices": forest(rows, METRICS[metric].write, label, mark=facts.ours.metric(metric)["value"])}


def _row(name: Text | str, part: Mapping[str, Any], metric: str, *, ours: bool) -> Row:
    found = part[metric]
    return Row(name, found["value"], found["low"], found["high"], ours, part["n"], f"n = {integer(part['n'])}")
