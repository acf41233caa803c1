"""Where an experiment stands: from what people said of the answers to its comparison (:mod:`danlu.improve.compare`).

**An outcome** is between 0 and 1: what was said of it (``correct``, ``rating``), whether the answer is the class that
was said to be right, or chrF of the answer against the translation that was said to be right.

**Live**: the first outcome of each user, in the order in which outcomes came. Whoever saw the worse answers says more,
or less; but so they do in both arms, and if it changes how many users of an arm say something, the arms no longer have
the planned shares, and the comparison says so.

**In the shadow**: users saw the champion's answer and never the challenger's, and say more where it was wrong; counted
by their word, any challenger whose mistakes are other ones would win. Only answers that do not hang on what the
champion said count, each against both models: labels from whoever labels for the owner, or from a file.

In both, what was labelled *because* the model was unsure of it (``ask=N by=margin`` or ``entropy``) is left out: the
champion errs there more than elsewhere, the challenger need not.
"""

from __future__ import annotations

from calendar import timegm
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import strptime
from typing import Any

import numpy as np

from danlu.core.errors import CorruptError
from danlu.core.experiments import Experiment
from danlu.core.index import Index
from danlu.improve.compare import (
    USUAL_DISCORDANCE,
    USUAL_VARIANCE,
    Comparison,
    ComparisonPlan,
    compare_live,
    compare_shadow,
)
from danlu.improve.sequence import difference_interval

__all__ = ["LEFT_OUT", "Standing", "facts_of", "outcome", "plan_of", "resolution", "standing", "told_of"]

LEFT_OUT = {
    "seen": "said by users, who saw the champion's answer alone",
    "unsure": "labelled because the model was unsure",
    "unknown": "not known for both models",
    "again": "of a user or an input that counts already",
}
"""Why feedback within an experiment does not count."""

_BY_DOUBT = ("margin", "entropy")
_CLOCKS = 3600.0
"""Seconds by which the clocks of two machines may differ."""


@dataclass(frozen=True)
class Standing:
    """Where an experiment stands.

    Attributes:
        comparison: What is known; None where no outcome has come yet.
        left_out: How much feedback of the experiment does not count, by why (``LEFT_OUT``).
    """

    comparison: Comparison | None
    left_out: dict[str, int]


def plan_of(experiment: Experiment) -> ComparisonPlan:
    """The plan of an experiment, as it was registered.

    Raises:
        CorruptError: It is none.
    """
    try:
        return ComparisonPlan(**experiment.plan)
    except (TypeError, ValueError) as error:
        raise CorruptError(f"the plan of experiment {experiment.id} is none: {error}", where=experiment.name) from error


def standing(index: Index, experiment: Experiment) -> Standing:
    """Where an experiment stands by all that the index has taken in.

    Raises:
        UsageError: Translations were corrected, and sacrebleu is not installed.
    """
    plan, left_out = plan_of(experiment), Counter[str]()
    pairs = _in_shadow if plan.mode == "shadow" else _live
    found = list(pairs(index, experiment, left_out))
    comparison = None
    if found:
        first_T, second_T = (np.array(column) for column in zip(*found, strict=True))
        comparison = (compare_shadow if plan.mode == "shadow" else compare_live)(plan, first_T, second_T)
    return Standing(comparison, dict(left_out))


def outcome(record: Mapping[str, Any], answer: Mapping[str, Any] | None) -> float | None:
    """How good an answer was by what was said, 0 to 1; None where that cannot be told.

    Args:
        record: Feedback.
        answer: What the model answered, as the event has it.

    Raises:
        UsageError: A translation was corrected, and sacrebleu is not installed.
    """
    if record.get("rating") is not None:
        return float(record["rating"])
    if record.get("correct") is not None:
        return float(record["correct"])
    return _against(record, answer)


def resolution(plan: ComparisonPlan) -> float:
    """Half of the width that the interval has at the end of the budget, where outcomes vary as they usually do."""
    spread = USUAL_DISCORDANCE if plan.mode == "shadow" else USUAL_VARIANCE / (plan.share * (1 - plan.share))
    return difference_interval(plan.mixture(), 0.0, spread * plan.budget, plan.budget, plan.level).high


def facts_of(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON values, its decision apart: what is kept where an experiment ends."""
    facts = {key: value for key, value in vars(comparison).items() if key not in ("decision", "interval")}
    return {**facts, "low": comparison.interval.low, "high": comparison.interval.high}


def told_of(experiment: Experiment, now: Standing | None = None) -> str:
    """An experiment in a sentence: as it ended, or as it stands."""
    known = None if now is None else now.comparison
    facts = experiment.facts if known is None else facts_of(known)
    plan, who = experiment.plan, "users" if experiment.plan["mode"] == "live" else "labelled inputs"
    told = f"{plan['mode']} trial {experiment.id}: {experiment.decision or 'continues'}"
    if facts:
        told += f", {facts['n']:,} of at most {plan['budget']:,} {who}"
        told += f", challenger - champion {facts['difference']:+.4f} ({facts['low']:+.4f} to {facts['high']:+.4f})"
        told += f", margin {plan['margin']}"
        if facts.get("n_since"):
            told += f"; {facts['n_since']:,} came after the decision and change nothing about it"
        if facts["reason"] == "shares":
            told += f"; its arms do not have the planned shares (p = {facts['ratio_p']:.2g})"
    else:
        told += f", no outcome yet of at most {plan['budget']:,} {who}"
    if now is not None and now.left_out:
        told += "; left out: " + ", ".join(f"{n:,} {LEFT_OUT[why]}" for why, n in now.left_out.items())
    return told


def _live(index: Index, experiment: Experiment, left_out: Counter[str]) -> Iterator[tuple[bool, float]]:
    """Of each user whether the challenger answered, and the outcome."""
    counted = set()
    for record in _records(index, experiment, left_out):
        asked = record["asked"] or {}
        value = outcome(record, _answer(asked, record["index"]))
        if value is None or record.get("arm") not in ("champion", "challenger") or "unit" not in asked:
            left_out["unknown"] += 1
        elif asked["unit"] in counted:
            left_out["again"] += 1
        else:
            counted.add(asked["unit"])
            yield record["arm"] == "challenger", value


def _in_shadow(index: Index, experiment: Experiment, left_out: Counter[str]) -> Iterator[tuple[float, float]]:
    """Of each labelled input the outcome of the champion's answer, and of the challenger's."""
    records = []
    for record in _records(index, experiment, left_out):
        if record["source"]["kind"] == "user":
            left_out["seen"] += 1
        else:
            records.append(record)
    wanted = {record["request"] for record in records}
    answered = {
        event["request"]: event
        for event in index.events("shadow", name=experiment.name, after=_start(experiment))
        if event.get("experiment") == experiment.id and event["request"] in wanted
    }
    counted = set()
    for record in records:
        place, other = (record["request"], record["index"]), answered.get(record["request"])
        champion = _against(record, _answer(record["asked"] or {}, record["index"]))
        challenger = None if other is None else _shadowed(record, other)
        if champion is None or challenger is None:
            left_out["unknown"] += 1
        elif place in counted:
            left_out["again"] += 1
        else:
            counted.add(place)
            yield champion, challenger


def _records(index: Index, experiment: Experiment, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """The feedback of an experiment, but for what somebody was asked for because the model was unsure."""
    start = _start(experiment)
    doubted = {
        (question["request"], question["index"])
        for question in index.events("question", name=experiment.name, after=start)
        if _by(question) in _BY_DOUBT
    }
    for record in index.feedback(experiment.name, after=start):
        if record.get("experiment") != experiment.id:
            continue
        if record["source"]["kind"] == "labeller" and (record["request"], record["index"]) in doubted:
            left_out["unsure"] += 1
        else:
            yield record


def _by(question: Mapping[str, Any]) -> str:
    """How a question was chosen."""
    why = question["why"]
    return str(why["by"] if isinstance(why, Mapping) else why)


def _shadowed(record: Mapping[str, Any], event: Mapping[str, Any]) -> float | None:
    """The outcome of the challenger's answer; one that it could not give is worth nothing."""
    if event["answers"] is None:
        return 0.0
    return _against(record, _answer(event, record["index"]))


def _against(record: Mapping[str, Any], answer: Mapping[str, Any] | None) -> float | None:
    """How good an answer is by the one that was said to be right; None where there is none, or no answer."""
    if answer is None:
        return None
    if record.get("label") is not None:
        return float(answer["label"] == record["label"]) if "label" in answer else None
    written = answer.get("translation", answer.get("text"))
    if record.get("text") is None or written is None:
        return None
    from danlu.evaluate.chrf_bleu import chrf_counts, chrf_of_sums

    return float(chrf_of_sums(chrf_counts([written], [record["text"]]))[0]) / 100


def _answer(event: Mapping[str, Any], place: int) -> Mapping[str, Any] | None:
    answers = event.get("answers") or []
    return answers[place] if 0 <= place < len(answers) else None


def _start(experiment: Experiment) -> float:
    return timegm(strptime(experiment.time, "%Y-%m-%dT%H:%M:%SZ")) - _CLOCKS
