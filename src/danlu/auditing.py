"""An audit from the command line: finds the models, makes the tests, writes the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from danlu.audit.config import AuditConfig
from danlu.audit.content import file_digests
from danlu.audit.examine import Question, examine
from danlu.core.artifact import Artifact
from danlu.core.config import read_overrides, resolve
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, read_json
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.model.base import Model, Signature
from danlu.model.families import FAMILIES
from danlu.model.module import build_module
from danlu.report.stage import write_audit

__all__ = ["audit"]


def audit(workspace: Workspace, suspect: str, words: Sequence[str], progress: Progress) -> Artifact:
    """Audit a suspect.

    Args:
        workspace: Where models of ours are found, and where the audit goes.
        suspect: A folder, ``name@alias``, or a name alone.
        words: ``key=value`` of :class:`danlu.audit.config.AuditConfig`.
        progress: Told of every test.

    Returns:
        An artifact of kind ``audit`` with ``audit.json`` and ``audit.html``.

    Raises:
        UsageError: No such model, or none that danlu can read.
        CorruptError: A file is damaged, or the seeds are not those that the reference's record committed to.
    """
    config = resolve(AuditConfig, [read_overrides(words)]).config
    folders = {"suspect": _folder(workspace, suspect), "reference": _folder(workspace, config.against)}
    groups = {"controls": _models_in(config.controls), "siblings": _models_in(config.siblings)}
    seed = _told_seed(folders["reference"])
    question = Question(
        suspect=folders["suspect"],
        reference=folders["reference"],
        controls=groups["controls"],
        siblings=groups["siblings"],
        start=_start(workspace, folders["reference"]),
        seed=seed,
        alpha=config.alpha,
    )
    digests = {role: digest_of(file_digests(folder)) for role, folder in folders.items()}
    digests |= {
        f"{role}.{folder.name}": digest_of(file_digests(folder)) for role, paths in groups.items() for folder in paths
    }
    findings = examine(question, progress).plain()
    told: dict[str, Any] = {
        "suspect": {"name": suspect, "folder": folders["suspect"].name},
        "reference": {"name": config.against, "folder": folders["reference"].name},
        "controls": [folder.name for folder in groups["controls"]],
        "siblings": [folder.name for folder in groups["siblings"]],
        "alpha": config.alpha,
        "told_seed": seed,
        "command": " ".join(["danlu audit", suspect, *words]),
        **findings,
    }
    plain = json.loads(json.dumps(told))
    return write_audit(workspace, plain, config=config.plain(), parents=digests, progress=progress)


def _folder(workspace: Workspace, target: str) -> Path:
    """The folder that a word of the command line means."""
    path = Path(target).expanduser()
    if (path / "config.json").is_file():
        return path.absolute()
    return workspace.target(target, "model").path


def _models_in(folder: str | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    path = Path(folder).expanduser().absolute()
    found = tuple(sorted(each.parent for each in path.glob("*/config.json")))
    if not found:
        advice = "give a folder with one folder a model: config.json, model.safetensors"
        raise UsageError("there are no models in this folder", where=str(path), advice=advice)
    return found


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
