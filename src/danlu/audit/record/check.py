"""Checking a record against the folder that it lies in: what is recomputed here, and what only its signer says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from danlu.audit.record.bom import bill_of_materials, bom_problems, differences
from danlu.audit.record.signing import INSTALL, Envelope, can_sign, fingerprint, folder_problems, signs
from danlu.audit.record.statement import Stated, found_in
from danlu.audit.record.tensors import tensor_root
from danlu.core.artifact import RECORD, Artifact, identity_digest
from danlu.core.chain import RunChain
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import read_json, sha256_file

__all__ = [
    "Item",
    "Mark",
    "check_chain",
    "check_files",
    "check_inventory",
    "check_manifest",
    "check_signatures",
    "check_stated_files",
    "listed",
    "open_folder",
]

Mark = Literal["verified", "claimed", "missing", "wrong", "not applicable"]
"""``verified``: recomputed here. ``claimed``: only the signer says so. ``missing``: not here to be looked at."""

_SHOWN = 4


@dataclass(frozen=True)
class Item:
    """One thing that a record says.

    Attributes:
        name: What it is about.
        mark: How far it could be checked,
        found: and what was found.
        needed: Whether the record is worth nothing without it, so that ``missing`` is a refusal.
    """

    name: str
    mark: Mark
    found: str
    needed: bool = False


def listed(lines: Iterable[str]) -> str:
    """A few lines as one, with how many more there are."""
    lines = list(lines)
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def open_folder(folder: Path) -> Artifact:
    """An artifact whose manifest may be wrong.

    Raises:
        UsageError: There is no manifest.
        CorruptError: It cannot be read.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        advice = "danlu log lists the models with their folders"
        raise UsageError("not an artifact: it has no manifest.json", where=str(folder), advice=advice)
    manifest = read_json(path)
    try:
        identity_digest(manifest)
        read = {name: {"sha256": str(about["sha256"])} for name, about in manifest["files"].items()}
        if not read or not isinstance(manifest["parents"], dict) or not isinstance(manifest["config"], dict):
            raise ValueError("a value is of another kind")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"not the manifest of an artifact: {error}", where=str(path)) from error
    return Artifact(folder, manifest)


def check_manifest(artifact: Artifact) -> Item:
    """Whether the digest in the manifest is that of what it says."""
    computed, said = identity_digest(artifact.manifest), artifact.manifest.get("digest")
    if computed != said:
        return Item("manifest", "wrong", f"what it says has the digest {computed[:12]}, and not {str(said)[:12]}")
    return Item("manifest", "verified", f"{artifact.kind} {artifact.name}, digest {computed[:12]}")


def check_files(artifact: Artifact) -> Item:
    """Every file, hashed again, against the manifest."""
    if wrong := artifact.differences():
        return Item("files", "wrong", listed(wrong))
    return Item("files", "verified", f"{len(artifact.manifest['files'])} files hashed, none more in the folder")


def check_stated_files(artifact: Artifact, stated: Stated) -> list[Item]:
    """Every file and tensor, hashed again, against the statement; and what the statement is about."""
    found, said = found_in(artifact.path), stated.files
    wrong = [f"{name} was changed" for name in said if name in found and found[name] != said[name]]
    wrong += [f"{name} is missing" for name in said if name not in found]
    wrong += [f"{name} is not in the statement" for name in found if name not in said]
    about = stated.fact("artifact", "digest")
    if about != artifact.digest:
        wrong.insert(0, f"it is about {str(about)[:12]}, and this is {artifact.digest[:12]}")
    items = [Item("subject", *_verdict(wrong, f"{len(said)} files are those of the statement"))]
    if not stated.is_training:
        return items
    try:
        root, n_tensors = tensor_root(artifact.path)
    except CorruptError as error:
        return [*items, Item("tensors", "wrong", error.what)]
    if stated.tensors is None and not n_tensors:
        return [*items, Item("tensors", "not applicable", "it has none")]
    wrong = [] if root == stated.tensors else [f"their root is {root[:12]}, and not {str(stated.tensors)[:12]}"]
    items.append(
        Item("tensors", *_verdict(wrong, f"{n_tensors} tensors under the root {root[:12]}, whatever their names"))
    )
    said_config, config = stated.at("predicate", "buildDefinition", "externalParameters", "config"), artifact.config
    wrong = differences(said_config, config)
    items.append(Item("config", *_verdict(wrong, "every value is that of the manifest")))
    return items


def check_signatures(
    artifact: Artifact, envelope: Envelope, known: Mapping[str, str], *, wanted: str | None
) -> list[Item]:
    """Who signed a record, and whether it is as it was when it was signed.

    Args:
        artifact: What the record is about.
        envelope: Its statement.
        known: Fingerprints of keys -> whose they are.
        wanted: The fingerprint that it is to be of, where the user gave a key.
    """
    folder = artifact.path / RECORD
    public = folder / "signer.pub"
    if not envelope.signatures:
        return [Item("signature", "missing", f"the statement is not signed; {INSTALL} and run the recipe again", True)]
    if not public.is_file():
        return [Item("signature", "missing", "the public key signer.pub is not there", True)]
    if not can_sign():
        return [Item("signature", "missing", f"checking it takes packages: {INSTALL}", True)]
    try:
        key = public.read_bytes()
        mark = fingerprint(key)
        fits = signs(envelope, key)
    except CorruptError as error:
        return [Item("signature", "wrong", f"signer.pub: {error.what}")]
    statement = "the statement is as it was signed" if fits else "it does not fit the statement and signer.pub"
    items = [Item("signature", "verified" if fits else "wrong", statement), _signer(mark, known, wanted)]
    if artifact.kind in ("model", "pretrained"):
        if not (folder / "model.sig").is_file():
            items.append(Item("model signature", "missing", "model.sig is not there", True))
        else:
            problems = folder_problems(artifact.path, public, f"{RECORD}/model.sig")
            items.append(Item("model signature", *_verdict(problems, "OpenSSF model signing, over the whole folder")))
    return items


def check_inventory(artifact: Artifact, stated: Stated) -> list[Item]:
    """The bill of materials and the annex, against the statement that they were read off."""
    items = []
    for name, what in (("bom.cdx.json", "bill of materials"), ("filing.zh.md", "filing annex")):
        path, said = artifact.path / RECORD / name, stated.byproducts.get(f"{RECORD}/{name}")
        if not path.is_file():
            items.append(Item(what, "missing", f"{name} is not there"))
        elif sha256_file(path) != said:
            items.append(Item(what, "wrong", f"{name} was changed{_where_changed(path, stated)}"))
        elif path.suffix != ".json":
            items.append(Item(what, "verified", "as the statement names it; a draft, no legal advice"))
        else:
            items.append(Item(what, *_bom_verdict(path)))
    return items


def check_chain(artifact: Artifact, stated: Stated) -> list[Item]:
    """The chain of checkpoints, link by link, its end against the statement, and the weights against its end."""
    said = stated.fact("chain")
    path = artifact.path / "chain.jsonl"
    if said is None and not path.exists():
        if stated.fact("commitments"):
            return [Item("chain", "missing", "it was trained by a danlu that kept no chain of checkpoints")]
        return [Item("chain", "not applicable", "it was not trained in steps")]
    if said is None:
        return [Item("chain", "wrong", "chain.jsonl is there, and the statement knows of none")]
    try:
        chain = RunChain.read(path)
    except CorruptError as error:
        return [Item("chain", "wrong", error.what)]
    wrong = []
    if len(chain.entries) != said["lines"]:
        wrong.append(f"it has {len(chain.entries)} lines, and the statement says {said['lines']}")
    if chain.head != said["head"]:
        wrong.append(f"its last hash is {chain.head[:12]}, and the statement says {said['head'][:12]}: written anew")
    if chain.planned["order_root"] != said["order_root"]:
        wrong.append("the order of the records is another one than the statement says")
    if dict(artifact.manifest["commitments"]) != chain.start["commitments"]:
        wrong.append("line 1 commits to other seeds than the manifest")
    right = f"{len(chain.entries)} lines, each holding the hash of the one before"
    return [Item("chain", *_verdict(wrong, right)), _last_weights(artifact, str(chain.end["weights"]))]


def _last_weights(artifact: Artifact, said: str) -> Item:
    """Whether the model's weights are those with which the chain ends."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from danlu.model.weights import weights_root

    name, adapt = "last weights", (artifact.config.get("train") or {}).get("adapt") or {}
    if adapt.get("mode") == "lora" and artifact.kind == "model":
        return Item(name, "claimed", "adapters were folded in after the chain's last line: not those of that line")
    try:
        found = weights_root(load_file(artifact.path / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        return Item(name, "wrong", f"model.safetensors cannot be read: {error}")
    right = "model.safetensors holds those of the chain's last line"
    return Item(name, "verified" if found == said else "wrong", right if found == said else f"not so: {right}")


def _verdict(wrong: list[str], right: str) -> tuple[Mark, str]:
    return ("wrong", listed(wrong)) if wrong else ("verified", right)


def _signer(mark: str, known: Mapping[str, str], wanted: str | None) -> Item:
    if wanted is not None:
        if mark != wanted:
            return Item("signer", "wrong", f"signed by key {mark}, and the key given is {wanted}")
        return Item("signer", "verified", f"the key given, {mark}")
    if mark in known:
        return Item("signer", "verified", f"{known[mark]}, {mark}")
    found = (
        f"a key that is not known here: {mark}; compare it with what the signer told you by another way, or give key="
    )
    return Item("signer", "claimed", found)


def _bom_verdict(path: Path) -> tuple[Mark, str]:
    if not can_sign():
        return "claimed", f"as the statement names it; checking it against its schema takes packages: {INSTALL}"
    if problems := bom_problems(path.read_bytes()):
        return "wrong", f"not as its schema says: {listed(problems)}"
    return "verified", "as the statement names it, and as the schema of CycloneDX 1.6 says"


def _where_changed(path: Path, stated: Stated) -> str:
    """Where a bill of materials departs from what is read off the statement now."""
    if path.suffix != ".json":
        return ""
    try:
        said: Any = json.loads(path.read_bytes())
        changed = differences(bill_of_materials(stated), said)
    except (ValueError, RecursionError, CorruptError) as error:
        return f": {error}"
    return f": {listed(changed)}" if changed else ""
