"""What ``danlu feedback`` and ``danlu improve`` do and answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group

from danlu.cli.tables import make_table
from danlu.cli.verb import Answer, Call
from danlu.core.errors import UsageError

if TYPE_CHECKING:
    from danlu.core.artifact import Artifact
    from danlu.labelling import FeedbackConfig

__all__ = ["fed_back", "improved"]

_REFUSED = 3
_SHOWN = 10


def fed_back(call: Call, name: str, words: list[str]) -> Answer:
    """Do what the words say: take in, write out, ask, or sum up.

    Raises:
        UsageError: They say several things at once, or something that is not known.
    """
    from danlu.core.config import read_overrides, resolve
    from danlu.labelling import FeedbackConfig, champion_of

    config: FeedbackConfig = resolve(FeedbackConfig, [read_overrides(words)]).config
    wanted = {"import": config.import_, "export": config.export, "ask": config.ask}
    if len(said := [key for key, value in wanted.items() if value is not None]) > 1:
        what = f"{' and '.join(said)} are two commands"
        raise UsageError(what, where="command line", advice="say one at a time")
    _check_beside(config, said)
    champion_of(call.workspace, name)
    if config.import_ is not None:
        from danlu.labelling import bring_in

        got = bring_in(call.workspace, name, config.import_, call.progress)
        text = f"{got.n_new} records taken in, {got.n_known} were there already"
        return Answer({"name": name, "new": got.n_new, "known": got.n_known}, text)
    if config.export is not None:
        return _exported(call, name, config)
    if config.ask is not None:
        return _asked(call, name, config)
    return _summed_up(call, name)


def improved(proposal: Artifact) -> Answer:
    """A proposal: the gate's decision, old beside new, and where the page is."""
    facts = proposal.json("proposal.json")
    table = make_table("", "records", "old", "new", "difference", "p")
    for role, compared in facts["judged"].items():
        (found,) = compared["models"]
        metric = found["metrics"][compared["primary"]]
        low, high = (_number(metric[end]) for end in ("low", "high"))
        difference = f"{_number(metric['difference'])} ({low} to {high})"
        p = f"{metric['p_holm']:.2g}"
        cells = (str(found["n"]), *(f"{metric[side]:.4f}" for side in ("b", "a")), difference, p)
        table.add_row(f"{role}: {compared['primary']}", *cells)
    gate, feedback = facts["gate"], facts["feedback"]
    unused = ", ".join(f"{reason} {n}" for reason, n in feedback["dropped"].items()) or "nothing"
    verdict = (
        f"The gate let it pass: it is {facts['name']}@challenger now."
        if facts["passed"]
        else "The gate refused: that it does not lose as much is not shown. No alias was moved."
    )
    low, high = (_number(gate[end]) for end in ("low", "high"))
    text = (
        f"\nlearnt from {feedback['n_used']} of {feedback['n']} records of feedback; not used: {unused}\n"
        f"gold set: {gate['metric']} {_number(gate['difference'])} "
        f"({low} to {high}, n = {gate['n']}); it may lose {gate['margin']:g} at most\n"
        f"{verdict}\n\nproposal    {proposal.path / 'proposal.html'}"
        + (f"\ntry next    danlu promote {facts['name']}" if facts["passed"] else "")
    )
    told = {key: facts[key] for key in ("name", "passed", "gate", "feedback", "models")}
    told |= {"proposal": str(proposal.path), "digest": proposal.digest, "page": str(proposal.path / "proposal.html")}
    return Answer(told, Group("", table, text), 0 if facts["passed"] else _REFUSED)


def _check_beside(config: FeedbackConfig, said: list[str]) -> None:
    """Refuse a value that nothing would heed."""
    for key, command in (("format", "export"), ("by", "ask"), ("seed", "ask")):
        if key in config.model_fields_set and command not in said:
            raise UsageError(f"{key} goes with {command}", where=key, advice=f"add {command}=, or leave {key} out")
    if "seed" in config.model_fields_set and config.by != "random":
        raise UsageError(f"by={config.by} draws nothing", where="seed", advice="add by=random, or leave seed out")


def _exported(call: Call, name: str, config: FeedbackConfig) -> Answer:
    from danlu.labelling import write_out

    assert config.export is not None
    done = write_out(call.workspace, name, config.export, config.format)
    what = "tasks" if config.format == "label-studio" else "records"
    lines = [f"{done.n} {what} written to {config.export}"]
    if done.n_neutralised:
        lines.append(f"{done.n_neutralised} cells would be formulas in a spreadsheet: each has an apostrophe before it")
    if done.interface:
        lines.append(f"the labelling interface for them (Settings, Labelling Interface, Code):\n{done.interface}")
    facts: dict[str, Any] = {"name": name, "file": str(config.export), "format": config.format, **asdict(done)}
    return Answer(facts, "\n".join(lines))


def _asked(call: Call, name: str, config: FeedbackConfig) -> Answer:
    from danlu.choosing import ask

    assert config.ask is not None
    found = ask(call.workspace, name, config.ask, config.by, call.progress, config.seed)
    table = make_table("", config.by, "answer", "input")
    for number, each in enumerate(found.questions[:_SHOWN], start=1):
        shown = " ".join(str(each["input"]).split())[:48]
        answer = f"{each['answer']['label']} {each['answer']['probability']:.2f}"
        table.add_row(str(number), f"{each['why']['value']:.4f}", answer, shown)
    left_out = ", ".join(f"{why} {n}" for why, n in found.n_left_out.items() if n) or "none"
    more = f"... and {len(found.questions) - _SHOWN} more\n" if len(found.questions) > _SHOWN else ""
    text = (
        f"{more}\n{len(found.questions)} questions of {found.n_candidates} candidates; left out: {left_out}\n"
        f"label them on the server's page, or: danlu feedback {name} export=tasks.json format=label-studio"
    )
    return Answer({"name": name, **asdict(found)}, Group(table, text))


def _summed_up(call: Call, name: str) -> Answer:
    from danlu.labelling import summary

    found, n_open = summary(call.workspace, name)
    table = make_table("feedback", "")
    for key in ("n", "right", "wrong", "corrected", "labelled", "rated", "conflicts"):
        table.add_row({"n": "records", "conflicts": "texts in conflict"}.get(key, key), str(getattr(found, key)))
    table.add_row("open questions", str(n_open))
    for title, counts in (("from", found.by_kind), ("arm", found.by_arm)):
        for key, n in counts.items():
            table.add_row(f"{title} {key}", str(n))
    sources = make_table("source", "records")
    for source, n in Counter(found.by_source).most_common(_SHOWN):
        sources.add_row(source, str(n))
    facts = {"name": name, **asdict(found), "open_questions": n_open}
    return Answer(facts, Group(table, "", sources) if found.n else table)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"
