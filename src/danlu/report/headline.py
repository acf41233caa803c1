"""The result in plain words."""

from __future__ import annotations

from danlu.report.facts import Facts
from danlu.report.task import TaskReport
from danlu.report.words import Text, code, duration, integer, interval, milliseconds, p_value, percent, short, t

__all__ = ["cost", "finding", "headline"]


def headline(facts: Facts, task: TaskReport) -> Text:
    """One line: is it better than the simple baseline?"""
    if facts.ours.against is None:
        return t(*task.alone, v=task.metrics[facts.primary].write(facts.ours.metric(facts.primary)["value"]))
    if facts.gate["passed"]:
        return t(*task.better, d=task.gain(facts))
    if facts.ours.against["verdict"] == "worse":
        return t("The model is worse than the simple baseline", "模型不如简单基线")
    return t("The model is not shown to be better than the simple baseline", "尚不能证明模型优于简单基线")


def finding(facts: Facts, task: TaskReport) -> Text:
    """The same with every number that it rests on, and what the gate did."""
    ours, gate, metric = facts.ours.metric(facts.primary), facts.gate, task.metrics[facts.primary]
    first = t(
        *task.scored,
        metric=metric.name,
        m=code(facts.ours.label),
        n=task.noun.tested(ours["n"]),
        v=metric.write(ours["value"]),
        ci=interval(ours["low"], ours["high"], metric.write),
    )
    if facts.ours.against is None or facts.baseline is None:
        return t("{first}.", "{first}。", first=first)
    theirs = facts.baseline.metric(facts.primary)
    verdict = t(
        "The gate let it pass: it is now {alias}.", "门禁放行：它现在是 {alias}。", alias=code(facts.alias)
    ) if gate["passed"] else t(
        "<b>The gate refused</b>, so nothing was promoted; the model is kept as {alias}.",
        "<b>门禁拒绝放行</b>，没有晋升任何模型；该模型保留为 {alias}。",
        alias=code(facts.alias),
    )  # fmt: skip
    return t(
        "{first}, against {b} {bci} for {base}: a difference of <b>{d} {unit}</b> "
        "({c} interval {low} to {high}; p {p}, paired test). {verdict}",
        "{first}，{base} 为 {b} {bci}：相差 <b>{d} {unit}</b>（{c} 区间 {low} 至 {high}；配对检验 p {p}）。{verdict}",
        first=first,
        b=metric.write(theirs["value"]),
        bci=interval(theirs["low"], theirs["high"], metric.write),
        base=code(facts.baseline.label),
        d=metric.delta(gate["difference"]),
        unit=metric.unit,
        low=metric.delta(gate["low"]),
        high=metric.delta(gate["high"]),
        p=p_value(gate["p"]),
        c=percent(facts.ours.evaluation["confidence"], 0),
        verdict=verdict,
    )


def cost(facts: Facts, task: TaskReport) -> Text:
    """What the model costs to train and to ask."""
    training, alone = facts.ours.training, facts.ours.evaluation["alone_ms"]
    return t(
        "It has {p} parameters, was trained in {s}, and {answers} in {ms} (median of {n}).",
        "它有 {p} 个参数，训练用时 {s}，{answers}需 {ms}（{n} 次的中位数）。",
        p=short(training["n_parameters"]),
        s=duration(training["seconds"]),
        answers=task.answers,
        ms=milliseconds(alone["p50"]),
        n=integer(alone["n"]),
    )
