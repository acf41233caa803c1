"""How a served model does, in one JSON object: what the page's board shows.

Everything here is looked up, and nothing computed that takes long: traffic and feedback come from the index, drift from
the newest window that ``danlu monitor`` has written down, the trial under way from its outcomes so far.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.improve.feedback import tally
from danlu.improve.trial import facts_of, standing
from danlu.monitor.records import is_question

__all__ = ["board"]

_SPANS = ((3600.0, 60.0), (86400.0, 1200.0), (30 * 86400.0, 43200.0))
"""Seconds to look back, and those of a bucket: the first in which anything was asked."""
_RECENT_BUCKETS = 10
_RECENT = 300
"""Requests that labels and confidence are told of."""
_BINS = 10
_ALERTS = 20
_HISTORY = 50
_COMPARED = ("n", "n_since", "n_challenger", "difference", "low", "high", "decided_at")
_EVER = 1e12
"""Seconds of a bucket that holds everything."""


def board(workspace: Workspace, name: str, digest: str | None = None) -> dict[str, Any]:
    """How a served model does.

    Args:
        workspace: Where its events are.
        name: The served name, without alias.
        digest: The model that answers now; None: the champion.

    Returns:
        ``model name digest now``; ``traffic`` (buckets of ``bucket`` seconds: ``start n n_failed p50 p95 p99``),
        ``latency`` (of the last buckets) and ``errors``; ``drift``, ``windows`` and ``estimated_accuracy`` as
        ``danlu monitor`` left them; ``confidence`` (of ten equal bins from 0 to 1) and ``labels`` of the last few
        hundred requests; ``alerts``, ``experiment``, ``history`` and ``feedback``.

    Raises:
        UsageError: There is no model of that name.
    """
    digest = digest or workspace.ledger.resolve(name, "champion")
    now = time.time()
    with Index.open(workspace) as index:
        index.refresh()
        seconds, buckets = _traffic(index, name, now)
        recent = buckets[-_RECENT_BUCKETS:]
        whole = index.traffic(name, _EVER, recent[0]["start"]) if recent else []
        alerts = deque(index.events("alert", name=name), _ALERTS)
        counted = tally(index.feedback(name, digest=digest))
        return {
            "model": name,
            "name": name,
            "digest": digest,
            "now": now,
            "bucket": seconds,
            "traffic": buckets,
            "latency": {key: whole[0][key] if whole else None for key in ("p50", "p95", "p99")},
            "errors": sum(each["n_failed"] for each in buckets),
            **_answers(index, name, digest, buckets),
            **_drift(index, name, digest),
            "alerts": list(reversed(alerts)),
            "experiment": _experiment(workspace, index, name),
            "history": _history(workspace, name),
            "feedback": {key: getattr(counted, key) for key in ("n", "right", "wrong", "corrected")},
        }


def _traffic(index: Index, name: str, now: float) -> tuple[float, list[dict[str, Any]]]:
    """The length of a bucket, and the buckets."""
    for span, seconds in _SPANS:
        if found := index.traffic(name, seconds, now - span):
            return seconds, found
    return _SPANS[0][1], []


def _answers(index: Index, name: str, digest: str, buckets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was answered last: how sure, and which classes."""
    confidence, labels = [0] * _BINS, Counter[str]()
    if buckets:
        # A bucket may hold more than can be read in a moment: the last few hundred are found to the second.
        after = _since(index.traffic(name, 1.0, _since(buckets)))
        asked = index.events("request", name=name, digest=digest, after=after)
        for event in deque(filter(is_question, asked), _RECENT):
            for answer in event.get("answers") or []:
                if "probability" in answer:
                    confidence[min(_BINS - 1, int(_BINS * answer["probability"]))] += 1
                    labels[str(answer["label"])] += 1
    return {"confidence": confidence, "labels": dict(labels.most_common())}


def _since(buckets: Sequence[dict[str, Any]]) -> float:
    """When the last few hundred requests begin."""
    n = 0
    for bucket in reversed(buckets):
        n += bucket["n"]
        if n >= _RECENT:
            break
    return float(bucket["start"])


def _drift(index: Index, name: str, digest: str) -> dict[str, Any]:
    """How the watch stands by the last window that was written down."""
    found: dict[str, Any] = {"drift": [], "windows": 0, "estimated_accuracy": None}
    watches = list(index.events("watch", name=name, digest=digest))
    if not watches:
        return found
    watch = watches[-1]["id"]
    alarmed = {alert["signal"] for alert in index.events("alert", name=name, digest=digest) if alert["watch"] == watch}
    for series in ("content", "service"):
        window = index.find("window", f"{watch}:{series}")
        if window is None:
            continue
        found["drift"] += [
            {
                **{key: state[key] for key in ("signal", "effect", "excess", "p_adjusted")},
                "alarm": state["signal"] in alarmed,
            }
            for state in window["signals"]
        ]
        if series == "content":
            found["windows"] = window["number"]
            if "accuracy" in window:
                value, low, high = window["accuracy"]
                found["estimated_accuracy"] = {"value": value, "low": low, "high": high}
    return found


def _experiment(workspace: Workspace, index: Index, name: str) -> dict[str, Any] | None:
    """The trial under way: its plan, and what is known by now; once it is decided, what was known then."""
    experiment = workspace.experiments.running(name)
    if experiment is None:
        return None
    told = {"id": experiment.id, "since": experiment.time, "by": experiment.by, "why": experiment.why}
    told |= {"champion": experiment.champion, "challenger": experiment.challenger, **experiment.plan}
    compared = standing(index, experiment).comparison
    if compared is None:
        nothing: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "decided_at"))
        return {**told, "n": 0, "n_since": 0, "n_challenger": 0, **nothing, "decision": "continue"}
    known = facts_of(compared)
    return {
        **told,
        **{key: known[key] for key in _COMPARED},
        "decision": compared.decision,
    }


def _history(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """What the name's aliases meant, the newest first."""
    entries = [entry for entry in workspace.ledger.entries() if entry.name == name]
    return [
        {
            "time": entry.time,
            "alias": entry.alias,
            "digest": entry.digest,
            "reason": entry.reason,
            "by": entry.by,
            "evidence": list(entry.evidence),
        }
        for entry in reversed(entries[-_HISTORY:])
    ]
