"""From feedback to the next model: what may be learnt, a dataset with it, a model trained anew, a verdict, a proposal.

A model that does not get worse on the gold set is proposed: it becomes the name's ``challenger``, and no more. Whether
it becomes champion is for ``danlu promote`` to settle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from danlu.core.artifact import Artifact
from danlu.core.config import Config, Layer, read_overrides, resolve
from danlu.core.errors import RefusedError, UsageError
from danlu.core.events import EventLog
from danlu.core.files import digest_of, lock, read_json, sha256_file, write_atomic, write_json
from danlu.core.index import Index
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.clean import CleanConfig
from danlu.data.stage import require_split
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.stage import compare_models, evaluate_model
from danlu.improve.datasets import base_rows, corrected_dataset, feedback_by_source, gold_dataset
from danlu.improve.gate import ENOUGH, MARGINS, NonInferiority, judge, needed
from danlu.improve.guards import Known
from danlu.improve.lessons import Guards, Lessons, drop_seen, known_of, read_gold, screen
from danlu.labelling import champion_of
from danlu.recording import record
from danlu.report.proposal import proposal_page
from danlu.retraining import again, evaluation_of

__all__ = ["ImproveConfig", "improve"]

GOLD = "gold"
"""The alias by which a gold set is found again that was named once."""

_CLASSIFYING = ("text-classification", "image-classification")
_TASKS = (*_CLASSIFYING, "translation")


class ImproveConfig(Config):
    """How much feedback is let through, and what the new model is judged by."""

    recipe: Path | None = None
    """A recipe in place of the champion's own."""
    quota: float = Field(default=0.2, gt=0, le=1)
    """The largest share that one user may make up of all feedback that is used."""
    most: int = Field(default=1000, ge=1)
    """The largest number of records of one user that are used."""
    min: int = Field(default=20, ge=1)
    """Records that must be new, or nothing is trained."""
    gold: str | None = None
    """Labelled records that models are judged by and never trained on: named once, and then known by the model's name.
    Where none was ever named, a share of what labellers labelled is the gold set."""
    held_out: float = Field(default=0.2, ge=0, lt=1)
    """The share of the texts that labellers labelled which is never trained on."""
    margin: float | None = Field(default=None, gt=0)
    """What the new model may lose on the gold set: 0.05 of the accuracy, 2 chrF of a translation."""
    level: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance that a model which loses as much is proposed all the same."""


@dataclass(frozen=True)
class _Plan:
    """What is under way.

    Attributes:
        champion: The model to be improved.
        dataset: What the new one is trained on.
        sets: What both are judged by besides the test split: ``gold``, and maybe ``traffic``.
    """

    champion: Artifact
    dataset: Artifact
    sets: Mapping[str, Artifact]


def improve(workspace: Workspace, name: str, words: Sequence[str], progress: Progress) -> Artifact:
    """Improve the champion of a name from its feedback.

    Args:
        workspace: Where everything is.
        name: The model's name.
        words: ``key=value`` of :class:`ImproveConfig`, and of the recipe (``train.epochs=3``).
        progress: Told of every step.

    Returns:
        An artifact of kind ``proposal`` with ``proposal.json`` (``passed`` says what the gate decided) and
        ``proposal.html``.

    Raises:
        UsageError: No such name, an unknown key, or a task whose models are not improved.
        RefusedError: There is too little feedback or no gold set, or the champion changed meanwhile.
        BusyError: Another process is at work on this.
    """
    said = read_overrides(words).values
    own = {key: value for key, value in said.items() if key in ImproveConfig.model_fields}
    config = resolve(ImproveConfig, [Layer(own, dict.fromkeys(own, "command line"))]).config
    recipe_words = [word for word in words if word.partition("=")[0] not in ImproveConfig.model_fields]
    champion = champion_of(workspace, name)
    if (task := champion.json("model.json")["task"]) not in _TASKS:
        what = f"a model for {task} is not improved from feedback: a right answer to it is no record to train on"
        raise UsageError(what, where=name, advice="add texts to its data and run the recipe again")
    with lock(workspace.runs / f"{name}-improve.lock", holder=f"danlu improve {name}"):
        kept = workspace.runs / f"{name}-improve.json"
        plan = _taken_up(workspace, kept, champion, words, progress) or _planned(
            workspace, name, champion, config, progress
        )
        told = {"champion": champion.digest, "words": list(words), "dataset": plan.dataset.digest}
        write_json(kept, {**told, "sets": {role: each.digest for role, each in plan.sets.items()}})
        challenger = again(workspace, name, champion, plan.dataset, recipe_words, config.recipe, progress)
        proposal = _proposed(workspace, name, plan, challenger, config, list(words), progress)
        _called(workspace, name, champion, challenger, proposal)
        kept.unlink()
    EventLog(workspace.events, "improve").write(
        "improved",
        name=name,
        digest=champion.digest,
        challenger=challenger.digest,
        proposal=proposal.digest,
        passed=proposal.json("proposal.json")["passed"],
    )
    return proposal


def _taken_up(
    workspace: Workspace, kept: Path, champion: Artifact, words: Sequence[str], progress: Progress
) -> _Plan | None:
    """What was under way when an earlier process ended: feedback given since then is for the next time."""
    if not kept.exists():
        return None
    begun = read_json(kept)
    if begun["champion"] != champion.digest or begun["words"] != list(words):
        progress.note("an improvement that was interrupted was another one; this begins anew")
        return None
    progress.note("going on with the improvement that was interrupted, and the feedback of that time")
    sets = {role: workspace.with_digest(digest) for role, digest in begun["sets"].items()}
    return _Plan(champion, workspace.with_digest(begun["dataset"]), sets)


def _planned(workspace: Workspace, name: str, champion: Artifact, config: ImproveConfig, progress: Progress) -> _Plan:
    """Put the feedback through the guards, and make the datasets."""
    progress.stage(f"feedback to {name}")
    facts = champion.json("model.json")
    task, classes = str(facts["task"]), list(facts["classes"])
    dataset = workspace.with_digest(champion.manifest["parents"]["dataset"])
    require_split(dataset, "test")
    with Index.open(workspace) as index:
        index.refresh()
        feedback = list(index.feedback(name))
        at_hand = {str(each["id"]) for each in index.events("feedback", name=name)}
    if not feedback:
        raise RefusedError(f"there is no feedback to {name}", advice=f"danlu feedback {name} import=FILE; or serve it")
    seen = known_of(dataset, "train", task)
    rows = base_rows(dataset, at_hand)
    base = Known(
        [seen.digests[row] for row in rows.tolist()],
        [seen.answers[row] for row in rows.tolist()],
        None,
        ["train"] * len(rows),
    )
    named = _named_gold(workspace, name, dataset, (task, classes), config.gold, seen, progress)
    guards = Guards(quota=config.quota, most=config.most, held_out=config.held_out)
    apart = None if named is None else known_of(named, "test", task)
    lessons = screen(feedback, dataset, task, classes, guards, seen=seen, base=base, named_gold=apart)
    _check_enough(lessons, seen, config, name, progress)
    sets = _sets(workspace, dataset, lessons, named, feedback)
    if GOLD not in sets:
        what = "there is no gold set: no labeller has labelled anything that could be held out"
        advice = f"name labelled records, gold=FILE; or have some labelled: danlu feedback {name} ask=200 by=margin"
        raise RefusedError(what, where=name, advice=advice)
    n_gold = int(sets[GOLD].json("summary.json")["n"])
    enough = needed(config.margin or MARGINS["accuracy"], config.level) if task in _CLASSIFYING else ENOUGH
    if n_gold < enough:
        progress.note(
            f"the gold set has {n_gold} records: {enough} would be needed to let a model pass that is as good"
        )
    made = corrected_dataset(workspace, dataset, lessons, feedback, at_hand, asdict(guards), sets[GOLD])
    return _Plan(champion, made, sets)


def _named_gold(
    workspace: Workspace,
    name: str,
    dataset: Artifact,
    what: tuple[str, Sequence[str]],
    file: str | None,
    seen: Known,
    progress: Progress,
) -> Artifact | None:
    """The gold set that a file holds, named now or before."""
    if file is None:
        named = [each.digest for each in workspace.ledger.entries() if (each.name, each.alias) == (name, GOLD)]
        return workspace.with_digest(named[-1]) if named else None
    records = read_gold(file, dataset, *what, workspace)
    left = drop_seen(records, seen, CleanConfig(**dataset.config["clean"]))
    told = ", ".join(f"{reason} {n}" for reason, n in records.reasons.items())
    if not len(left):
        advice = "give labelled records that no model was trained on"
        raise RefusedError(f"nothing of the gold set can judge the champion ({told})", where=file, advice=advice)
    progress.note(f"gold set: {len(left)} of {len(records)} records{f', not used: {told}' if told else ''}")
    digest = sha256_file(Path(file)) if Path(file).is_file() else digest_of(file)
    gold = gold_dataset(workspace, dataset, records, left, {"file": digest})
    if not workspace.ledger.means(name, GOLD, gold.digest):
        workspace.ledger.set_alias(name, GOLD, gold, reason=f"{len(left)} records of {Path(file).name}")
    return gold


def _check_enough(lessons: Lessons, seen: Known, config: ImproveConfig, name: str, progress: Progress) -> None:
    """Refuse to train for next to nothing."""
    records = lessons.records
    kept = records.kept()
    there = set(seen.digests)
    corrected = {seen.digests[at] for at in lessons.corrected}
    digests = records.digests(kept)
    n_new = sum(digest not in there or digest in corrected for digest in digests)
    told = ", ".join(f"{reason} {n}" for reason, n in records.reasons.items()) or "nothing"
    progress.note(f"{len(records)} records of feedback: {len(kept)} used, {n_new} of them new; not used: {told}")
    if n_new < config.min:
        raise RefusedError(
            f"{n_new} records of feedback are new, and {config.min} are wanted; not used: {told}",
            where=name,
            advice=f"wait for more, have some labelled (danlu feedback {name} ask=200 by=margin), or set min=",
        )


def _sets(
    workspace: Workspace,
    dataset: Artifact,
    lessons: Lessons,
    named: Artifact | None,
    feedback: Sequence[Mapping[str, Any]],
) -> dict[str, Artifact]:
    """What models are judged by: the gold set, and what labellers labelled of traffic, which may be the same."""
    sets = {} if named is None else {GOLD: named}
    if len(lessons.gold):
        asked = {f"feedback/{each['id']}": each for each in feedback}
        sources = lessons.records.sources(lessons.gold)
        digest = digest_of([{k: v for k, v in asked[each].items() if k != "asked"} for each in sources])
        traffic = gold_dataset(workspace, dataset, lessons.records, lessons.gold, {"feedback": digest})
        sets["traffic" if named is not None else GOLD] = traffic
    return sets


def _proposed(
    workspace: Workspace,
    name: str,
    plan: _Plan,
    challenger: Artifact,
    config: ImproveConfig,
    words: Sequence[str],
    progress: Progress,
) -> Artifact:
    """Judge the new model beside the old one, and write the proposal."""
    champion, dataset = plan.champion, plan.dataset
    earlier, said = evaluation_of(workspace, champion), read_overrides(words).values.get("evaluate", {})
    layers = [Layer(earlier, {}), Layer(said, dict.fromkeys(said, "command line"))]
    how = resolve(EvaluateConfig, layers).config
    before = workspace.with_digest(champion.manifest["parents"]["dataset"])
    comparisons = {}
    for role, (theirs, ours) in {"test": (before, dataset), **{r: (s, s) for r, s in plan.sets.items()}}.items():
        pairs = {"champion": (champion, theirs), "challenger": (challenger, ours)}
        judged = {
            label: record(workspace, evaluate_model(workspace, model, data, how, progress), progress)
            for label, (model, data) in pairs.items()
        }
        comparisons[role] = compare_models(workspace, name, judged, "champion", how, progress)
    gate = _gate(comparisons[GOLD], config)
    facts = {
        "name": name,
        "task": champion.json("model.json")["task"],
        "passed": gate.passed,
        "gate": asdict(gate),
        "level": config.level,
        "models": {
            label: {"digest": model.digest, "folder": model.path.name, "training": model.json("training.json")}
            for label, model in {"champion": champion, "challenger": challenger}.items()
        },
        "feedback": dataset.json("summary.json")["feedback"],
        "guards": dataset.config["feedback"],
        "sources": feedback_by_source(dataset),
        "splits": dataset.json("summary.json")["splits"],
        "judged": {role: each.json("comparison.json") for role, each in comparisons.items()},
        "command": " ".join(["danlu improve", name, *words]),
    }
    parents = {"champion": champion.digest, "challenger": challenger.digest, "dataset": dataset.digest}
    parents |= {f"set.{role}": each.digest for role, each in plan.sets.items()}
    parents |= {f"comparison.{role}": each.digest for role, each in comparisons.items()}
    key = digest_of({"parents": parents, "config": config.plain()})
    progress.stage("proposal")
    with workspace.create("proposal", name, key=key, config=config.plain(), parents=parents) as draft:
        write_json(draft.folder / "proposal.json", facts)
        write_atomic(draft.folder / "proposal.html", proposal_page(facts, dataset, parents).encode())
    return draft.artifact


def _gate(comparison: Artifact, config: ImproveConfig) -> NonInferiority:
    """The gate: on the gold set the new model is shown to lose less than the margin."""
    compared = comparison.json("comparison.json")
    (found,) = compared["models"]
    margin = config.margin or MARGINS["accuracy" if "mcnemar" in found else compared["primary"]]
    return judge(found, compared["primary"], margin, config.level)


def _called(workspace: Workspace, name: str, champion: Artifact, challenger: Artifact, proposal: Artifact) -> None:
    """Let the name's challenger be the new model, if the gate let it pass and nothing has changed meanwhile."""
    facts = proposal.json("proposal.json")
    if not facts["passed"] or workspace.ledger.means(name, "challenger", challenger.digest):
        return
    if not workspace.ledger.means(name, "champion", champion.digest):
        raise RefusedError(
            f"{name} has another champion now: the new model was judged beside the one before",
            where=str(proposal.path),
            advice="run danlu improve again",
        )
    gate = facts["gate"]
    reason = (
        f"learnt from {facts['feedback']['n_used']} records of feedback; on the gold set {gate['metric']} "
        f"{gate['difference']:+.4f} ({gate['low']:+.4f} to {gate['high']:+.4f}), at most {gate['margin']:g} may be lost"
    )
    roles = [role for role in proposal.manifest["parents"] if role.startswith("comparison.")]
    evidence = [proposal.digest, *(proposal.manifest["parents"][role] for role in roles)]
    workspace.ledger.set_alias(name, "challenger", challenger, reason=reason, evidence=evidence)
