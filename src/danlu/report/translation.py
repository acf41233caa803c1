"""Translation: the pictures and the advice of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from danlu.report.facts import Facts
from danlu.report.metrics import metrics
from danlu.report.pictures import Row, forest
from danlu.report.slices import length_forest
from danlu.report.task import Advice, Curve, TaskReport
from danlu.report.terms import PLACEHOLDERS
from danlu.report.words import Noun, Text, decimal, integer, percent, signed, t, typed

__all__ = ["TRANSLATION"]

_PROMPT = 60
"""Characters of a source that are typed out."""


def _gain(facts: Facts) -> str:
    return signed(facts.gate["difference"], 1).lstrip("+")


def _pictures(facts: Facts) -> dict[str, Markup]:
    rows = []
    for each in facts.ours.evaluation["placeholders"]:
        name, _ = PLACEHOLDERS[each["kind"]]
        human = _row("", each["reference"], ours=False, beside=None)
        rows.append(_row(name, each["kept"], ours=True, beside=human))
    label = t("Placeholders kept by kind", "各类占位符的保留")
    drawn = {"placeholders": forest(rows, percent, label)} if rows else {}
    return drawn | length_forest(facts, "chrf")


def _row(name: Text | str, measure: Mapping[str, Any], *, ours: bool, beside: Row | None) -> Row:
    n = measure["n"]
    return Row(name, measure["value"], measure["low"], measure["high"], ours, n, f"n = {integer(n)}", beside)


def _more(facts: Facts) -> dict[str, Any]:
    """What the baseline made of the sources that are shown, where the comparison says."""
    against = facts.ours.against or {}
    compared = [*against.get("a_better", []), *against.get("b_better", [])]
    theirs = {example["id"]: example["b"] for example in compared}
    if facts.baseline:
        groups = ("worst", "typical", "lost_placeholders", "slowest")
        shown = [example for group in groups for example in facts.baseline.evaluation[group]]
        theirs |= {example["id"]: example["hypothesis"] for example in shown}
    kept = facts.baseline.evaluation["placeholders"] if facts.baseline else []
    return {"theirs": theirs, "kept_by_baseline": {each["kind"]: each["kept"] for each in kept}}


def _lost_placeholders(facts: Facts) -> Iterator[Advice]:
    evaluation, kept = facts.ours.evaluation, facts.ours.metric("placeholders_kept")
    kinds = evaluation["placeholders"]
    worse = [each for each in kinds if each["kept"]["high"] < each["reference"]["low"]]
    if kept["value"] is None or not worse:
        return
    worst = min(worse, key=lambda each: each["kept"]["value"])
    yield Advice(
        t("Check placeholders before a translation goes into a program", "译文进入程序之前，请检查占位符"),
        t(
            "Of {n} test sentences that have any, {k} keep them all. Worst are {kind}: {p} are kept, "
            "and human translators keep {r}.",
            "在 {n} 条含占位符的测试句子中，全部保留的占 {k}。最差的是{kind}：保留 {p}，而人工译文保留 {r}。",
            n=integer(kept["n"]),
            k=percent(kept["value"]),
            kind=PLACEHOLDERS[worst["kind"]][0],
            p=percent(worst["kept"]["value"]),
            r=percent(worst["reference"]["value"]),
        ),
    )


def _prompt(facts: Facts) -> str:
    sources = [example["source"] for example in facts.ours.evaluation["typical"]]
    return typed(min(sources, key=len, default="..."), _PROMPT)


TRANSLATION = TaskReport(
    page="translation.html",
    card="translation.md",
    noun=Noun("sentence", "sentences", "条", "句子"),
    metrics=metrics("chrf", "bleu", "exact_match", "placeholders_kept"),
    compared=("bleu",),
    better=("The model beats the simple baseline by {d} chrF", "模型的 chrF 比简单基线高 {d}"),
    alone=("The model reaches a chrF of {v}; nothing was compared with it", "模型的 chrF 为 {v}，未与任何模型比较"),
    scored=("The {metric} of {m} on {n} is <b>{v}</b> {ci}", "{m} 在 {n}上的{metric}为 <b>{v}</b> {ci}"),
    answers=t("translates one sentence", "翻译一条句子"),
    once=t("one sentence", "翻译一句"),
    ask=(
        t("Have something translated", "让模型翻译"),
        t("It answers with the likeliest translation.", "它回答最可能的译文。"),
    ),
    gain=_gain,
    curve=Curve(name=t("loss", "损失"), key="loss", sign=-1, write=decimal, best=t("lowest", "最低"), rise=1.05),
    read=t("tokens read", "读过的词元"),
    pictures=_pictures,
    more=_more,
    rules=(_lost_placeholders,),
    prompt=_prompt,
)
