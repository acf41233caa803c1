"""A record is written whole, once, and without anybody's packages or network; what is missing is said."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import ones

from danlu.audit.record import signing
from danlu.audit.record.revision import code_revision
from danlu.audit.record.signing import Envelope
from danlu.audit.record.statement import Stated
from danlu.core.artifact import Artifact
from danlu.core.files import write_json
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.recording import data_root, record, source_files
from danlu.verifying import verify
from made_record import Noting
from network import no_network


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def made(workspace: Workspace, name: str = "tiny", **changes: dict) -> Artifact:
    """A model as a training leaves it, of a run that kept no chain."""
    config = {
        "task": "text-classification",
        "model": {"family": "bert", "from": "scratch"},
        **changes.get("config", {}),
    }
    arguments = {"parents": {"dataset": "d" * 64, **changes.get("parents", {})}, "commitments": {"init": "c" * 64}}
    with workspace.create("model", name, key="k" * 64, config=config, **arguments) as draft:
        save_file({"a": ones(2)}, draft.folder / "model.safetensors")
        write_json(draft.folder / "training.json", {"n_parameters": 2, "best_score": 0.5, "seconds": 1.0})
    return draft.artifact


def stated(artifact: Artifact) -> Stated:
    return Stated(Envelope.read(artifact.path / "record" / "statement.dsse.json").statement())


def names(artifact: Artifact) -> list[str]:
    return sorted(path.name for path in (artifact.path / "record").iterdir())


def test_a_record_is_whole_signed_and_made_without_a_network(workspace: Workspace) -> None:
    model, noted = made(workspace), Noting()
    with no_network():
        assert record(workspace, model, noted) is model
    assert names(model) == ["bom.cdx.json", "filing.zh.md", "model.sig", "signer.pub", "statement.dsse.json"]
    model.verify()
    public = workspace.root / "keys" / "signing.pub"
    assert signing.fingerprint(public.read_bytes())[:16] in noted.notes[-1]
    secret = (workspace.root / "keys" / "signing.pem").read_text().splitlines()[1]
    assert not [path for path in model.path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert sorted(path.name for path in model.path.parent.iterdir()) == [".scratch.lock", model.path.name]


def test_without_the_extra_it_is_written_unsigned_and_signed_once_it_can_be(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, noted = made(workspace), Noting()
    with monkeypatch.context() as patched:
        patched.setattr(signing, "can_sign", lambda: False)
        record(workspace, model, noted)
        assert names(model) == ["bom.cdx.json", "filing.zh.md", "statement.dsse.json"]
        assert "pip install 'danlu[audit]'" in noted.notes[-1]
        before = (model.path / "record" / "statement.dsse.json").read_bytes()
        record(workspace, model, Silent())
        assert (model.path / "record" / "statement.dsse.json").read_bytes() == before
    assert not (workspace.root / "keys").exists()
    found = verify(workspace, str(model.path), [], Silent())
    assert found.exit_code == 3
    assert "not signed" in next(item.found for item in found.items if item.name == "signature")
    record(workspace, model, Silent())
    assert "model.sig" in names(model)
    assert verify(workspace, str(model.path), [], Silent()).exit_code == 0


def test_what_signs_can_be_missing_without_the_rest_failing_to_import() -> None:
    """As on a machine without the extra: none of its packages can be imported."""
    code = (
        "import sys\n"
        "for name in ('cryptography', 'cyclonedx', 'jsonschema_rs', 'model_signing', 'OpenSSL', 'sigstore'):\n"
        "    sys.modules[name] = None\n"
        "import danlu.recording, danlu.verifying\n"
        "from danlu.audit.record import signing\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        "assert not signing.can_sign()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("at", ["sign_folder", "publish"])
def test_a_crash_leaves_no_half_of_a_record_and_the_next_run_writes_it(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    model = made(workspace)

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    signing.make_keys(workspace.root / "keys")
    with monkeypatch.context() as patched:
        patched.setattr(*((signing, at) if at == "sign_folder" else ("danlu.recording.publish",)), crash)
        with pytest.raises(KeyboardInterrupt):
            record(workspace, model, Silent())
    assert not (model.path / "record").exists()
    model.verify()
    record(workspace, model, Silent())
    assert verify(workspace, str(model.path), [], Silent()).exit_code == 0


def test_a_file_system_without_second_names_gets_copies(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(workspace)

    def refuse(*_arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    record(workspace, model, Silent())
    assert verify(workspace, str(model.path), [], Silent()).exit_code == 0


def test_the_lineage_names_what_weights_a_model_goes_back_to(workspace: Workspace) -> None:
    scratch = made(workspace)
    record(workspace, scratch, Silent())
    assert stated(scratch).fact("lineage", "claim") == "from scratch"
    from_sample = {"model": {"family": "bert", "from": "sample:minilm"}, "train": {"adapt": {"mode": "lora"}}}
    tuned = made(workspace, "tuned", config=from_sample, parents={"start": "a" * 64})
    record(workspace, tuned, Silent())
    lineage = stated(tuned).fact("lineage")
    assert not lineage["from_scratch"]
    assert lineage["claim"] == "fine-tuned from, by LoRA, folded in sample:minilm"
    (parent,) = lineage["parents"]
    assert parent["licence"] == "Apache-2.0 (the model), MIT (the package)"
    private = {"model": {"family": "bert", "from": "/srv/someone/secret-model"}}
    other = made(workspace, "other", config=private, parents={"start": "b" * 64})
    record(workspace, other, Silent())
    assert stated(other).fact("lineage", "parents", 0, "name") == "secret-model"
    both = {"family": "ensemble", "members": ["bert", "gru"]}
    of = {"bert": scratch.digest, "gru": tuned.digest}
    with workspace.create("model", "both", key="k" * 64, config=both, parents={"dataset": "d" * 64, **of}) as draft:
        write_json(draft.folder / "model.json", {"task": "text-classification"})
        write_json(draft.folder / "training.json", {"n_parameters": 4})
    record(workspace, draft.artifact, Silent())
    lineage = stated(draft.artifact).fact("lineage")
    assert [parent["relation"] for parent in lineage["parents"]] == ["combined", "combined"]
    assert not lineage["from_scratch"]


def test_sources_of_one_name_stay_apart_and_folders_stay_private(workspace: Workspace) -> None:
    parents = {"/srv/a/x.csv": "1" * 64, "/srv/b/x.csv": "2" * 64}
    with workspace.create("dataset", "d", key="k" * 64, config={}, parents=parents) as draft:
        write_json(draft.folder / "summary.json", {})
    sources = source_files(draft.artifact)
    assert sources == {"x.csv": "1" * 64, f"x.csv ({'2' * 12})": "2" * 64}
    assert data_root({"a": "1"}, sources) != data_root({"a": "2"}, sources)


def test_the_revision_is_that_of_this_code_alone(tmp_path: Path) -> None:
    found = code_revision()
    assert len(found["sha256"]) == 64
    assert (found["commit"] is None) == (found["dirty"] is None)
    copy = tmp_path / "other" / "danlu"  # a package installed into the folder of another project
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not here")
    shutil.copytree(Path(sys.modules["danlu"].__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
    for words in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run([git, "-C", str(tmp_path / "other"), *words], check=True)
    code = "from danlu.audit.record.revision import code_revision; print(code_revision())"
    env = {"PYTHONPATH": str(tmp_path / "other"), "PATH": str(Path(git).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "'commit': None" in done.stdout
    assert "'dirty': None" in done.stdout
