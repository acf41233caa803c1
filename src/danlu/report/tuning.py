"""The page about a search: what the best values are, how they were found, and how far to believe them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from danlu._version import __version__
from danlu.core.artifact import environment
from danlu.report.page import render
from danlu.report.task import TASKS, Curve
from danlu.report.tuning_pictures import Dot, against_value, importance_bars, score_by_trial, trial_curves
from danlu.report.words import Text, t

__all__ = ["shown", "tuning_page"]


def tuning_page(facts: Mapping[str, Any], parents: Mapping[str, str], commitments: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: The content of ``trials.json``.
        parents: role -> digest of what the search was made from.
        commitments: Those of its seeds.
    """
    curve: Curve = TASKS[facts["task"]].curve
    trained = [trial for trial in facts["trials"] if trial["same_as"] is None and trial["n_steps"]]
    planned = sum(trial["n_steps"] for trial in trained)
    own = next((trial for trial in facts["trials"] if trial["number"] == facts["own"]["trial"]), None)
    own_score = own["score"] if own and own["state"] == "complete" else None
    return render(
        "tune.html",
        facts=facts,
        curve=curve,
        own=own,
        own_score=own_score,
        lead=_lead(facts, curve, own_score),
        spared=1 - sum(trial["curve"][-1][0] for trial in trained) / planned if planned else 0.0,
        pictures=_pictures(facts, curve),
        ranges={key: _range(dimension) for key, dimension in facts["space"].items()},
        shown=shown,
        words=" ".join(shlex.quote(word) for word in facts["words"]),
        parents=parents,
        commitments=commitments,
        manifest={"environment": environment() | {"optuna": facts["optuna"]}},
        version=__version__,
    )


def _lead(facts: Mapping[str, Any], curve: Curve, own_score: float | None) -> Text:
    """What the search gained, and what to make of it."""
    best, own = facts["best"], facts["own"]["trial"]
    if own == best["trial"]:
        gained = t("No trial did better than the recipe’s own values.", "没有一次试验优于配方原有的取值。")
    elif own_score is not None:
        before, after = (curve.write(curve.of(score)) for score in (own_score, best["score"]))
        gained = t(
            "The recipe’s own values came to {before}, trial {k} came to {after}.",
            "配方原有取值为 {before}，第 {k} 次试验为 {after}。",
            before=before,
            after=after,
            k=best["trial"],
        )
    elif own is not None:
        gained = t("The training with the recipe’s own values failed.", "用配方原有取值的训练失败了。")
    else:
        gained = t(
            "The recipe’s own values were not tried: the space does not hold them.",
            "没有试验配方原有的取值：它们不在搜索空间之内。",
        )
    return t(
        "{gained} <b>The best of many scores on one validation split is optimistic</b>: a part of the gain is luck. "
        "The test split had no part in the search; only a model trained with these values and judged there tells what "
        "they are worth.",
        "{gained}<b>同一验证集上多次得分中的最佳值偏乐观</b>：提升中有一部分只是运气。测试集没有参与搜索；"
        "用这些取值训练出模型并在测试集上评判，才能知道它们究竟如何。",
        gained=gained,
    )


def shown(value: Any) -> str:
    """A value of the recipe."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _range(dimension: Any) -> Text:
    """What was searched of one key."""
    if isinstance(dimension, list):
        listed = " · ".join(shown(value) for value in dimension)
        return t("{listed}", "{listed}", listed=listed)
    bounds = {"low": shown(dimension["low"]), "high": shown(dimension["high"])}
    if dimension["log"]:
        return t("{low} to {high}, logarithmic", "{low} 至 {high}，对数尺度", **bounds)
    if dimension["step"] is not None:
        step = shown(dimension["step"])
        return t("{low} to {high} in steps of {step}", "{low} 至 {high}，步长 {step}", **bounds, step=step)
    return t("{low} to {high}", "{low} 至 {high}", **bounds)


def _pictures(facts: Mapping[str, Any], curve: Curve) -> dict[str, Any]:
    dots = [_dot(trial, facts["best"]["trial"], curve) for trial in facts["trials"]]
    lines = [
        (dot.state, [(step, curve.sign * score) for step, score in trial["curve"]])
        for dot, trial in zip(dots, facts["trials"], strict=True)
        if trial["same_as"] is None
    ]
    values: dict[str, Markup] = {}
    for key, dimension in facts["space"].items():
        at = [trial["values"][key] for trial in facts["trials"]]
        values[key] = against_value(key, dimension, list(zip(at, dots, strict=True)), curve.write, shown)
    return {
        "trials": score_by_trial(dots, curve.sign, curve.write, curve.name),
        "curves": trial_curves(lines, curve.write, curve.name),
        "values": values,
        "importances": importance_bars(facts["importances"]) if facts["importances"] else None,
    }


def _dot(trial: Mapping[str, Any], best: int, curve: Curve) -> Dot:
    state = "best" if trial["number"] == best else trial["state"]
    return Dot(trial["number"], state, curve.of(trial["score"]))
