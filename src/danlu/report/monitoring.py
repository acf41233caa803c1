"""The page about a watch: has traffic changed, in what, since when, and what cannot be seen from here."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial, reduce
from typing import Any

from danlu._version import __version__
from danlu.core.artifact import Artifact, environment
from danlu.core.files import digest_of, write_atomic, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.report.monitoring_pictures import MOST, Write, accuracy_picture, signal_picture
from danlu.report.page import render
from danlu.report.words import Text, code, decimal, duration, exact_p, integer, percent, t

__all__ = ["SIGNALS", "monitoring_page", "write_monitoring"]

SIGNALS = {
    "length": t("length in characters", "文本长度（字符）"),
    "unknown": t("unknown tokens", "未知词元"),
    "characters": t("characters", "字符构成"),
    "brightness": t("brightness", "亮度"),
    "contrast": t("contrast", "对比度"),
    "embedding": t("content (embedding)", "内容（嵌入向量）"),
    "classes": t("classes answered", "回答的类别"),
    "confidence": t("confidence", "置信度"),
    "accuracy": t("drop of the estimated accuracy", "估计准确率的下降"),
    "written": t("tokens written", "生成的词元数"),
    "logprob": t("log-probability of what is written", "生成内容的对数概率"),
    "latency": t("latency (95th percentile)", "延迟（第 95 百分位）"),
    "failures": t("failed requests", "失败的请求"),
}
_MEASURES = {
    "length": t("Kolmogorov–Smirnov distance", "Kolmogorov–Smirnov 距离"),
    "characters": t("population stability index of the most frequent characters", "最常见字符的群体稳定性指数（PSI）"),
    "embedding": t(
        "squared maximum mean discrepancy of what the head sees", "输出层所见向量的最大均值差异平方（MMD²）"
    ),
    "classes": t("population stability index", "群体稳定性指数（PSI）"),
    "accuracy": t("points below the reference, estimated from confidence", "低于参照的幅度，由置信度估计"),
    "latency": t("seconds within which 95 of 100 answers come", "每 100 次回答中 95 次所需的秒数"),
    "failures": t("share of requests that the server failed to answer", "服务器未能回答的请求比例"),
}
_SERVICE = ("latency", "failures")


def _seconds(value: float) -> str:
    return duration(value) if value >= 1 else f"{1000 * value:.3g} ms"


_WRITE: dict[str, Write] = {
    "latency": _seconds,
    "failures": partial(percent, digits=1),
    "accuracy": lambda value: percent(value, 1).replace("-", "−"),
}


def write_monitoring(
    workspace: Workspace, facts: Mapping[str, Any], *, parents: Mapping[str, str], progress: Progress
) -> Artifact:
    """Write how a watch stands.

    Args:
        workspace: Where the artifact goes.
        facts: See :mod:`danlu.monitoring`.
        parents: The model and, where there is one, its reference.
        progress: Told that it begins.

    Returns:
        An artifact of kind ``monitoring`` with ``monitoring.json`` and ``monitoring.html``. The same facts give the
        same bytes.
    """
    progress.stage("monitoring page")
    key = digest_of({"parents": dict(parents), "facts": dict(facts)})
    config = {"watch": facts["watch"]}
    with workspace.create("monitoring", str(facts["name"]), key=key, config=config, parents=parents) as draft:
        write_json(draft.folder / "monitoring.json", facts)
        write_atomic(draft.folder / "monitoring.html", monitoring_page(facts, parents).encode())
    return draft.artifact


def monitoring_page(facts: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: The content of ``monitoring.json``.
        parents: role -> digest of what was compared.
    """
    series = facts["series"]
    shown = [
        _shown(signal, series[kind], facts) for kind in ("content", "service") for signal in series[kind]["signals"]
    ]
    accuracy = facts["accuracy"]
    latest = accuracy["series"][-1] if accuracy and accuracy["series"] else None
    return render(
        "monitoring.html",
        facts=facts,
        content=series["content"],
        service=series["service"],
        shown=shown,
        headline=_headline(facts),
        sentence=_sentence(facts),
        latest=latest,
        accuracy=accuracy,
        accuracy_picture=accuracy_picture(accuracy) if latest else None,
        names=SIGNALS,
        write_of=lambda name: _WRITE.get(name, decimal),
        moment=_moment,
        span=_span(facts),
        most=MOST,
        parents=parents,
        manifest={"environment": environment()},
        version=__version__,
    )


def _shown(signal: Mapping[str, Any], series: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A signal with its picture, and what is said of it."""
    name = signal["signal"]
    write = _WRITE.get(name, decimal)
    n_signals = len(series["signals"])
    threshold = -math.log10(facts["watch"]["level"] * series["part"] / n_signals)
    if not signal["effects"]:
        said = t("No window is complete yet.", "尚无完整的窗口。")
    elif signal["p_adjusted"] is None:
        said = t(
            "Not watched yet: the reference is the first live windows, and {n} are still to come.",
            "尚未监测：以最初的线上窗口为参照，还差 {n} 个。",
            n=integer(series["n_missing"]),
        )
    else:
        said = t(
            "Last {v}, usual {u}; p = {p}.",
            "最近 {v}，通常 {u}；p = {p}。",
            v=write(signal["effects"][-1]),
            u=write(signal["usual"]),
            p=exact_p(signal["p_adjusted"]),
        )
    if signal["p_adjusted"] is not None and signal["p_adjusted"] <= facts["watch"]["level"] and not signal["alarm_at"]:
        said = t(
            "{said} That something changed is shown; but no window since then was far enough from the usual.",
            "{said}已证实有变化，但此后没有窗口偏离到值得报警的幅度。",
            said=said,
        )
    if signal["alarm_at"]:
        said = t(
            "<b>Alarm at window {k}.</b> {said}", "<b>第 {k} 个窗口报警。</b>{said}", k=signal["alarm_at"], said=said
        )
    return {
        **signal,
        "name": SIGNALS[name],
        "measure": _MEASURES.get(name, _MEASURES["length"]),
        "said": said,
        "picture": signal_picture(signal, threshold, write, SIGNALS[name]) if signal["effects"] else None,
    }


def _headline(facts: Mapping[str, Any]) -> Text:
    if alerts := facts["alerts"]:
        named = [SIGNALS[alert["signal"]] for alert in alerts[:3]]
        listed = reduce(lambda a, b: t("{a}, {b}", "{a}、{b}", a=a, b=b), named)
        more = t(" and {n} more", "等 {n} 项", n=len(alerts) - 3) if len(alerts) > 3 else t("", "")
        return t("Alarm: {what}{more}", "报警：{what}{more}", what=listed, more=more)
    content, service = facts["series"]["content"], facts["series"]["service"]
    if not any(signal["p_adjusted"] is not None for each in (content, service) for signal in each["signals"]):
        return t("Not enough requests yet", "请求数量尚不足")
    return t("No alarm", "未见异常")


def _sentence(facts: Mapping[str, Any]) -> Text:
    """What it comes to, in a sentence or two."""
    content, watch = facts["series"]["content"], facts["watch"]
    looked = t(
        "{n} requests were looked at, in windows of {w}.",
        "共查看 {n} 次请求，每个窗口 {w} 条。",
        n=integer(facts["n_requests"]),
        w=integer(watch["window"]),
    )
    rate = t(
        "If nothing changed, the chance that this watch ever raises an alarm, in its whole life and however often it "
        "is looked at, would be {p} at most.",
        "如果什么都没有变化，那么在整个监测期内，无论查看多少次，发出任何误报的概率至多为 {p}。",
        p=percent(watch["level"], 0 if watch["level"] >= 0.01 else 2),
    )
    if facts["alerts"]:
        first = facts["alerts"][0]
        values = {"name": code(facts["name"]), "what": SIGNALS[first["signal"]], "k": integer(first["window"])}
        if first["signal"] in _SERVICE:
            return t(
                "{name} does not answer as it did at first: {what}, at window {k}. {rate} {looked}",
                "{name} 的响应已不同于最初：{what}，在第 {k} 个窗口。{rate}{looked}",
                **values,
                rate=rate,
                looked=looked,
            )
        return t(
            "What is asked of {name} is no longer like its reference: {what} first, at window {k}. {rate} {looked}",
            "向 {name} 提出的请求已不同于参照：最早是{what}，在第 {k} 个窗口。{rate}{looked}",
            **values,
            rate=rate,
            looked=looked,
        )
    if content["n_missing"]:
        return t(
            "A model that writes is compared with its own first requests, for test texts are no prompts: {n} more "
            "windows are to come before anything can be said. {looked}",
            "生成模型以自身最初的请求为参照，因为测试文本不是提示：还需 {n} 个窗口才能作出判断。{looked}",
            n=integer(content["n_missing"]),
            looked=looked,
        )
    if not content["n_windows"]:
        return t(
            "No window of what was asked is complete yet. {looked}", "请求内容尚未凑满一个窗口。{looked}", looked=looked
        )
    return t(
        "What is asked of {name} is not shown to differ from its reference. {rate} {looked}",
        "没有迹象表明向 {name} 提出的请求不同于参照。{rate}{looked}",
        name=code(facts["name"]),
        rate=rate,
        looked=looked,
    )


def _span(facts: Mapping[str, Any]) -> str:
    """From when to when."""
    if not facts["span"]:
        return "–"
    return " – ".join(_moment(at) for at in facts["span"])


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
