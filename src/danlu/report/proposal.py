"""The page of a proposal: what a new model has learnt from feedback, and whether it is better than the one before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from danlu._version import __version__
from danlu.core.artifact import Artifact
from danlu.report.metrics import METRICS, Metric
from danlu.report.page import render
from danlu.report.pictures import Row, forest
from danlu.report.task import TASKS
from danlu.report.thumbnails import thumbnail
from danlu.report.words import Noun, Text, code, integer, p_value, percent, t

__all__ = ["proposal_page"]

_SETS = {
    "test": t("old test", "原测试集"),
    "gold": t("gold set", "金标集"),
    "traffic": t("new traffic", "新流量"),
}
_EXAMPLES = 3


def proposal_page(facts: Mapping[str, Any], dataset: Artifact, parents: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: The content of ``proposal.json``.
        dataset: What the new model was trained on.
        parents: role -> digest of what the proposal rests on.
    """
    judged = [_judged(role, compared) for role, compared in facts["judged"].items()]
    metric: Metric = METRICS[judged[0]["primary"]]
    rows = [
        Row(_SETS[each["role"]], each["difference"], each["low"], each["high"], each["role"] == "gold", each["n"])
        for each in judged
    ]
    label = t("{what}: new model less old one", "{what}：新模型减旧模型", what=metric.name)
    noun: Noun = TASKS[facts["task"]].noun
    return render(
        "proposal.html",
        facts=facts,
        gate=facts["gate"],
        headline=_headline(facts),
        lead=_lead(facts, judged),
        judged=judged,
        sets=_SETS,
        metric=metric,
        gated=METRICS[facts["gate"]["metric"]],
        differences=forest(rows, metric.delta, label, mark=0.0),
        noun=noun,
        unused=_unused(dataset, facts["feedback"]["dropped"]),
        dataset=dataset,
        parents=parents,
        version=__version__,
    )


def _judged(role: str, compared: Mapping[str, Any]) -> dict[str, Any]:
    """One set that both models answered: the metric that decides, and what changed."""
    (found,) = compared["models"]
    metrics = found["metrics"][compared["primary"]]
    changed = found.get("mcnemar", {})
    return {
        "role": role,
        "primary": compared["primary"],
        "n": found["n"],
        "new": metrics["a"],
        "old": metrics["b"],
        **{name: metrics[name] for name in ("difference", "low", "high")},
        "p": found["metrics"][compared["primary"]]["p_holm"],
        "verdict": found["verdict"],
        "won": changed.get("n_only_a_right"),
        "lost": changed.get("n_only_b_right"),
    }


def _headline(facts: Mapping[str, Any]) -> Text:
    if facts["passed"]:
        return t("A new model is proposed", "提议采用新模型")
    return t("The new model is not proposed: the gate refused", "门禁拒绝：不提议采用新模型")


def _lead(facts: Mapping[str, Any], judged: list[dict[str, Any]]) -> Text:
    """The verdict with the numbers that it rests on."""
    gate, metric = facts["gate"], METRICS[facts["gate"]["metric"]]
    test = next(each for each in judged if each["role"] == "test")
    primary = METRICS[test["primary"]]
    found = t(
        "Learnt from <b>{n}</b> records of feedback. On the gold set ({k} records that no model was trained on) its "
        "{what} is {d} {unit} from the old one’s, {low} to {high}; losing {m} or more is {shown}.",
        "从 <b>{n}</b> 条反馈中学习。在金标集（{k} 条从未用于训练的记录）上，其{what}与旧模型相差 {d} {unit}，"
        "区间 {low} 至 {high}；损失达到 {m} 的可能{shown}。",
        n=integer(facts["feedback"]["n_used"]),
        k=integer(gate["n"]),
        what=metric.name,
        d=metric.delta(gate["difference"]),
        unit=metric.unit,
        low=metric.delta(gate["low"]),
        high=metric.delta(gate["high"]),
        m=metric.delta(gate["margin"]).removeprefix("+"),
        shown=_shown(gate),
    )
    old = t(
        "On the old test: {d} {unit} ({low} to {high}; p {p}).",
        "在原测试集上：{d} {unit}（{low} 至 {high}；p {p}）。",
        d=primary.delta(test["difference"]),
        unit=primary.unit,
        low=primary.delta(test["low"]),
        high=primary.delta(test["high"]),
        p=p_value(test["p"]),
    )
    after = (
        t("It is now {alias}.", "它现在是 {alias}。", alias=code(f"{facts['name']}@challenger"))
        if facts["passed"]
        else t("No alias was moved.", "没有移动任何别名。")
    )
    return t("{found} {old} {after}", "{found}{old}{after}", found=found, old=old, after=after)


def _shown(gate: Mapping[str, Any]) -> Text:
    """What is known of a loss as large as the margin."""
    if gate["passed"]:
        return t("ruled out", "已被排除")
    if gate["high"] < -gate["margin"]:
        return t("as good as certain", "极大")
    return t("not ruled out", "尚不能排除")


def _unused(dataset: Artifact, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Why feedback is not used: each reason with its number, its share and a few records."""
    table = pq.read_table(dataset.path / "dropped.parquet")
    table = table.filter(pc.starts_with(table.column("source"), "feedback/"))
    size = dataset.json("summary.json").get("image_size")
    total = max(sum(counts.values()), 1)
    found = []
    for reason, n in counts.items():
        mine = table.filter(pc.equal(table.column("reason"), reason)).slice(0, _EXAMPLES).to_pylist()
        for row in mine:
            row["picture"] = thumbnail(row["image"], size) if size and row.get("image") is not None else ""
            row["text"] = row.get("text")
            row["answer"] = row.get("target") or row.get("label") or ""
        found.append({"reason": reason, "n": n, "share": percent(n / total), "records": mine})
    return found
