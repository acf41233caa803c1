"""Classification of texts and of pictures: the pictures and the advice of its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from markupsafe import Markup

from danlu.report.facts import Facts
from danlu.report.kinds import PICTURE, TEXT
from danlu.report.metrics import metrics
from danlu.report.pictures import MANY_CLASSES, confusion, reliability
from danlu.report.slices import length_forest, length_slices, span
from danlu.report.task import Advice, Curve, TaskReport
from danlu.report.words import Noun, decimal, integer, marked, percent, points, t, typed

__all__ = ["PICTURES", "TEXTS"]

_SURE = 0.9
"""Confidence from which a mistake is worth reading: the label may be the mistake."""
_UNEQUAL = 4.0
"""Times that the largest class is as large as the smallest."""
_LISTED = 10
"""The most frequent confusions that are named where there are many classes."""


def _mistakes(facts: Facts) -> dict[str, Markup]:
    evaluation = facts.ours.evaluation
    return {
        "confusion": confusion(evaluation["confusion"], evaluation["class_names"]),
        "reliability": reliability(evaluation["calibration"]["bins"]),
    }


def _more(facts: Facts) -> dict[str, Any]:
    matrix, names = facts.ours.evaluation["confusion"], facts.ours.evaluation["class_names"]
    pairs = [
        {"label": names[row], "predicted": names[column], "n": count, "total": sum(counts)}
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    worst = sorted(pairs, key=lambda pair: -pair["n"])[:_LISTED] if len(names) >= MANY_CLASSES else []
    return {"right": sum(row[index] for index, row in enumerate(matrix)), "confused": worst}


def _shown_pictures(facts: Facts) -> dict[str, Any]:
    """The wrong answers first, the surest of them first; then right ones, the least sure of them first."""
    evaluation = facts.ours.evaluation
    wrong = evaluation["most_confident_wrong"]
    ids = {record["id"] for record in wrong}
    others = sorted(
        (record for record in evaluation["slowest"] if record["id"] not in ids),
        key=lambda record: (record["predicted"] == record["label"], record["confidence"]),
    )
    return {**_more(facts), "wrong": wrong, "others": others}


def _calibrated(facts: Facts) -> Iterator[Advice]:
    ours = facts.ours
    calibration, error = ours.evaluation["calibration"], ours.metric("ece")
    accuracy = ours.metric("accuracy")["value"]
    if calibration["p_calibrated"] >= 1 - ours.evaluation["confidence"] or error["value"] < 0.02:
        return
    over = calibration["mean_confidence"] > accuracy
    how = t("too sure of itself", "过于自信") if over else t("not sure enough of itself", "不够自信")
    yield Advice(
        t("Do not read its confidence as a probability", "不要把它的置信度当作概率"),
        t(
            "It is {how}: {c} sure on average and right in {a} of cases (calibration error {e}). "
            "Set thresholds by the reliability diagram, not by the number itself.",
            "它{how}：平均置信度 {c}，实际答对 {a}（校准误差 {e}）。请按可靠性图设定阈值，不要直接按数值。",
            how=how,
            c=percent(calibration["mean_confidence"]),
            a=percent(accuracy),
            e=decimal(error["value"]),
        ),
    )


def _sure_mistakes(facts: Facts) -> Iterator[Advice]:
    shown = facts.ours.evaluation["most_confident_wrong"]
    n_sure = sum(example["confidence"] >= _SURE for example in shown)
    if n_sure < 3:
        return
    yield Advice(
        t("Look at the surest mistakes: some may be wrong labels", "看一看最确信的错误：有些可能是标签错了"),
        t(
            "{k} of the {n} surest mistakes listed here were made with at least {s} confidence. "
            "A wrong label in the test split lowers every model's score alike.",
            "此处列出的 {n} 个最确信的错误中，有 {k} 个置信度不低于 {s}。测试集中的错误标签会同样拉低每个模型的分数。",
            k=integer(n_sure),
            n=integer(len(shown)),
            s=percent(_SURE, 0),
        ),
    )


def _weak_slice(facts: Facts) -> Iterator[Advice]:
    accuracy = facts.ours.metric("accuracy")
    weak = [part for part in length_slices(facts.ours) if _below(part, accuracy["low"])]
    if not weak:
        return
    worst = min(weak, key=lambda part: part["accuracy"]["value"])
    yield Advice(
        t("Collect more texts of {name} characters", "补充 {name} 个字符的文本", name=span(worst)),
        t(
            "There it is right in {a} of {n} test texts, against {all} overall; the intervals do not touch.",
            "这一段 {n} 条测试文本的准确率为 {a}，总体为 {all}；两个区间不相交。",
            a=percent(worst["accuracy"]["value"]),
            n=integer(worst["n"]),
            all=percent(accuracy["value"]),
        ),
    )


def _below(part: Mapping[str, Any], low: float) -> bool:
    high = part["accuracy"]["high"]
    return high is not None and high < low


def _balanced_for(noun: Noun, facts: Facts) -> Iterator[Advice]:
    labels = facts.summary["splits"]["train"]["labels"]
    small, large = min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)
    if labels[large] < _UNEQUAL * labels[small]:
        return
    yield Advice(
        t("Bring more {x} of the class {c}", "补充类别 {c} 的{x}", x=noun.many, c=marked(small)),
        t(
            "It has {s} training {x}, and {l} has {k}. Watch its recall and macro F1, not accuracy.",
            "它只有 {s} {counter}训练{x}，而 {l} 有 {k} {counter}。请看它的召回率与宏平均 F1，不要只看准确率。",
            s=integer(labels[small]),
            l=marked(large),
            k=integer(labels[large]),
            x=noun.many,
            counter=noun.counter,
        ),
    )


def _prompt(facts: Facts) -> str:
    shown = [*facts.ours.evaluation["most_confident_wrong"], *facts.ours.evaluation["slowest"]]
    return typed(min((example["text"] for example in shown), key=len, default="..."))


def _gain(facts: Facts) -> str:
    return points(facts.gate["difference"]).lstrip("+")


TEXTS = TaskReport(
    page="classification.html",
    card="classification.md",
    noun=TEXT,
    metrics=metrics("macro_f1", "accuracy", "auroc", "ece"),
    better=("The model beats the simple baseline by {d} points", "模型比简单基线高 {d} 个百分点"),
    alone=(
        "The model reaches a macro F1 of {v}; nothing was compared with it",
        "模型的宏平均 F1 为 {v}，未与任何模型比较",
    ),
    scored=("The {metric} of {m} on {n} is <b>{v}</b> {ci}", "{m} 在 {n}上的{metric}为 <b>{v}</b> {ci}"),
    answers=t("answers one text", "回答一条文本"),
    once=t("one answer", "回答一条"),
    ask=(
        t("Ask the model", "向模型提问"),
        t("The answer comes with the probability of every class.", "回答附带每个类别的概率。"),
    ),
    gain=_gain,
    curve=Curve(name=t("macro F1", "宏平均 F1"), key="score", sign=1, write=percent, best=t("best", "最高")),
    read=t("tokens read", "读过的词元"),
    pictures=lambda facts: _mistakes(facts) | length_forest(facts, "accuracy"),
    more=_more,
    rules=(_calibrated, _sure_mistakes, _weak_slice, partial(_balanced_for, TEXT)),
    prompt=_prompt,
)

PICTURES = replace(
    TEXTS,
    page="image-classification.html",
    noun=PICTURE,
    answers=t("names one picture", "识别一张图片"),
    once=t("one picture", "识别一张"),
    ask=(t("Show it a picture", "让模型看一张图"), TEXTS.ask[1]),
    read=t("pictures read", "读过的图片"),
    pictures=_mistakes,
    more=_shown_pictures,
    rules=(_calibrated, _sure_mistakes, partial(_balanced_for, PICTURE)),
    prompt=lambda _facts: "picture.png",
)
