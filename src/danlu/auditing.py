"""An audit from the command line: finds the models and what to ask them, makes the tests, writes the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from danlu.audit.behaviour import Behaviour, Cast, Questions, Seen, cut, observe
from danlu.audit.config import AuditConfig
from danlu.audit.content import file_digests
from danlu.audit.endpoint import Endpoint
from danlu.audit.examine import Question, examine
from danlu.audit.parties import Party, controls_of, find_party, models_in, questions_in
from danlu.audit.verdict import decide
from danlu.core.artifact import Artifact
from danlu.core.config import read_overrides, resolve
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, read_json
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.stage import read_split
from danlu.model.base import Model, Signature
from danlu.model.families import FAMILIES
from danlu.model.module import build_module
from danlu.report.stage import write_audit
from danlu.train.optimizer import OptimizerConfig, learning_rate
from danlu.train.order import reopened_order

__all__ = ["audit"]

_NO_WEIGHTS = "the weights of one of the two are not at hand"
_NO_RUN = "the seeds of the reference's run are not at hand"
_NO_DATA = "the reference's data are not at hand, and no prompts were given"
_NOT_SENT = "texts of the reference's data are not sent to another machine unless you say so"


def audit(workspace: Workspace, suspect: str, words: Sequence[str], progress: Progress) -> Artifact:
    """Audit a suspect.

    Args:
        workspace: Where models of ours are found, and where the audit goes.
        suspect: A folder, ``name@alias``, a name alone, or the address of an endpoint.
        words: ``key=value`` of :class:`danlu.audit.config.AuditConfig`.
        progress: Told of every test.

    Returns:
        An artifact of kind ``audit`` with ``audit.json``, ``audit.html``, and what was asked and answered.

    Raises:
        UsageError: No such model, none that danlu can read, or an endpoint that cannot be asked.
        CorruptError: A file is damaged, or the seeds are not those that the reference's record committed to.
        DanluError: An endpoint cannot be reached, or does not answer as it should.
    """
    config = resolve(AuditConfig, [read_overrides(words)]).config

    def heard(done: int, total: int) -> None:
        progress.update(done, total, "requests")

    theirs = find_party(workspace, suspect, "model", (config.model, config.key_env), heard)
    given = (config.against_model, config.against_key_env)
    ours = find_party(workspace, config.against, "against_model", given, heard)
    groups = {"controls": controls_of(config.controls, heard), "siblings": models_in(config.siblings)}
    parents = models_in(config.parents)
    seed = None if ours.folder is None else _told_seed(ours.folder)
    behaviour, rows = _observed(workspace, (theirs, ours), groups, config, progress)
    if theirs.folder is None or ours.folder is None:
        findings = _without_weights(behaviour, config.alpha, seed is not None)
    else:
        question = Question(
            suspect=theirs.folder,
            reference=ours.folder,
            **_others(groups, parents),
            start=_start(workspace, ours.folder),
            seed=seed,
            alpha=config.alpha,
            behaviour=behaviour,
        )
        findings = examine(question, progress).plain()
    told: dict[str, Any] = {
        "suspect": theirs.told(),
        "reference": ours.told(),
        **{role: [party.name for party in group] for role, group in groups.items()},
        "alpha": config.alpha,
        "told_seed": seed,
        "command": " ".join(["danlu audit", suspect, *words]),
        **findings,
    }
    parties = {"suspect": theirs, "reference": ours, **_by_role({**groups, "parents": parents})}
    return write_audit(
        workspace,
        json.loads(json.dumps(told)),
        config=config.plain(),
        parents={role: digest_of(file_digests(party.folder)) for role, party in parties.items() if party.folder},
        kept={"answers.jsonl": rows, "requests.jsonl": _requests(parties)},
        progress=progress,
    )


def _requests(parties: Mapping[str, Party]) -> list[dict[str, Any]]:
    """All that endpoints were sent, and what they sent back."""
    sources = [party.source for party in parties.values()]
    return [row for source in sources if isinstance(source, Endpoint) for row in source.transcript]


def _by_role(groups: Mapping[str, Sequence[Party]]) -> dict[str, Party]:
    return {f"{role}.{party.name}": party for role, group in groups.items() for party in group}


def _others(groups: Mapping[str, Sequence[Party]], parents: Sequence[Party]) -> dict[str, Any]:
    """The folders of all models but the two, as a question has them."""
    return {role: _folders(group) for role, group in {**groups, "parents": parents}.items()}


def _folders(parties: Sequence[Party]) -> tuple[Path, ...]:
    return tuple(party.folder for party in parties if party.folder is not None)


def _observed(
    workspace: Workspace,
    pair: tuple[Party, Party],
    groups: Mapping[str, Sequence[Party]],
    config: AuditConfig,
    progress: Progress,
) -> tuple[Behaviour, list[dict[str, Any]]]:
    """The tests by behaviour of suspect and reference, and what was asked and answered."""
    away = [party for party in (*pair, *groups["controls"]) if party.is_away]
    silent = None if not away or config.send_texts else _NOT_SENT
    if silent and config.prompts is None:
        advice = "give prompts=FILE to ask something else, or allow it: send_texts=true"
        raise UsageError(_NOT_SENT, where=away[0].address, advice=advice)
    model = _artifact(pair[1].folder)
    dataset = None if model is None else _dataset(workspace, model)
    cast = _NO_DATA if dataset is None and config.prompts is None else _cast(pair, groups)
    if isinstance(cast, str):
        return Behaviour(data_order=cast, siblings=cast, agreement=cast, calibrated={}), []
    task = cast.reference.task
    seen = silent or (_NO_RUN if model is None or dataset is None else _seen(workspace, model, dataset, task))
    if config.prompts is not None:
        questions = questions_in(config.prompts, config.texts)
    else:
        assert dataset is not None
        questions = _held_out(dataset, task, config.texts)
    if away:
        texts = "" if isinstance(seen, str) else " and training texts"
        where = ", ".join(sorted({party.address for party in away}))
        progress.note(f"{len(questions.asked):,} questions{texts} go to {where}")
    return observe(cast, seen, questions, config.texts, config.alpha, progress)


def _cast(pair: tuple[Party, Party], groups: Mapping[str, Sequence[Party]]) -> Cast | str:
    """Who can be asked; or why suspect or reference cannot."""
    suspect, reference = (party.speaker() for party in pair)
    for name, speaker in (("suspect", suspect), ("reference", reference)):
        if isinstance(speaker, str):
            return f"the {name} cannot be asked: {speaker}"
    assert not isinstance(suspect, str)
    assert not isinstance(reference, str)
    if suspect.task != reference.task:
        return f"the suspect does {suspect.task}, the reference {reference.task}"
    asked: dict[str, list[Any]] = {role: [] for role in groups}
    left_out = {}
    for role, group in groups.items():
        for party in group:
            speaker = party.speaker()
            if isinstance(speaker, str):
                left_out[party.name] = speaker
            elif speaker.task != reference.task:
                left_out[party.name] = f"it does {speaker.task}"
            else:
                asked[role].append(speaker)
    controls, siblings = tuple(asked["controls"]), tuple(asked["siblings"])
    return Cast(suspect=suspect, reference=reference, siblings=siblings, controls=controls, left_out=left_out)


def _artifact(folder: Path | None) -> Artifact | None:
    """A model of ours with the record of its making."""
    if folder is None or not (folder / "manifest.json").is_file():
        return None
    return Artifact.open(folder, "model")


def _dataset(workspace: Workspace, model: Artifact) -> Artifact | None:
    """What a model was trained on, where this workspace still has it."""
    digest = str(model.manifest["parents"].get("dataset", ""))
    if not digest or not any(workspace.artifacts.glob(f"dataset/*-{digest[:12]}")):
        return None
    return workspace.with_digest(digest)


def _seen(workspace: Workspace, model: Artifact, dataset: Artifact, task: str) -> Seen | str:
    """What the reference's run saw, or why that is not known."""
    if isinstance(order := reopened_order(workspace, model), str):
        return order
    names = task == "text-classification"
    table = read_split(dataset, "train", ["text", "label"] if names else ["text"])
    train = model.config["train"]
    packed = bool(train.get("pack"))
    # Where a packed epoch that max_steps cut short ends depends on its order: it would not be exact.
    whole = order.epochs[:-1] if packed and train.get("max_steps") is not None else order.epochs
    schedule = OptimizerConfig(**{name: each for name, each in train.items() if name in OptimizerConfig.model_fields})
    n_steps = len(order.batches)
    return Seen(
        epochs=whole,
        rates=[learning_rate(step, n_steps, schedule) for step in range(sum(map(len, whole)))],
        moved="records" if packed else "batches",
        texts=table.column("text").to_pylist(),
        labels=table.column("label").to_pylist() if names else None,
    )


def _held_out(dataset: Artifact, task: str, n: int) -> Questions:
    """Texts of the reference's data that it was not trained on."""
    if task == "text-classification":
        found: dict[str, str] = {}
        for split in ("valid", "test"):
            table = read_split(dataset, split, ["text", "label"])
            found |= dict(zip(table.column("text").to_pylist(), table.column("label").to_pylist(), strict=True))
        asked = list(found)[:n]
        return Questions(asked=asked, truths=[found[text] for text in asked], source="held out")
    texts = [
        text for split in ("valid", "test") for text in read_split(dataset, split, ["text"]).column("text").to_pylist()
    ]
    beginnings, rests = cut(texts, n)
    return Questions(asked=beginnings, truths=rests, source="held out")


def _without_weights(behaviour: Behaviour, alpha: float, public_seed: bool) -> dict[str, Any]:
    """What :class:`danlu.audit.examine.Findings` has, where there are answers alone."""
    verdict, corrected = decide(behaviour.exact, behaviour.calibrated, False, alpha, public_seed)
    nothing: dict[str, Any] = dict.fromkeys(("clones", "content", "likeness", "changes", "merge"))
    return {
        **nothing,
        "verdict": verdict,
        "types": (),
        "parts": (),
        "disguises": (),
        "p": corrected,
        "order": {},
        "control_order": {},
        "identity": _NO_WEIGHTS,
        "seed": _NO_WEIGHTS,
        "sibling": _NO_WEIGHTS,
        "control_clones": (),
        "control_likeness": (),
        "power": {},
        "behaviour": asdict(behaviour),
    }


def _told_seed(reference: Path) -> str | None:
    """The seed that the recipe of a model of ours named, if it named one."""
    if not (reference / "manifest.json").is_file():
        return None
    seed = Artifact.open(reference, "model").config.get("seed")
    return None if seed is None else str(seed)


def _start(workspace: Workspace, reference: Path) -> tuple[Model, Seeds] | None:
    """The module and the seeds of the run that made a reference, where this workspace still has them."""
    if not (reference / "manifest.json").is_file() or not (reference / "signature.json").is_file():
        return None
    artifact = Artifact.open(reference, "model")
    stored = read_json(reference / "config.json")
    if stored.get("from") != "scratch":
        return None
    if "pretrained" in artifact.manifest["parents"]:
        artifact = workspace.with_digest(artifact.manifest["parents"]["pretrained"])
    key = str(artifact.manifest["key"])
    path = workspace.runs / f"{artifact.name}-{artifact.kind}-{key[:12]}" / "seeds.json"
    if not path.is_file():
        return None
    seeds = Seeds.load(path)
    if seeds.commitments() != artifact.manifest["commitments"]:
        advice = "restore the run's folder, or move seeds.json away to audit without it"
        raise CorruptError("these are not the seeds that the record committed to", where=str(path), advice=advice)
    signature = TypeAdapter(Signature).validate_python(read_json(reference / "signature.json"))
    with torch.device("meta"):
        return build_module(FAMILIES[stored["family"]].Config(**stored), signature), seeds
