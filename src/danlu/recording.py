"""The record of a finished artifact: what there is to say of it, gathered, stated, signed, put beside the manifest.

A record is written once. What a crash left out is written when the same command is run again; one that is there stays
as it is, unless it is unsigned and can now be signed.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from danlu.audit.record import signing
from danlu.audit.record.bom import bill_of_materials, bom_problems
from danlu.audit.record.filing import filing_annex
from danlu.audit.record.revision import code_revision
from danlu.audit.record.statement import Stated, result_statement, training_statement, with_byproducts
from danlu.audit.record.surroundings import installed_packages, surroundings
from danlu.audit.record.tensors import tensor_root
from danlu.core.artifact import RECORD, Artifact
from danlu.core.chain import RunChain
from danlu.core.errors import CorruptError, DanluError
from danlu.core.files import canonical_json, explained, publish, scratch_folder, sha256_file, write_atomic
from danlu.core.merkle import merkle_root
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.samples import SAMPLES
from danlu.model.families import ENSEMBLE

__all__ = ["MADE", "TESTED", "at_hand", "data_root", "record", "source_files"]

MADE = ("model", "pretrained")
"""Kinds of artifacts whose record says how they were made,"""
TESTED = ("evaluation", "audit")
"""and those whose record says what was found."""

STATEMENT, BOM, FILING, SIGNER, SIGNATURE = (
    "statement.dsse.json", "bom.cdx.json", "filing.zh.md", "signer.pub", "model.sig",
)  # fmt: skip

_BEGAN = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
"""When this process began, about: what was made before was made by another one."""
_SPLITS = ("train", "valid", "test")


def record(workspace: Workspace, artifact: Artifact, progress: Progress) -> Artifact:
    """Write the record of an artifact unless it has one, and first that of the model that it was pre-trained as.

    Args:
        workspace: Whose key signs it; the keys are made at the first use.
        artifact: A model, an evaluation or an audit, its files checked.
        progress: Told who signed it, or what is missing to sign it.

    Returns:
        The artifact.

    Raises:
        DanluError: The disk is full or may not be written to.
        CorruptError: What is to be recorded is damaged.
    """
    before = artifact.manifest["parents"].get("pretrained")
    if before and (found := at_hand(workspace, before)):
        record(workspace, found, progress)
    signed = signing.can_sign()
    if _stays(artifact, signed, progress):
        return artifact
    keys = signing.make_keys(workspace.root / "keys") if signed else None
    statement = _training(workspace, artifact) if artifact.kind in MADE else _test(artifact)
    with scratch_folder(artifact.path.parent) as scratch:
        folder = scratch / artifact.path.name / RECORD
        folder.mkdir(parents=True)
        if artifact.kind in MADE:
            statement = _with_inventory(statement, folder, signed)
        payload = canonical_json(statement)
        envelope = signing.sign(payload, keys[0]) if keys else signing.Envelope(payload)
        write_atomic(folder / STATEMENT, envelope.written())
        if keys:
            write_atomic(folder / SIGNER, keys[1].read_bytes())
            if artifact.kind in MADE:
                _link_files(artifact.path, folder.parent)
                signing.sign_folder(folder.parent, keys[0], f"{RECORD}/{SIGNATURE}")
        _put(folder, artifact.path / RECORD, scratch / "before")
    if keys and artifact.kind in MADE:
        progress.note(f"record signed by key {signing.fingerprint(keys[1].read_bytes())[:16]} ({keys[1]})")
    elif not keys:
        progress.note(
            f"the record of {artifact.path.name} is not signed: {signing.INSTALL}, then the same command again"
        )
    return artifact


def at_hand(workspace: Workspace, digest: str) -> Artifact | None:
    """The artifact with a digest, if the workspace has it; its files are not checked.

    Raises:
        CorruptError: Its manifest is damaged.
    """
    for path in workspace.artifacts.glob(f"*/*-{digest[:12]}"):
        if (path / "manifest.json").is_file() and (found := Artifact.open(path)).digest == digest:
            return found
    return None


def data_root(files: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """The Merkle root over the files of a dataset and those that it was made from, each by name with its digest."""
    leaves = [["source", name, digest] for name, digest in sorted(sources.items())]
    leaves += [["file", name, digest] for name, digest in sorted(files.items())]
    return merkle_root(canonical_json(leaf) for leaf in leaves)


def source_files(dataset: Artifact) -> dict[str, str]:
    """The digest of each source of a dataset by its name, without the folders of the machine that it was read on."""
    found: dict[str, str] = {}
    for name, digest in dataset.manifest["parents"].items():
        short = Path(name).name
        found[short if short not in found else f"{short} ({digest[:12]})"] = digest
    return found


def _stays(artifact: Artifact, can_sign: bool, progress: Progress) -> bool:
    """Whether the record that is there is left alone."""
    folder = artifact.path / RECORD
    if not folder.exists():
        return False
    try:
        envelope = signing.Envelope.read(folder / STATEMENT)
        fits = Stated(envelope.statement()).fact("artifact", "digest") == artifact.digest
    except CorruptError as error:
        progress.note(f"the record of {artifact.path.name} is damaged: {error.what}")
        fits = False
    if not fits:  # a record may be evidence: it is never replaced without a word from its owner
        progress.note(f"danlu verify {artifact.path} says more; move {RECORD}/ away to have it written anew")
        return True
    return bool(envelope.signatures) or not can_sign


def _with_inventory(statement: dict[str, Any], folder: Path, checked: bool) -> dict[str, Any]:
    """Write what is read off a statement for other readers, and let the statement name it."""
    stated = Stated(json.loads(canonical_json(statement)))  # in the order in which it will be read
    bom = canonical_json(bill_of_materials(stated))
    if checked and (problems := bom_problems(bom)):
        raise DanluError(
            "the bill of materials does not fit its schema", where=problems[0], advice="please report this"
        )
    write_atomic(folder / BOM, bom)
    write_atomic(folder / FILING, filing_annex(stated).encode())
    return with_byproducts(statement, {name: sha256_file(folder / name) for name in (BOM, FILING)})


def _link_files(artifact: Path, folder: Path) -> None:
    """The files of an artifact under a second name, so that they are signed as they will lie beside the record."""
    for path in sorted(artifact.rglob("*")):
        inner = path.relative_to(artifact)
        if path.is_file() and inner.parts[0] != RECORD:
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            try:
                (folder / inner).hardlink_to(path)
            except OSError:  # not every file system has second names
                with explained(folder):
                    shutil.copyfile(path, folder / inner)


def _put(folder: Path, target: Path, aside: Path) -> None:
    """Publish a record; an unsigned one that is there goes aside, and with the scratch folder."""
    if target.exists():
        with explained(target):
            target.rename(aside)
    with suppress(FileExistsError):  # another process wrote it beside us
        publish(folder, target)


def _training(workspace: Workspace, model: Artifact) -> dict[str, Any]:
    tensors = tensor_root(model.path)
    facts = {
        "model": _model(model),
        "lineage": _lineage(workspace, model),
        "data": [
            _data(workspace, role, digest)
            for role, digest in model.manifest["parents"].items()
            if role in ("dataset", "texts")
        ],
        "commitments": dict(model.manifest["commitments"]),
        "chain": _chain(model),
        "evaluations": [_evaluation(each) for each in workspace.all("evaluation") if _is_of(each, model)],
        "code": code_revision(),
        "packages": installed_packages(),
        "environment": {
            "at_the_end": dict(model.manifest["environment"]),
            "of_the_record": surroundings(),
            "machines": model.json("training.json").get("machines", []),
            "one_process": str(model.manifest["created"]) >= _BEGAN,
        },
    }
    return training_statement(model, facts, tensors)


def _model(model: Artifact) -> dict[str, Any]:
    told, config = model.json("training.json"), model.config
    family = config.get("family") or config["model"]["family"]
    task = model.json("model.json")["task"] if "model.json" in model.manifest["files"] else config["task"]
    names = ("n_parameters", "n_trained", "seconds", "n_tokens", "step", "best_step")
    return {
        "kind": model.kind,
        "task": task,
        "family": family,
        "valid_score": told.get("best_score"),
        **{name: told.get(name) for name in names},
    }


def _chain(model: Artifact) -> dict[str, Any] | None:
    """What the chain of checkpoints ends in; None for a model that is not trained step by step."""
    if "chain.jsonl" not in model.manifest["files"]:
        return None
    chain = RunChain.read(model.path / "chain.jsonl")
    return {
        "file": "chain.jsonl",
        "lines": len(chain.entries),
        "head": chain.head,
        "checkpoints": len(chain.checkpoints),
        "initial_weights": chain.start["weights"],
        "order_root": chain.planned["order_root"],
        "n_steps": chain.planned["n_steps"],
    }


def _lineage(workspace: Workspace, model: Artifact) -> dict[str, Any]:
    """What weights a model goes back to: those that its manifest names as parents."""
    parents = [
        _parent(workspace, model, role, digest)
        for role, digest in model.manifest["parents"].items()
        if role not in ("dataset", "texts")
    ]
    is_ensemble = model.config.get("family") == ENSEMBLE
    from_scratch = "start" not in model.manifest["parents"]
    if is_ensemble:
        members = [at_hand(workspace, parent["digest"]) for parent in parents]
        from_scratch = all(member and "start" not in member.manifest["parents"] for member in members)
    claims = [f"{parent['relation']} {parent['name']}" for parent in parents if parent["role"] != "pretrained"]
    has_tokenizer = "tokenizer.json" in model.manifest["files"]
    origin = "learnt from the training texts" if from_scratch else "that of the checkpoint it starts from"
    return {
        "from_scratch": from_scratch,
        "claim": "; ".join(["from scratch"] * from_scratch + claims),
        "parents": parents,
        "tokenizer": {
            "origin": origin if has_tokenizer else "none",
            "sha256": model.manifest["files"]["tokenizer.json"]["sha256"] if has_tokenizer else None,
        },
        "teachers": {
            "models": [],
            "synthetic_sources": [],
            "said": "none known: danlu trained it on the answers of no other model; what the source files hold of "
            "such answers it cannot know",
        },
    }


def _parent(workspace: Workspace, model: Artifact, role: str, digest: str) -> dict[str, Any]:
    found = at_hand(workspace, digest)
    parent = {"role": role, "digest": digest, "licence": None, "name": found.name if found else role}
    if role == "pretrained":
        return {**parent, "relation": "pre-trained"}
    if role != "start":
        return {**parent, "relation": "combined"}
    wanted = str(model.config["model"]["from"])
    train = model.config.get("train") or {}
    lora = (train.get("adapt") or {}).get("mode") == "lora"
    parent["name"] = wanted if wanted.startswith("sample:") or found else Path(wanted).name
    parent["relation"] = "fine-tuned from, by LoRA, folded in" if lora else "fine-tuned from"
    if wanted.startswith("sample:") and (sample := SAMPLES.get(wanted.removeprefix("sample:"))):
        parent["licence"] = "; ".join(sorted({archive.licence for archive in sample.archives}))
    return parent


def _data(workspace: Workspace, role: str, digest: str) -> dict[str, Any]:
    """What a model learnt from: every source file, what became of its records, and the files of the dataset."""
    dataset = at_hand(workspace, digest)
    if dataset is None:
        return {"role": role, "digest": digest, "name": role}
    files = {name: about["sha256"] for name, about in dataset.manifest["files"].items()}
    sources, summary = source_files(dataset), dataset.json("summary.json")
    counts = _kept_by_source(dataset)
    return {
        "role": role,
        "digest": digest,
        "name": dataset.name,
        "version": dataset.manifest["environment"]["danlu"],
        "sources": [
            _source(dataset, full, short, counts)
            for full, short in zip(dataset.manifest["parents"], sources, strict=True)
        ],
        "columns": dict(dataset.config["columns"]),
        "cleaning": dict(dataset.config["clean"]),
        "records": {
            "read": summary["n_read"],
            "kept": summary["n_kept"],
            "dropped": dict(summary["dropped"]),
            "splits": {name: split["n"] for name, split in summary["splits"].items()},
        },
        "files": files,
        "merkle_root": data_root(files, sources),
    }


def _source(dataset: Artifact, full: str, short: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """One source of a dataset: a file, an archive of a sample, a folder of pictures, or another dataset."""
    wanted = dataset.config["source"]
    of_sample = isinstance(wanted, str) and wanted.startswith("sample:")
    archives = SAMPLES[wanted.removeprefix("sample:")].archives if of_sample else ()
    archive = next((each for each in archives if each.filename == full), None)
    path = Path(full)
    drawn = not dataset.config.keys().isdisjoint(("few_shot", "feedback"))
    is_file = not drawn and path.is_absolute() and path.is_file()
    unchanged = is_file and time.gmtime(path.stat().st_mtime) <= time.strptime(
        dataset.manifest["created"], "%Y-%m-%dT%H:%M:%SZ"
    )
    if archive is None:
        mine = [n for name, n in counts.items() if name == full or full.endswith(f"/{name}")]
    else:
        mine = [sum(counts.values())] if len(archives) == 1 else []
    plain = "image" not in dataset.config["columns"] or of_sample
    return {
        "name": short,
        "digest": "sha256" if plain and not drawn else "danluDigest",
        "value": dataset.manifest["parents"][full],
        "bytes": path.stat().st_size if unchanged else None,
        "records": mine[0] if len(mine) == 1 else None,
        "licence": archive.licence if archive else None,
        "class": "another dataset" if drawn else "public sample" if archive else "the user's own, not stated further",
    }


def _kept_by_source(dataset: Artifact) -> dict[str, int]:
    """How many records of each source file were kept."""
    counts: dict[str, int] = {}
    for split in _SPLITS:
        column = pq.read_table(dataset.path / f"{split}.parquet", columns=["source"]).column("source")
        names = pc.replace_substring_regex(column.cast(pa.string()), r":\d+$", "")
        for row in pc.value_counts(names).to_pylist():
            counts[row["values"]] = counts.get(row["values"], 0) + row["counts"]
    return counts


def _is_of(evaluation: Artifact, model: Artifact) -> bool:
    return bool(evaluation.manifest["parents"].get("model") == model.digest)


def _evaluation(evaluation: Artifact) -> dict[str, Any]:
    facts = evaluation.json("evaluation.json")
    primary = facts["primary"]
    kept = {name: facts["metrics"][primary][name] for name in ("value", "low", "high", "n")}
    return {"digest": evaluation.digest, "primary": primary, "metrics": {primary: kept}}


def _test(tested: Artifact) -> dict[str, Any]:
    parents = tested.manifest["parents"]
    if tested.kind == "evaluation":
        facts = tested.json("evaluation.json")
        keys = ("value", "low", "high", "n")
        metrics = {name: {key: each.get(key) for key in keys} for name, each in facts["metrics"].items()}
        means = "PASSED: the model answered the whole test split; how well it did, danlu_facts says"
        found = {"task": facts["task"], "primary": facts["primary"], "metrics": metrics}
        return result_statement(tested, {"model": parents["model"]}, "PASSED", means, found)
    facts = tested.json("audit.json")
    result = {"PROVEN": "FAILED", "NO EVIDENCE": "PASSED"}.get(facts["verdict"], "WARNED")
    means = (
        "FAILED: an exact test rejects that the suspect is independent of the reference. PASSED: the tests were made "
        "and found nothing. WARNED: neither; the verdict says what"
    )
    models = {role: parents[role] for role in ("suspect", "reference") if role in parents}  # an endpoint has no files
    names = ("verdict", "p", "alpha", "types", "disguises", "command")
    return result_statement(tested, models, result, means, {name: facts.get(name) for name in names})
