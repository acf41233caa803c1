"""What the loop showed: a table, ``outcome.json``, and a page in English and Chinese."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["table", "write_outcome"]

_Rows = list[tuple[str, str, str]]


def table(facts: Mapping[str, Any]) -> str:
    """What happened, a line a finding."""
    rows = _rows(facts)
    wide = max(len(row[0]) for row in rows)
    return "\n".join(f"{english:{wide}}  {value}" for english, _, value in rows)


def write_outcome(into: Path, facts: Mapping[str, Any]) -> None:
    """Write the outcome and its page."""
    into.mkdir(parents=True, exist_ok=True)
    told = json.dumps(facts, indent=1, ensure_ascii=False)
    (into / "outcome.json").write_text(told + "\n", encoding="utf-8")
    (into / "README.md").write_text(_page(facts), encoding="utf-8")


def _rows(facts: Mapping[str, Any]) -> _Rows:
    """What it is in English, in Chinese, and the finding."""
    quiet, shift, said, new = (facts[key] for key in ("quiet", "shift", "feedback", "improve"))
    trial, again, gate = facts["trial"], facts["again"], facts["improve"]["gate"]
    signals = ", ".join(each["signal"] for each in shift["signals"])
    difference = f"{trial['difference']:+.3f} ({trial['low']:+.3f} – {trial['high']:+.3f})"
    smallest = min(each["p_adjusted"] for each in shift["signals"])
    rows = [
        ("left out of training", "训练时留出", f"{facts['train']['n_left_out']:,} / {facts['train']['n_pool']:,}"),
        ("champion, unseen texts", "冠军模型，未见过的文本", _share(facts["held_out"])),
        ("before the shift", "漂移之前", f"{quiet['n_windows']} x {quiet['window']}, p ≥ {quiet['smallest_p']:.2g}"),
        ("champion, shifted texts", "冠军模型，漂移后的文本", _share(shift)),
        ("alarm after", "告警时间", f"{shift['requests_to_alarm']} requests, {shift['windows_to_alarm']} windows"),
        ("alarm about", "告警信号", f"{signals}; p = {smallest:.2g}"),
        ("feedback", "反馈", f"{said['by_users']:,} users', {said['labelled']} labelled, {said['lies']} lies"),
        ("learnt from", "用于学习", f"{new['n_used']:,} of {said['n']:,}"),
        ("lies that came through", "混入的虚假反馈", f"{new['lies']['n_used']} of {new['lies']['n']}"),
        ("not used", "未采用", ", ".join(f"{why} {n}" for why, n in new["dropped"].items())),
        ("gold set, new - old", "金标准集，新减旧", _difference(gate)),
    ]
    for role, judged in new["judged"].items():
        names = {"test": ("old test split", "原测试集"), "traffic": ("labelled traffic", "标注的流量")}
        english, chinese = names.get(role, ("gold set", "金标准集"))
        told = f"{judged['old']:.3f} → {judged['new']:.3f}, {_difference(judged)}"
        rows.append((f"{english}, {judged['metric']}", f"{chinese}，{judged['metric']}", told))
    rows += [
        ("A/B on users", "用户 A/B 试验", f"{difference}, n = {trial['n']:,}: {trial['decision']}"),
        ("A/B, champion's users", "试验中冠军的用户", _share(trial["champion"])),
        ("A/B, challenger's users", "试验中挑战者的用户", _share(trial["challenger"])),
        ("swap", "切换", f"{facts['promote']['seconds']:.1f} s, {facts['promote']['n_during']} requests meanwhile"),
        ("new champion, shifted texts", "新冠军，漂移后的文本", _share(again)),
        ("new champion, alarms", "新冠军的告警", ", ".join(again["alarms"]) or "–"),
        ("its record", "其溯源记录", ", ".join(f"{mark} {n}" for mark, n in again["verify"].items())),
        ("failed requests", "失败的请求", f"{facts['requests']['failed']} of {facts['requests']['n']:,}"),
        ("minutes", "分钟", f"{facts['seconds']['all'] / 60:.1f}"),
    ]
    return rows


def _share(found: Mapping[str, Any]) -> str:
    if not found["n"]:
        return "–"
    return f"{found['accuracy']:.1%} ({found['low']:.1%} – {found['high']:.1%}), n = {found['n']:,}"


def _difference(found: Mapping[str, Any]) -> str:
    p = "" if found["p"] is None else f", p = {found['p']:.2g}"
    return f"{found['difference']:+.4f} ({found['low']:+.4f} – {found['high']:+.4f}), n = {found['n']:,}{p}"


def _page(facts: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {english} | {chinese} | {value} |" for english, chinese, value in _rows(facts))
    pictures = "\n\n".join(f"![{Path(file).stem}]({file})" for file in facts["pictures"])
    trial = facts["trial"]
    return f"""# The loop · 闭环

What `make loop` showed: a champion that learnt from reviews of hotels is served and watched; books come, in traditional
characters and with typos; the alarm; corrections, and one user who lies; a new model; an A/B on users (margin
{trial["margin"]:g}, budget {trial["budget"]:,}, written down before); the promotion while requests go on; back, and
forth again. Intervals: 95%, those of the A/B at all times together. How: `bench/loop.py`; the numbers:
[outcome.json](outcome.json). A champion that learnt from feedback is watched against its own first windows, for its
traffic is what it was made for and its test split is older.

`make loop` 的结果：冠军模型只学过酒店评论，上线并受到监控；随后到来的是图书评论，
繁体字，带错别字；触发告警；用户纠正答案，其中一人说谎；训练新模型；用户 A/B 试验
（界限 {trial["margin"]:g}，预算 {trial["budget"]:,}，均事先登记）；在请求不断的情况下晋升；再回退、再恢复。
区间为 95%，A/B 的区间在所有时刻同时成立。方法见 `bench/loop.py`，数据见
[outcome.json](outcome.json)。从反馈中学习得来的冠军以自己最初的若干窗口为参照：它正是为这样的请求训练的，而测试集更旧。

| | | |
|---|---|---|
{rows}

{pictures}
"""
