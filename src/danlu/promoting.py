"""``danlu promote``: a challenger is tried, becomes champion if the gate passes, and gives way again.

The gate asks two things: that a paired test on held-out data passed, and that something compares the challenger with
the champion: that test, or a trial on traffic. Where there was a trial, its decision counts too. The gate makes a model
champion once: what was champion before comes back by somebody's word alone (``back=true``), never by itself.

What happens is two lines in two chains, in this order: the experiment ends with its decision; the alias moves, if it
still means the champion that all of this was decided against. Whatever is killed in between, there is one champion, and
the same command goes on: a recorded decision is taken as it stands. An experiment whose champion was replaced beside it
decides nothing any more, and is ended by the next ``danlu promote``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from danlu.core.artifact import Artifact
from danlu.core.config import Config, Layer, read_overrides, resolve
from danlu.core.errors import DanluError, RefusedError, UsageError
from danlu.core.experiments import Experiment
from danlu.core.index import Index
from danlu.core.ledger import Entry
from danlu.core.workspace import Workspace
from danlu.improve.compare import ComparisonPlan
from danlu.improve.paired import PairedTest, tests_of
from danlu.improve.trial import Standing, facts_of, resolution, standing, told_of

__all__ = ["Done", "PromoteConfig", "Promotion", "promote"]

Done = Literal["promoted", "already", "refused", "started", "stopped", "rolled back"]

_USED_WITH = {
    "trial": {"trial", "margin", "budget", "share", "level", "to", "by", "why"},
    "stop": {"stop", "by", "why"},
    "back": {"back", "to", "by", "why"},
    "": {"to", "allow", "by", "why"},
}
"""Which values mean something beside the one that says what to do."""
_WORDS = ("by", "to", "why")
"""What is taken as it is written: a colon in a reason makes no mapping of it."""
_SHORTEST = 6
"""Characters of a digest that one must write."""


class PromoteConfig(Config):
    """What ``danlu promote`` is told."""

    trial: Literal["live", "shadow"] | None = None
    """Start a trial: each user is answered by one of the two models (live), or the champion answers and the challenger
    is asked beside it (shadow)."""
    margin: float | None = None
    """Differences smaller than this do not matter; registered before the trial starts."""
    budget: int | None = None
    """Users (shadow: labelled inputs) after which an undecided trial ends; registered, too."""
    share: float | None = None
    """The challenger's share of users in a live trial; a half unless said."""
    level: float | None = None
    """The chance of any wrong decision, however often it is looked at; 0.05 unless said."""
    stop: bool = False
    """End the running trial without a decision."""
    back: bool = False
    """Go back to the champion before this one, or to that of ``to``."""
    to: str | None = None
    """A model by the beginning of its digest, in place of the challenger."""
    allow: Literal["equivalent"] | None = None
    """Let a trial pass that showed the two to be equivalent within the margin."""
    by: str | None = None
    """Who says so; who is logged in unless said."""
    why: str = ""
    """Why; it stays in the ledger."""


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of it.

    Attributes:
        done: What was done.
        name: The model's name.
        champion: The digest that ``name@champion`` means now.
        challenger: The model in question.
        reason: Why, in a sentence.
        advice: What to do next, where there is something.
        evidence: What it was decided from: digests of artifacts, ids of experiments.
        experiment: The trial.
        standing: Where the trial stands, where it was looked at.
    """

    done: Done
    name: str
    champion: str | None
    challenger: str | None = None
    reason: str = ""
    advice: str = ""
    evidence: tuple[str, ...] = ()
    experiment: Experiment | None = None
    standing: Standing | None = None


@dataclass(frozen=True)
class _Case:
    """What is to be decided: whether a challenger takes the champion's place."""

    workspace: Workspace
    name: str
    config: PromoteConfig
    history: Sequence[Entry]
    champion: str | None
    challenger: str

    @property
    def deposed(self) -> Entry | None:
        """The entry by which the challenger was champion no more; None where it never was."""
        entries = [entry for entry in self.history if entry.alias == "champion"]
        pairs = ((before, after) for before, after in pairwise(entries) if before.digest != after.digest)
        return next((after for before, after in reversed(list(pairs)) if before.digest == self.challenger), None)

    def refused(self, reason: str, advice: str = "", **known: Any) -> Promotion:
        return Promotion(
            done="refused",
            name=self.name,
            champion=self.champion,
            challenger=self.challenger,
            reason=reason,
            advice=advice,
            **known,
        )


def promote(workspace: Workspace, name: str, words: Sequence[str]) -> Promotion:
    """Do what ``danlu promote NAME key=value ...`` asks for.

    Args:
        workspace: Where the models are.
        name: The model's name, without an alias.
        words: Values of :class:`PromoteConfig`.

    Raises:
        UsageError: No such model, or values that do not go together.
        RefusedError: Somebody else was faster, or a trial runs already.
        CorruptError: A chain or an artifact is damaged.
    """
    config = _config(words)
    _void(workspace, name, config)
    if config.stop:
        return _stop(workspace, name, config)
    if config.back:
        return _go_back(workspace, name, config)
    history = workspace.ledger.history(name)
    challenger = _model_of(workspace, config.to) if config.to else workspace.ledger.resolve(name, "challenger")
    champion = next((entry.digest for entry in reversed(history) if entry.alias == "champion"), None)
    case = _Case(workspace, name, config, history, champion, challenger)
    return _try(case) if config.trial else _decide(case)


def _decide(case: _Case) -> Promotion:
    """The gate; where it passes, the promotion."""
    known: dict[str, Any] = {"name": case.name, "champion": case.champion, "challenger": case.challenger}
    if case.challenger == case.champion:
        entry = next(entry for entry in reversed(case.history) if entry.alias == "champion")
        reason = f"it is the champion since {entry.time}, by {entry.by or 'somebody'}: {entry.reason}"
        return Promotion(done="already", reason=reason, evidence=entry.evidence, **known)
    if (last := case.deposed) is not None:
        advice = f"if it is to come back: danlu promote {case.name} back=true to={case.challenger[:12]} why=..."
        return case.refused(f"it was champion until {last.time}, when {last.by or 'somebody'}: {last.reason}", advice)
    running = case.workspace.experiments.running(case.name)
    if running is not None and running.challenger != case.challenger:
        advice = f"wait for it (to={running.challenger[:12]}), or end it: danlu promote {case.name} stop=true why=..."
        reason = f"a trial of another model runs: {running.id}, of {running.challenger[:12]}"
        return case.refused(reason, advice, experiment=running)
    trial, now = _trial(case)
    if (refusal := _held_back(case, trial, now)) is not None:
        return refusal
    test = _test(case)
    if isinstance(test, Promotion):
        return test
    if trial is None and case.champion is not None and not test.against_champion:
        both = f"{case.name}@champion {case.name}@challenger"
        advice = f"danlu improve {case.name}, danlu compare {both}, or try it: danlu promote {case.name} trial=live ..."
        return case.refused(f"nothing compares it with the champion ({test.told} is against {test.against})", advice)
    told = [test.told, *([] if trial is None else [told_of(trial)]), *([case.config.why] if case.config.why else [])]
    evidence = (test.artifact.digest, *([] if trial is None else [trial.id]))
    entry = case.workspace.ledger.set_alias(
        case.name,
        "champion",
        case.workspace.with_digest(case.challenger),
        reason="; ".join(told),
        expect=case.champion,
        by=case.config.by,
        evidence=evidence,
    )
    known |= {"champion": case.challenger, "reason": entry.reason, "evidence": evidence}
    return Promotion(done="promoted", experiment=trial, standing=now, **known)


def _test(case: _Case) -> PairedTest | Promotion:
    """The test on held-out data that counts, or the refusal."""
    found = next(iter(tests_of(case.workspace, case.champion, case.challenger)), None)
    if found is None:
        if (reason := _outdated(case)) is not None:
            return case.refused(reason, f"danlu improve {case.name} tests what it proposes against the champion of now")
        both = f"{case.name}@champion {case.name}@challenger" if case.champion else "BASELINE MODEL"
        advice = f"danlu improve {case.name} tests what it proposes; danlu compare {both} tests what there is"
        return case.refused("no test on held-out data speaks for it", advice)
    found.artifact.verify()
    if not found.passed:
        return case.refused(f"it did not pass its test: {found.told}", evidence=(found.artifact.digest,))
    return found


def _outdated(case: _Case) -> str | None:
    """That the challenger was tested against a champion who has been replaced since, if it was."""
    reigned = [entry for entry in case.history if entry.alias == "champion"]
    for before in dict.fromkeys(entry.digest for entry in reversed(reigned) if entry.digest != case.champion):
        if any(test.against_champion for test in tests_of(case.workspace, before, case.challenger)):
            now = reigned[-1]
            told = f"{now.digest[:12]} is champion since {now.time}, by {now.by or 'somebody'}: {now.reason}"
            return f"its test is against {before[:12]}, and {told}"
    return None


def _trial(case: _Case) -> tuple[Experiment | None, Standing | None]:
    """The last trial of the two, ended where its decision has fallen, and where it stands if it ran until now."""
    pair = (case.champion, case.challenger)
    trials = [each for each in case.workspace.experiments.all(case.name) if (each.champion, each.challenger) == pair]
    if not trials:
        return None, None
    trial = trials[-1]
    if trial.ended is not None:
        return trial, None
    now = _look(case.workspace, trial)
    if now.comparison is not None and now.comparison.decision != "continue":
        facts = facts_of(now.comparison)
        trial = case.workspace.experiments.end(trial.id, now.comparison.decision, facts, case.config.by)
    return trial, now


def _held_back(case: _Case, trial: Experiment | None, now: Standing | None) -> Promotion | None:
    """The refusal that a trial is a reason for, if it is one."""
    if trial is None or trial.decision == "superior":
        return None
    if trial.decision == "equivalent" and case.config.allow == "equivalent":
        return None
    again = f"try it again: danlu promote {case.name} trial={trial.plan['mode']} ..."
    advice = {
        "": f"wait, or end it: danlu promote {case.name} stop=true why=...",
        "equivalent": "if being no worse is enough: allow=equivalent",
        "inferior": "keep the champion; danlu improve makes another challenger",
    }.get(trial.decision, again)
    return case.refused(told_of(trial, now), advice, evidence=(trial.id,), experiment=trial, standing=now)


def _try(case: _Case) -> Promotion:
    """Register a trial; servers begin it by themselves."""
    config, workspace, name = case.config, case.workspace, case.name
    assert config.trial is not None
    if case.champion is None:
        what, advice = f"{name} has no champion to be compared with", "danlu promote makes the first one"
        raise UsageError(what, where=str(workspace.ledger.path), advice=advice)
    if case.challenger == case.champion:
        raise UsageError(f"{case.challenger[:12]} is the champion already", where=name, advice="give another: to=...")
    if config.margin is None or config.budget is None:
        advice = f"e.g. danlu promote {name} trial={config.trial} margin=0.02 budget=2000"
        raise UsageError("a trial has a margin and a budget, written down before it", where=name, advice=advice)
    values = {"margin": config.margin, "budget": config.budget, "share": config.share, "level": config.level}
    given = {key: value for key, value in values.items() if value is not None}
    layer = Layer({"mode": config.trial, **given}, dict.fromkeys(["mode", *given], "command line"))
    plan = resolve(ComparisonPlan, [layer]).config
    _check_alike(workspace.with_digest(case.champion), workspace.with_digest(case.challenger))
    evidence: tuple[str, ...] = ()
    if plan.mode == "live":
        test = _test(case)
        if isinstance(test, Promotion):
            return case.refused(test.reason, f"{test.advice}; trial=shadow answers no user by it".lstrip("; "))
        evidence = (test.artifact.digest,)
    pair = (case.champion, case.challenger)
    started = workspace.experiments.start(name, *pair, plan.plain(), config.by, config.why)
    if workspace.ledger.current(name, "champion") != case.champion:
        _void(workspace, name, config)
        raise RefusedError("the champion was replaced while the trial was registered", where=name, advice="danlu log")
    half = resolution(plan)
    reason = f"a difference of about {half:.3f} is seen by the end of its budget"
    if half > plan.margin:
        reason += f"; that the two are equivalent within {plan.margin} is not: it takes a larger budget"
    known: dict[str, Any] = {"champion": case.champion, "challenger": case.challenger, "evidence": evidence}
    return Promotion(done="started", name=name, reason=reason, experiment=started, **known)


def _stop(workspace: Workspace, name: str, config: PromoteConfig) -> Promotion:
    running = workspace.experiments.running(name)
    if running is None:
        workspace.ledger.resolve(name, "champion")
        raise UsageError(f"no trial of {name} runs", where=str(workspace.experiments.path), advice="danlu log")
    ended = _stopped(workspace, running, config, config.why)
    known: dict[str, Any] = {"champion": running.champion, "challenger": running.challenger, "experiment": ended}
    return Promotion(done="stopped", name=name, reason=config.why, evidence=(ended.id,), **known)


def _go_back(workspace: Workspace, name: str, config: PromoteConfig) -> Promotion:
    """Make a former champion champion again, by somebody's word alone."""
    now = workspace.ledger.resolve(name, "champion")
    past = [entry.digest for entry in workspace.ledger.history(name) if entry.alias == "champion"]
    if config.to:
        target = _model_of(workspace, config.to)
        if target not in past or target == now:
            what = "is the champion already" if target == now else f"was never champion of {name}"
            raise UsageError(f"{target[:12]} {what}", where=f"to={config.to}", advice="danlu log shows who was")
    elif not (before := past[: past.index(now)]):
        former = ", ".join(dict.fromkeys(digest[:12] for digest in past if digest != now))
        advice = f"name the one that is to come back: to=... ({former})" if former else "it is the first"
        raise RefusedError(f"no champion of {name} came before {now[:12]}", where=name, advice=advice)
    else:
        target = before[-1]
    model = workspace.with_digest(target)
    if running := workspace.experiments.running(name):
        _stopped(workspace, running, config, f"rolled back to {target[:12]}")
    reason = f"rolled back from {now[:12]}" + (f": {config.why}" if config.why else "")
    workspace.ledger.set_alias(name, "champion", model, reason=reason, expect=now, by=config.by)
    return Promotion(done="rolled back", name=name, champion=target, reason=reason)


def _void(workspace: Workspace, name: str, config: PromoteConfig) -> None:
    """End a trial whose champion is champion no more: servers have left it already."""
    running = workspace.experiments.running(name)
    if running is not None and workspace.ledger.current(name, "champion") != running.champion:
        _stopped(workspace, running, config, "its champion was replaced")


def _stopped(workspace: Workspace, trial: Experiment, config: PromoteConfig, why: str) -> Experiment:
    """End a trial without a decision, with what is known of it; a broken index keeps nobody from going back."""
    facts = {}
    try:
        if (now := _look(workspace, trial).comparison) is not None:
            facts = facts_of(now)
    except DanluError as error:
        why = "; ".join([*([why] if why else []), f"where it stood could not be read: {error.what}"])
    return workspace.experiments.end(trial.id, "stopped", facts, config.by, why=why)


def _look(workspace: Workspace, trial: Experiment) -> Standing:
    with Index.open(workspace) as index:
        index.refresh()
        return standing(index, trial)


def _model_of(workspace: Workspace, digest: str) -> str:
    """The digest that begins so."""
    known = [model.digest for model in workspace.all("model") if model.digest.startswith(digest)]
    if len(digest) < _SHORTEST or len(known) != 1:
        what = f"{len(known)} models' digests begin so" if len(digest) >= _SHORTEST else "too short for a digest"
        raise UsageError(f"{what}: {digest}", where=f"to={digest}", advice="danlu log --json tells whole digests")
    return known[0]


def _check_alike(champion: Artifact, challenger: Artifact) -> None:
    """Whether two models answer the same requests with the same kind of answer."""
    a, b = (model.json("model.json") for model in (champion, challenger))
    for key in ("task", "classes", "image_size"):
        left, right = (sorted(facts[key]) if key == "classes" else facts.get(key) for facts in (a, b))
        if left != right:
            raise UsageError(
                f"the champion's {key} is {left}, the challenger's {right}",
                where=f"{champion.digest[:12]}, {challenger.digest[:12]}",
                advice="a trial needs two models that can answer the same requests",
            )


def _config(words: Sequence[str]) -> PromoteConfig:
    texts = {key: text for key, equals, text in (word.partition("=") for word in words) if equals and key in _WORDS}
    others = [word for word in words if word.partition("=")[0] not in texts]
    layers = [read_overrides(others), Layer(texts, dict.fromkeys(texts, "command line"))]
    config = resolve(PromoteConfig, layers).config
    nothing = PromoteConfig()
    given = {key for key, value in config.plain().items() if value != getattr(nothing, key)}
    does = [key for key in ("trial", "stop", "back") if key in given]
    if len(does) > 1:
        raise UsageError(f"{' and '.join(does)} do not go together", where="command line", advice="one at a time")
    doing = does[0] if does else ""
    if beside := given - _USED_WITH[doing]:
        where = f"beside {doing}={getattr(config, doing)}".lower() if doing else "without trial, stop or back"
        advice = f"here: {', '.join(sorted(_USED_WITH[doing] - {doing}))}"
        raise UsageError(f"{', '.join(sorted(beside))} means nothing {where}", where="command line", advice=advice)
    if config.trial == "shadow" and config.share is not None:
        raise UsageError("in the shadow both models answer: there is no share", where="share", advice="leave it out")
    return config
