"""The result in plain words."""

from __future__ import annotations

from danlu.report.facts import Facts
from danlu.report.words import Text, code, duration, integer, interval, milliseconds, p_value, percent, points, short, t

__all__ = ["cost", "finding", "headline"]


def headline(facts: Facts) -> Text:
    """One line: is it better than the simple baseline?"""
    gate = facts.gate
    if facts.ours.against is None:
        value = percent(facts.ours.metric("macro_f1")["value"])
        return t(
            "The model reaches a macro F1 of {v}; nothing was compared with it",
            "模型的宏平均 F1 为 {v}，未与任何模型比较",
            v=value,
        )
    if gate["passed"]:
        gain = points(gate["difference"]).lstrip("+")
        return t("The model beats the simple baseline by {d} points", "模型比简单基线高 {d} 个百分点", d=gain)
    if facts.ours.against["verdict"] == "worse":
        return t("The model is worse than the simple baseline", "模型不如简单基线")
    return t("The model is not shown to be better than the simple baseline", "尚不能证明模型优于简单基线")


def finding(facts: Facts) -> Text:
    """The same with every number that it rests on, and what the gate did."""
    ours, gate = facts.ours.metric("macro_f1"), facts.gate
    first = t(
        "The macro F1 of {m} on {n} test texts is <b>{v}</b> {ci}",
        "{m} 在 {n} 条测试文本上的宏平均 F1 为 <b>{v}</b> {ci}",
        m=code(facts.ours.label),
        n=integer(ours["n"]),
        v=percent(ours["value"]),
        ci=interval(ours["low"], ours["high"]),
    )
    if facts.ours.against is None or facts.baseline is None:
        return t("{first}.", "{first}。", first=first)
    theirs = facts.baseline.metric("macro_f1")
    verdict = t(
        "The gate let it pass: it is now {alias}.", "门禁放行：它现在是 {alias}。", alias=code(facts.alias)
    ) if gate["passed"] else t(
        "<b>The gate refused</b>, so nothing was promoted; the model is kept as {alias}.",
        "<b>门禁拒绝放行</b>，没有晋升任何模型；该模型保留为 {alias}。",
        alias=code(facts.alias),
    )  # fmt: skip
    return t(
        "{first}, against {b} {bci} for {base}: a difference of <b>{d} points</b> "
        "({c} interval {low} to {high}; p {p}, paired test). {verdict}",
        "{first}，{base} 为 {b} {bci}：相差 <b>{d} 个百分点</b>（{c} 区间 {low} 至 {high}；配对检验 p {p}）。{verdict}",
        first=first,
        b=percent(theirs["value"]),
        bci=interval(theirs["low"], theirs["high"]),
        base=code(facts.baseline.label),
        d=points(gate["difference"]),
        low=points(gate["low"]),
        high=points(gate["high"]),
        p=p_value(gate["p"]),
        c=percent(facts.ours.evaluation["confidence"], 0),
        verdict=verdict,
    )


def cost(facts: Facts) -> Text:
    """What the model costs to train and to ask."""
    training, alone = facts.ours.training, facts.ours.evaluation["alone_ms"]
    return t(
        "It has {p} parameters, was trained in {s}, and answers one text in {ms} (median of {n}).",
        "它有 {p} 个参数，训练用时 {s}，回答一条文本需 {ms}（{n} 次的中位数）。",
        p=short(training["n_parameters"]),
        s=duration(training["seconds"]),
        ms=milliseconds(alone["p50"]),
        n=integer(alone["n"]),
    )
