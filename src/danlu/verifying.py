"""``danlu verify``: what a record says of an artifact, item by item, and how far that can be checked here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu.audit.content import file_digests
from danlu.audit.record.check import (
    Item,
    Mark,
    check_chain,
    check_files,
    check_inventory,
    check_manifest,
    check_signatures,
    check_stated_files,
    listed,
    open_folder,
)
from danlu.audit.record.config import VerifyConfig
from danlu.audit.record.revision import code_revision
from danlu.audit.record.signing import Envelope, fingerprint
from danlu.audit.record.statement import Stated
from danlu.core.artifact import RECORD, Artifact
from danlu.core.config import read_overrides, resolve
from danlu.core.errors import CorruptError, DanluError, UsageError
from danlu.core.files import digest_of, sha256_file
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.samples import find_sample, is_fetched
from danlu.evaluate.stage import validation_scores
from danlu.recording import MADE, TESTED, at_hand, data_root, source_files
from danlu.start import find_start
from danlu.train.prepare import Start
from danlu.train.replay import Replayed, reopened, replay

__all__ = ["Verification", "verify"]

_FAILED, _REFUSED = 1, 3


@dataclass(frozen=True)
class Verification:
    """What came of checking a record.

    Attributes:
        artifact: What it is about.
        items: What it says, item by item.
    """

    artifact: Artifact
    items: tuple[Item, ...]

    @property
    def exit_code(self) -> int:
        """0: nothing is wrong; 1: something is; 3: something is missing without which the record is worth nothing.

        That is the signed statement, and what was asked for. Data and parents that are not here are no refusal: who
        is given a model is seldom given its data.
        """
        if any(item.mark == "wrong" for item in self.items):
            return _FAILED
        return _REFUSED if any(item.mark == "missing" and item.needed for item in self.items) else 0


def verify(workspace: Workspace, target: str, words: Sequence[str], progress: Progress) -> Verification:
    """Check the record of an artifact.

    Args:
        workspace: Where data, parents and seeds are looked for, and whose key is known.
        target: The artifact's folder, ``name@alias``, or a name alone.
        words: ``key=value`` of :class:`danlu.audit.record.config.VerifyConfig`.
        progress: Told what is looked at.

    Raises:
        UsageError: There is no such artifact, or no such key.
        CorruptError: The manifest cannot be read.
    """
    config = resolve(VerifyConfig, [read_overrides(words)]).config
    artifact = open_folder(_folder(workspace, target))
    progress.stage(f"verify: {artifact.path.name}")
    items = [check_manifest(artifact), check_files(artifact)]
    if artifact.kind not in (*MADE, *TESTED):
        found = f"a {artifact.kind} has none of its own; the models that were made of it name it"
        return Verification(artifact, (*items, Item("statement", "not applicable", found)))
    try:
        items += _statement(workspace, artifact, config, progress)
    except CorruptError as error:  # of the statement: those of other files are items of their own
        items.append(Item("statement", "wrong", error.what))
    return Verification(artifact, tuple(items))


def _folder(workspace: Workspace, target: str) -> Path:
    """The folder that a word of the command line means; nothing in it is checked yet."""
    path = Path(target).expanduser()
    if "/" in target or path.is_dir():
        return path.absolute()
    name, _, alias = target.partition("@")
    digest = workspace.ledger.resolve(name, alias or "champion")
    found = next(workspace.artifacts.glob(f"*/*-{digest[:12]}"), None)
    if found is None:
        advice = "restore the folder from a copy, or run the recipe again"
        raise UsageError(f"{target} is no longer here", where=str(workspace.artifacts), advice=advice)
    return found


def _statement(workspace: Workspace, artifact: Artifact, config: VerifyConfig, progress: Progress) -> Iterator[Item]:
    path = artifact.path / RECORD / "statement.dsse.json"
    if not path.is_file():
        yield Item("statement", "missing", "there is no record; run the recipe again to have it written", needed=True)
        return
    wanted = None if config.key is None else _fingerprint(Path(config.key).expanduser())
    envelope = Envelope.read(path)
    stated = Stated(envelope.statement())
    yield from check_signatures(artifact, envelope, _known(workspace), wanted=wanted)
    yield from check_stated_files(artifact, stated)
    if not stated.is_training:
        yield from _tested(workspace, artifact, stated)
        return
    yield from check_inventory(artifact, stated)
    yield _lineage(stated)
    made = [_parent(workspace, artifact, parent) for parent in stated.fact("lineage", "parents")]
    made += [item for data in stated.fact("data") for item in _data(workspace, data)]
    made += check_chain(artifact, stated)
    yield from made
    needed = (check_manifest(artifact), *(item for item in made if item.name != "last weights"))
    wrong = [item.name for item in needed if item.mark == "wrong"]
    hindered = f"{wrong[0]} is wrong, and it takes that" if wrong else None
    yield from _opened(workspace, artifact, stated, config, progress, hindered)
    yield from _evaluations(workspace, artifact, stated)
    yield from _claims(stated)


def _fingerprint(path: Path) -> str:
    """That of a public key that the user gave."""
    try:
        return fingerprint(path.read_bytes())
    except (OSError, CorruptError) as error:
        advice = "give the signer's public key, a PEM file like keys/signing.pub"
        raise UsageError(f"not a public key: {error}", where=str(path), advice=advice) from error


def _known(workspace: Workspace) -> dict[str, str]:
    """Keys whose owner is known: this workspace's."""
    path = workspace.root / "keys" / "signing.pub"
    return {fingerprint(path.read_bytes()): "this workspace's key"} if path.is_file() else {}


def _lineage(stated: Stated) -> Item:
    teachers = stated.fact("lineage", "teachers", "said")
    return Item("lineage", "claimed", f"{stated.fact('lineage', 'claim')}; teachers and synthetic sources: {teachers}")


def _parent(workspace: Workspace, model: Artifact, parent: dict[str, Any]) -> Item:
    """A model that this one goes back to, hashed again where it is here."""
    name = f"parent: {parent['role']}"
    told = f"{parent['relation']} {parent['name']} {parent['digest'][:12]}"
    if model.manifest["parents"].get(parent["role"]) != parent["digest"]:
        return Item(name, "wrong", f"{told}: the manifest names another one")
    try:
        found = at_hand(workspace, parent["digest"])
        if found is not None:
            wrong = found.differences()
            return Item(name, "wrong" if wrong else "verified", f"{told}: {listed(wrong) or 'hashed again'}")
    except CorruptError as error:
        return Item(name, "wrong", f"{told}: {error.what}")
    if parent["role"] == "start" and _start(workspace, model) is not None:
        return Item(name, "verified", f"{told}: hashed again")
    return Item(name, "missing", f"{told} is not here")


def _start(workspace: Workspace, model: Artifact) -> Start | None:
    """The checkpoint outside of the workspace's artifacts that a model started from, where it is here."""
    wanted = (model.config.get("model") or {}).get("from", "scratch")
    digest = model.manifest["parents"].get("start")
    if digest is None:
        return None
    try:
        found = find_start(wanted, Path.cwd(), workspace)
    except DanluError:
        return None
    return found if found is not None and found.digest == digest else None


def _data(workspace: Workspace, data: dict[str, Any]) -> Iterator[Item]:
    """A dataset, hashed again where it is here, and what it was made from."""
    name, told = f"data: {data['role']}", f"{data['name']} {data['digest'][:12]}"
    try:
        found = at_hand(workspace, data["digest"])
        wrong = [] if found is None else found.differences()
    except CorruptError as error:
        yield Item(name, "wrong", f"{told}: {error.what}")
        return
    if found is None:
        yield Item(name, "missing", f"{told} is not here")
        return
    files = {each: about["sha256"] for each, about in found.manifest["files"].items()}
    root = data_root(files, source_files(found))
    if data.get("merkle_root") not in (None, root):
        wrong.append(f"its Merkle root is {root[:12]}, and not {data['merkle_root'][:12]}")
    right = f"hashed again, {data['records']['kept']:,} records" if "records" in data else "hashed again"
    yield Item(
        name, "wrong" if wrong else "verified", f"{told}: {listed(wrong) or f'{right}, Merkle root {root[:12]}'}"
    )
    yield _sources(workspace, found, f"sources: {data['role']}")


def _sources(workspace: Workspace, dataset: Artifact, name: str) -> Item:
    """The files that a dataset was made from, hashed again where they still are."""
    wanted, parents = dataset.config["source"], dataset.manifest["parents"]
    if "few_shot" in dataset.config:
        return Item(name, "claimed", f"drawn from another dataset, {parents['dataset'][:12]}")
    if "feedback" in dataset.config:
        told = f"another dataset, {parents['dataset'][:12]}, and feedback, {parents['feedback'][:12]}"
        return Item(name, "claimed", told)
    if isinstance(wanted, str) and wanted.startswith("sample:"):
        sample = find_sample(wanted)
        fetched = is_fetched(sample, workspace.samples / sample.name)
        licences = ", ".join(sorted({archive.licence for archive in sample.archives}))
        told = f"{wanted} ({licences}), {len(parents)} archives"
        return Item(name, "verified" if fetched else "missing", f"{told}{' as fetched' if fetched else ', not here'}")
    paths = {path: Path(path) for path in parents}
    if "image" in dataset.config["columns"]:
        return Item(name, "claimed", f"{len(parents)} folders or files of pictures")
    here = {full: path for full, path in paths.items() if path.is_file()}
    same = [full for full, path in here.items() if sha256_file(path) == parents[full]]
    if len(same) == len(parents):
        return Item(name, "verified", f"{len(parents)} source files hashed again")
    other = [path.name for full, path in here.items() if full not in same]
    gone = [path.name for full, path in paths.items() if full not in here]
    lines = [f"{each} is another file now" for each in other] + [f"{each} is not here" for each in gone]
    return Item(name, "missing", f"{len(same)} of {len(parents)} as they were: {listed(lines)}")


def _opened(
    workspace: Workspace,
    model: Artifact,
    stated: Stated,
    config: VerifyConfig,
    progress: Progress,
    hindered: str | None,
) -> Iterator[Item]:
    """What the commitments of a run say once they are opened, and what comes out when parts of it are done again."""
    said, asked = stated.fact("commitments"), config.seeds is not None or config.replay > 0
    if not said:
        yield Item("commitments", "not applicable", "nothing in it was left to chance")
        if config.replay:
            yield Item("replay", "missing", "it was not trained in steps", needed=True)
        return
    if said != model.manifest["commitments"]:
        yield Item("commitments", "wrong", "the statement has other ones than the manifest")
        return
    if stated.fact("chain") is None:
        yield Item("commitments", "claimed", f"to {', '.join(said)}; its training kept no chain to open them against")
        if asked:
            yield Item("replay", "missing", "its training kept no chain of checkpoints", needed=True)
        return
    seeds, start = None if config.seeds is None else Path(config.seeds).expanduser(), _start(workspace, model)
    try:
        opened = hindered or reopened(workspace, model, seeds, start)
    except CorruptError as error:
        yield Item("commitments", "wrong", f"cannot be opened: {error.what}: {error.where}")
        return
    if isinstance(opened, str):
        yield Item("commitments", "missing", f"not opened: {opened}", needed=asked)
        return
    if not opened.commitments:
        yield Item("commitments", "wrong", "the seeds are not those that were committed to before step 0")
        return
    yield Item("commitments", "verified", f"the seeds of {', '.join(said)} are those committed to before step 0")
    yield _judged("initial weights", opened.weights, "made again from the seeds, bit for bit", opened.elsewhere)
    yield _judged("order", opened.order, "the records come in the order written down before step 0", opened.elsewhere)
    if not config.replay:
        return
    try:
        for done in replay(workspace, model, config.replay, validation_scores, progress, seeds, start):
            yield _replayed(done)
    except UsageError as error:
        yield Item("replay", "missing", error.what, needed=True)
    except CorruptError as error:
        yield Item("replay", "wrong", error.what)


def _judged(name: str, right: bool, found: str, elsewhere: Sequence[str]) -> Item:
    """What was made again; on another machine, which may sum in another order, a difference proves nothing."""
    if right:
        return Item(name, "verified", found)
    if elsewhere:
        return Item(name, "claimed", f"it came out otherwise here, and so is the machine: {listed(elsewhere)}")
    return Item(name, "wrong", f"not so: {found}")


def _replayed(done: Replayed) -> Item:
    name = f"replay: line {done.line}"
    told = f"steps {done.begin} to {done.end} trained again from step {done.restored}"
    if done.identical:
        return Item(name, "verified", f"{told}: bit for bit the same")
    parts = [file for file, same in done.files.items() if not same] + ["what was reported"] * (not done.told)
    parts += ["the weights kept"] * (done.kept is False)
    return _judged(name, False, f"{told}: {', '.join(parts)} came out the same", done.elsewhere)


def _evaluations(workspace: Workspace, model: Artifact, stated: Stated) -> Iterator[Item]:
    """Every evaluation that the statement names or the workspace has; the figures themselves are not computed anew."""
    named = {each["digest"]: each for each in stated.fact("evaluations")}
    here = {
        each.digest: each
        for each in workspace.all("evaluation")
        if each.manifest["parents"].get("model") == model.digest
    }
    for digest in {**named, **here}:
        name = f"evaluation {digest[:12]}"
        if digest not in here:
            yield Item(name, "claimed", f"{_figures(named[digest]['metrics'])}; it is not here")
            continue
        if wrong := here[digest].differences():
            yield Item(name, "wrong", listed(wrong))
            continue
        facts = here[digest].json("evaluation.json")
        primary = {facts["primary"]: facts["metrics"][facts["primary"]]}
        record = "has a record of its own" if (here[digest].path / RECORD).is_dir() else "has no record of its own"
        if digest in named and _figures(named[digest]["metrics"]) != _figures(primary):
            yield Item(
                name, "wrong", f"{_figures(primary)}, and the statement says {_figures(named[digest]['metrics'])}"
            )
        else:
            yield Item(name, "claimed", f"{_figures(primary)}; its files hashed again; it {record}")


def _figures(metrics: dict[str, Any]) -> str:
    shown = {name: [f"{each[key]:.4f}" if each[key] is not None else "–" for key in ("value", "low", "high")]
             for name, each in metrics.items()}  # fmt: skip
    return ", ".join(f"{name} {value} ({low} to {high})" for name, (value, low, high) in shown.items())


def _claims(stated: Stated) -> Iterator[Item]:
    """What only the signer can know."""
    code, here = stated.fact("code"), code_revision()
    commit = (
        f"commit {code['commit'][:12]}{' with changes' if code['dirty'] else ''}" if code["commit"] else "no checkout"
    )
    same = "the same that runs here" if code["sha256"] == here["sha256"] else "not the one that runs here"
    yield Item("code", "claimed", f"danlu {code['version']}, {commit}, files {code['sha256'][:12]}: {same}")
    later = "" if stated.fact("environment", "one_process") else ", when the record was written: later than the model"
    yield Item("packages", "claimed", f"{len(stated.fact('packages'))} installed, each with its version{later}")
    made = stated.fact("environment", "at_the_end")
    yield Item("environment", "claimed", ", ".join(f"{name} {version}" for name, version in made.items()))
    finished = stated.at("predicate", "runDetails", "metadata", "finishedOn")
    yield Item("time", "claimed", f"{finished}, by the signer's own clock; nobody else attests it")


def _tested(workspace: Workspace, tested: Artifact, stated: Stated) -> Iterator[Item]:
    """What was found, against the files; and the models that it was found of."""
    file = f"{tested.kind}.json"
    facts = tested.json(file)
    said = {name: value for name, value in stated.facts.items() if name != "artifact"}
    if tested.kind == "evaluation":
        keys = ("value", "low", "high", "n")
        facts = {
            **facts,
            "metrics": {name: {key: each.get(key) for key in keys} for name, each in facts["metrics"].items()},
        }
        told = _figures({facts["primary"]: facts["metrics"][facts["primary"]]})
    else:
        told = str(facts["verdict"])
    wrong = [f"{name} is another one in {file}" for name, value in said.items() if facts.get(name) != value]
    yield Item(
        "findings", "wrong" if wrong else "verified", listed(wrong) or f"{told}: as in {file}, not computed anew"
    )
    for role, digest in tested.manifest["parents"].items():
        if tested.kind == "audit":
            yield _audited(workspace, role, digest, facts.get(role))
            continue
        try:
            found = at_hand(workspace, digest)
            wrong = [] if found is None else found.differences()
        except CorruptError as error:
            found, wrong = None, [error.what]
        mark: Mark = "wrong" if wrong else "missing" if found is None else "verified"
        yield Item(role, mark, f"{digest[:12]}: {listed(wrong) or ('hashed again' if found else 'not here')}")


def _audited(workspace: Workspace, role: str, digest: str, told: Any) -> Item:
    """A model that took part in an audit, which knows it by the digest of all its files."""
    name = Path(str(told.get("folder"))).name if isinstance(told, dict) else ""
    for path in (workspace.artifacts / kind / name for kind in MADE if name):
        if path.is_dir() and digest_of(file_digests(path)) == digest:
            return Item(role, "verified", f"{name}: hashed again")
    return Item(role, "missing", f"{name or 'a model'} whose files have the digest {digest[:12]} is not here")
