"""What ``danlu promote`` answers, and the history that ``danlu log`` shows: who decided what, when, why, by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from danlu.cli.tables import make_table, plain
from danlu.cli.verb import Answer, Call

if TYPE_CHECKING:
    from danlu.core.experiments import Experiment
    from danlu.core.ledger import Entry
    from danlu.promoting import Promotion

__all__ = ["history", "promoted"]

_REFUSED = 3
_SHORT = 12
"""Digits of a digest that people are shown."""


def promoted(call: Call, name: str, words: Sequence[str]) -> Answer:
    """Do it, and say what came of it."""
    from danlu.improve.trial import facts_of
    from danlu.promoting import promote

    found = promote(call.workspace, name, words)
    standing = None if found.standing is None else found.standing
    now: dict[str, Any] | None = None
    if standing is not None:
        known = standing.comparison
        now = {"left_out": standing.left_out, "decision": "continue", "n": 0}
        now |= {} if known is None else {**facts_of(known), "decision": known.decision}
    facts = {
        "done": found.done,
        "name": found.name,
        "champion": found.champion,
        "challenger": found.challenger,
        "reason": found.reason,
        "advice": found.advice,
        "evidence": list(found.evidence),
        "experiment": None if found.experiment is None else asdict(found.experiment),
        "standing": now,
    }
    lines = [_sentence(found), *([f"because: {found.reason}"] if found.reason else [])]
    lines += [f"what to do: {found.advice}"] if found.advice else []
    text = Text("\n").join(plain(line) for line in lines)
    return Answer(facts, text, _REFUSED if found.done == "refused" else 0)


def history(entries: Sequence[Entry], trials: Sequence[Experiment]) -> RenderableType:
    """All that was ever decided, oldest first."""
    decisions = make_table("when", "name", "means", "by", "because", "evidence")
    for entry in entries:
        evidence = " ".join(each[:_SHORT] for each in entry.evidence)
        said = (f"{entry.name}@{entry.alias}", entry.digest[:_SHORT], entry.by, entry.reason, evidence)
        decisions.add_row(entry.time, *map(plain, said))
    if not trials:
        return decisions
    tried = make_table("trial", "of", "when", "by", "against", "plan", "came to", "why")
    for each in trials:
        planned = ", ".join(f"{key} {value}" for key, value in each.plan.items())
        came_to = f"{each.decision} {each.ended}, by {each.ended_by}" if each.ended else "runs"
        said = (each.id, f"{each.name} {each.challenger[:_SHORT]}", each.time, each.by, each.champion[:_SHORT])
        tried.add_row(*map(plain, (*said, planned, came_to, "; ".join(filter(None, (each.why, each.ended_why))))))
    return Group(decisions, "", tried)


def _sentence(found: Promotion) -> str:
    """What was done."""
    champion, challenger = ((digest or "none")[:_SHORT] for digest in (found.champion, found.challenger))
    trial = "" if found.experiment is None else found.experiment.id
    return {
        "promoted": f"{champion} is the champion of {found.name} now",
        "already": f"{champion} is the champion of {found.name} already: nothing is to be done",
        "refused": f"The gate refused: {challenger} does not become champion of {found.name}, which stays {champion}.",
        "started": f"trial {trial} of {challenger} against {champion} runs; servers of {found.name} begin it",
        "stopped": f"trial {trial} is ended, undecided; {champion} stays the champion of {found.name}",
        "rolled back": f"{champion} is the champion of {found.name} again",
    }[found.done]
