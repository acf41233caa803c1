"""A good record holds, and whatever is tampered with is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from danlu.audit.record import signing
from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.files import read_json, write_json
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.recording import record
from danlu.verifying import Verification, verify
from made_record import Noting, make_workspace, model_of, rechained, remanifested, restated
from network import no_network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    with no_network():
        return make_workspace(tmp_path_factory.mktemp("made"))


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(made.root, tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def model(workspace: Workspace) -> Artifact:
    return model_of(workspace)


def checked(workspace: Workspace, target: Path | str, *words: str) -> Verification:
    with no_network():
        return verify(workspace, str(target), words, Silent())


def marks(found: Verification) -> dict[str, str]:
    return {item.name: item.mark for item in found.items}


def wrong(found: Verification) -> dict[str, str]:
    assert found.exit_code == 1
    return {item.name: item.found for item in found.items if item.mark == "wrong"}


def test_a_good_model_holds_and_says_what_is_only_claimed(workspace: Workspace, model: Artifact) -> None:
    found = checked(workspace, model.path, "replay=1")
    assert found.exit_code == 0
    said = marks(found)
    replayed = [name for name in said if name.startswith("replay")]
    evaluation = next(name for name in said if name.startswith("evaluation"))
    assert len(replayed) == 1
    verified = {name for name, mark in said.items() if mark == "verified"}
    assert verified == {
        "manifest", "files", "signature", "signer", "model signature", "subject", "tensors", "config",
        "bill of materials", "filing annex", "parent: pretrained", "data: dataset", "sources: dataset", "chain",
        "last weights", "commitments", "initial weights", "order", *replayed,
    }  # fmt: skip
    claimed = {name for name, mark in said.items() if mark == "claimed"}
    assert claimed == {"lineage", evaluation, "code", "packages", "environment", "time"}


def test_a_model_that_is_not_trained_in_steps_has_a_record_too(workspace: Workspace) -> None:
    found = checked(workspace, model_of(workspace, "tiny-tfidf-lr").path)
    assert found.exit_code == 0
    assert marks(found)["chain"] == "not applicable"
    assert marks(found)["commitments"] == "not applicable"


def test_a_name_is_as_good_as_a_folder(workspace: Workspace, model: Artifact) -> None:
    assert checked(workspace, "tiny@latest").artifact.digest == model.digest
    with pytest.raises(UsageError):
        checked(workspace, "nobody@latest")
    with pytest.raises(UsageError, match=r"manifest\.json"):
        checked(workspace, workspace.root)


def flip(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# Twelve tamperings


def test_a_bit_of_a_weight(workspace: Workspace, model: Artifact) -> None:
    flip(model.path / "model.safetensors")
    said = wrong(checked(workspace, model.path))
    assert said.keys() == {"files", "subject", "tensors", "model signature", "last weights"}
    assert marks(checked(workspace, model.path))["initial weights"] == "verified"
    assert said["files"] == "model.safetensors was changed"
    assert said["model signature"] == "model.safetensors was changed"
    remanifested(model.path)  # hidden from the manifest, not from what was signed
    said = wrong(checked(workspace, model.path))
    assert "files" not in said
    assert "model.safetensors was changed" in said["subject"]


def test_a_byte_of_the_data(workspace: Workspace, model: Artifact) -> None:
    (dataset,) = workspace.all("dataset")
    flip(dataset.path / "train.parquet", 100)
    said = wrong(checked(workspace, model.path))
    assert "train.parquet was changed" in said["data: dataset"]
    assert said.keys() == {"data: dataset"}


def test_a_reordered_line_of_the_chain(workspace: Workspace, model: Artifact) -> None:
    path = model.path / "chain.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))
    remanifested(model.path)
    said = wrong(checked(workspace, model.path))
    assert said["chain"].endswith("line 2 does not follow the one before it")


def test_a_changed_loss_in_the_chain(workspace: Workspace, model: Artifact) -> None:
    path = model.path / "chain.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    entry = json.loads(lines[2])
    entry["loss"] = 0.001
    path.write_text("".join([*lines[:2], json.dumps(entry) + "\n", *lines[3:]]))
    assert wrong(checked(workspace, model.path))["chain"].endswith("line 3 was changed")


def test_a_changed_loss_in_a_chain_whose_hashes_were_computed_anew(workspace: Workspace, model: Artifact) -> None:
    def change(entries: list[dict]) -> None:
        entries[2]["loss"] = 0.001

    rechained(model.path, change)
    remanifested(model.path)
    assert "its last hash is" in wrong(checked(workspace, model.path))["chain"]


@pytest.mark.parametrize("end", ["as it is", "made up"])
def test_a_cut_chain(workspace: Workspace, model: Artifact, end: str) -> None:
    if end == "as it is":
        path = model.path / "chain.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:3]))
    else:
        rechained(model.path, lambda entries: entries.pop(1))
    remanifested(model.path)
    said = wrong(checked(workspace, model.path))["chain"]
    if end == "as it is":
        assert said.endswith("line 4 is missing: the chain stops before the end of the run")
    else:
        assert "it has 4 lines, and the statement says 5" in said


def other_keys(tmp_path: Path) -> tuple[Path, Path]:
    return signing.make_keys(tmp_path / "other" / "keys")


def test_a_replaced_signature(workspace: Workspace, model: Artifact, tmp_path: Path) -> None:
    path = model.path / "record" / "statement.dsse.json"
    private, _ = other_keys(tmp_path)
    path.write_bytes(signing.sign(signing.Envelope.read(path).payload, private).written())
    said = wrong(checked(workspace, model.path))
    assert said["signature"] == "it does not fit the statement and signer.pub"
    assert "statement.dsse.json" in said["model signature"]


def test_a_replaced_signature_of_the_folder(workspace: Workspace, model: Artifact, tmp_path: Path) -> None:
    private, _ = other_keys(tmp_path)
    signing.sign_folder(model.path, private, "record/model.sig")
    assert wrong(checked(workspace, model.path)).keys() == {"model signature"}


def test_another_key(workspace: Workspace, model: Artifact, tmp_path: Path) -> None:
    """Whoever has the files can sign them anew: only the fingerprint tells, so it is shown and nothing is concluded."""
    other, known = Workspace(tmp_path / "other"), workspace.root / "keys" / "signing.pub"
    _, theirs = other_keys(tmp_path)
    shutil.rmtree(model.path / "record")
    moved = workspace.root / "moved"
    (workspace.root / "keys").rename(moved)
    shutil.copytree(other.root / "keys", workspace.root / "keys")
    record(workspace, model, Silent())
    shutil.rmtree(workspace.root / "keys")
    moved.rename(workspace.root / "keys")

    found = checked(workspace, model.path)
    mark = signing.fingerprint(theirs.read_bytes())
    assert found.exit_code == 0
    (signer,) = [item for item in found.items if item.name == "signer"]
    assert signer.mark == "claimed"
    assert mark in signer.found
    assert marks(checked(workspace, model.path, f"key={theirs}"))["signer"] == "verified"
    said = wrong(checked(workspace, model.path, f"key={known}"))
    assert said.keys() == {"signer"}
    assert mark in said["signer"]


def test_a_missing_parent(workspace: Workspace, model: Artifact) -> None:
    """Who is given a model is seldom given what it was made of: it is said, and is no refusal."""
    for kind in ("pretrained", "dataset"):
        shutil.rmtree(workspace.artifacts / kind)
    found = checked(workspace, model.path)
    missing = {item.name: item.found for item in found.items if item.mark == "missing"}
    assert missing.keys() == {"parent: pretrained", "data: dataset", "commitments"}
    assert model.manifest["parents"]["pretrained"][:12] in missing["parent: pretrained"]
    assert found.exit_code == 0
    asked = checked(workspace, model.path, "replay=1")  # what was asked for and cannot be done is a refusal
    assert asked.exit_code == 3


def test_a_damaged_parent(workspace: Workspace, model: Artifact) -> None:
    (parent,) = workspace.all("pretrained")
    flip(parent.path / "model.safetensors")
    assert "model.safetensors was changed" in wrong(checked(workspace, model.path))["parent: pretrained"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_changed_value_of_the_config(workspace: Workspace, model: Artifact, hidden: bool) -> None:
    def change(manifest: dict) -> None:
        manifest["config"]["train"]["epochs"] = 30

    if hidden:
        remanifested(model.path, change)
    else:
        manifest = read_json(model.path / "manifest.json")
        change(manifest)
        write_json(model.path / "manifest.json", manifest)
    said = wrong(checked(workspace, model.path))
    assert said["config"] == "train.epochs is 30 and was to be 3"
    assert "manifest.json was changed" in said["subject"]
    assert ("manifest" in said) is not hidden


def test_an_added_file(workspace: Workspace, model: Artifact) -> None:
    (model.path / "run_me.py").write_text("")
    (model.path / "record" / "notes.txt").write_text("")
    said = wrong(checked(workspace, model.path))
    assert said["files"] == "record/notes.txt is not in the manifest; run_me.py is not in the manifest"
    assert said["subject"] == "run_me.py is not in the statement"
    assert "run_me.py" in said["model signature"]
    assert "record/notes.txt" in said["model signature"]


def test_a_changed_bill_of_materials(workspace: Workspace, model: Artifact) -> None:
    path = model.path / "record" / "bom.cdx.json"
    bom = read_json(path)
    del bom["metadata"]["component"]["pedigree"]
    bom["metadata"]["component"]["name"] = "ours-entirely"
    path.write_text(json.dumps(bom))
    said = wrong(checked(workspace, model.path))
    assert said.keys() == {"bill of materials", "model signature"}
    assert 'metadata.component.name is "ours-entirely" and was to be "tiny"' in said["bill of materials"]
    assert "metadata.component.pedigree is null" in said["bill of materials"]
    assert said["bill of materials"].count(" was to be ") == 2


def test_a_changed_annex(workspace: Workspace, model: Artifact) -> None:
    path = model.path / "record" / "filing.zh.md"
    path.write_text(path.read_text(encoding="utf-8").replace("不构成法律意见", "构成法律意见"), encoding="utf-8")
    assert wrong(checked(workspace, model.path)).keys() == {"filing annex", "model signature"}


def claim_scratch(statement: dict) -> None:
    facts = statement["predicate"]["buildDefinition"]["internalParameters"]
    facts["lineage"]["parents"] = []


def shift_commitment(statement: dict) -> None:
    facts = statement["predicate"]["buildDefinition"]["internalParameters"]
    facts["commitments"]["init"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "also"), [(claim_scratch, set()), (shift_commitment, {"commitments"})], ids=["lineage", "commitment"]
)
def test_a_changed_payload(
    workspace: Workspace, model: Artifact, change: Callable[[dict], None], also: set[str]
) -> None:
    restated(model.path, change)
    said = wrong(checked(workspace, model.path))
    assert said.keys() == {"signature", "model signature", *also}


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement["predicate"]["buildDefinition"].pop("internalParameters"),
        lambda statement: statement["predicate"]["buildDefinition"]["internalParameters"].update(data=[{"role": 1}]),
        lambda statement: statement.update(subject=[{"name": "x"}]),
        lambda statement: statement.update(predicateType="another"),
        lambda statement: statement["predicate"]["runDetails"].pop("metadata"),
    ],
)
def test_a_statement_of_another_layout_is_wrong_and_no_crash(
    workspace: Workspace, model: Artifact, change: Callable[[dict], None]
) -> None:
    restated(model.path, change)
    assert "statement" in wrong(checked(workspace, model.path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"payload": 1, "payloadType": "x", "signatures": []}'])
def test_what_is_no_envelope_is_wrong_and_no_crash(workspace: Workspace, model: Artifact, content: bytes) -> None:
    (model.path / "record" / "statement.dsse.json").write_bytes(content)
    assert "statement" in wrong(checked(workspace, model.path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_what_is_no_signature_of_a_folder_is_wrong_and_no_crash(
    workspace: Workspace, model: Artifact, content: bytes
) -> None:
    (model.path / "record" / "model.sig").write_bytes(content)
    assert wrong(checked(workspace, model.path)).keys() == {"model signature"}


def test_a_record_of_another_model(workspace: Workspace, model: Artifact) -> None:
    other = model_of(workspace, "tiny-tfidf-lr")
    shutil.rmtree(other.path / "record")
    shutil.copytree(model.path / "record", other.path / "record")
    assert f"it is about {model.digest[:12]}" in wrong(checked(workspace, other.path))["subject"]


def test_without_a_record_nothing_is_proved(workspace: Workspace, model: Artifact) -> None:
    shutil.rmtree(model.path / "record")
    found = checked(workspace, model.path)
    assert marks(found) == {"manifest": "verified", "files": "verified", "statement": "missing"}
    assert found.exit_code == 3
    (dataset,) = workspace.all("dataset")
    assert checked(workspace, dataset.path).exit_code == 0


def test_without_its_packages_a_signature_is_missing_and_not_taken_as_good(
    workspace: Workspace, model: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("danlu.audit.record.check.can_sign", lambda: False)
    found = checked(workspace, model.path)
    assert marks(found)["signature"] == "missing"
    assert marks(found)["bill of materials"] == "claimed"
    assert found.exit_code == 3


def test_seeds_from_elsewhere(workspace: Workspace, model: Artifact, tmp_path: Path) -> None:
    runs = {path.name.split("-")[1]: path / "seeds.json" for path in workspace.runs.glob("tiny-*-*")}
    shutil.move(runs["model"], tmp_path / "seeds.json")
    found = checked(workspace, model.path)
    assert (marks(found)["commitments"], found.exit_code) == ("missing", 0)
    found = checked(workspace, model.path, f"seeds={tmp_path / 'seeds.json'}")
    assert marks(found)["initial weights"] == "verified"
    said = wrong(checked(workspace, model.path, f"seeds={runs['pretrained']}"))
    assert said == {"commitments": "the seeds are not those that were committed to before step 0"}
    absent = checked(workspace, model.path, f"seeds={tmp_path / 'absent.json'}")
    assert absent.exit_code == 3


def test_a_key_that_is_none(workspace: Workspace, model: Artifact) -> None:
    for path in (model.path / "config.json", model.path / "absent.pem"):
        with pytest.raises(UsageError, match="not a public key"):
            checked(workspace, model.path, f"key={path}")
    with pytest.raises(UsageError, match="replay"):
        checked(workspace, model.path, "replay=-1")


def test_an_evaluation(workspace: Workspace) -> None:
    evaluation = next(workspace.all("evaluation"))
    found = checked(workspace, evaluation.path)
    assert found.exit_code == 0
    assert set(marks(found).values()) == {"verified"}
    facts = read_json(evaluation.path / "evaluation.json")
    facts["metrics"][facts["primary"]]["value"] = 0.999
    write_json(evaluation.path / "evaluation.json", facts)
    remanifested(evaluation.path)
    said = wrong(checked(workspace, evaluation.path))
    assert said["findings"] == "metrics is another one in evaluation.json"
    assert "evaluation.json was changed" in said["subject"]


def test_running_the_recipe_again_leaves_records_alone(workspace: Workspace, model: Artifact) -> None:
    before = {path: path.read_bytes() for path in (model.path / "record").iterdir()}
    record(workspace, model, Silent())
    restated(model.path, claim_scratch)  # still about this model: whether it is right, verify says
    record(workspace, model, Silent())
    flipped = before | {path: path.read_bytes() for path in before if path.name == "statement.dsse.json"}
    assert {path: path.read_bytes() for path in (model.path / "record").iterdir()} == flipped
    noted = Noting()
    (model.path / "record" / "statement.dsse.json").write_bytes(b"{}")
    record(workspace, model, noted)
    assert (model.path / "record" / "statement.dsse.json").read_bytes() == b"{}"
    assert "danlu verify" in noted.notes[-1]
