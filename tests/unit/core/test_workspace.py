"""The workspace: where everything is, and what a target means."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from danlu.core.artifact import Artifact
from danlu.core.errors import CorruptError, UsageError
from danlu.core.workspace import Workspace


def make(workspace: Workspace, name: str, kind: str = "model", key: str = "key") -> Artifact:
    with workspace.create(kind, name, key=key, config={}, parents={}) as draft:
        (draft.folder / "file").write_text(name)
    return draft.artifact


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path / "workspace")


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DANLU_HOME", raising=False)
    assert Workspace().root == tmp_path / "danlu-workspace"
    monkeypatch.setenv("DANLU_HOME", "")
    assert Workspace().root == tmp_path / "danlu-workspace"
    monkeypatch.setenv("DANLU_HOME", str(tmp_path / "home"))
    assert Workspace().root == tmp_path / "home"
    assert Workspace(Path("given")).root == tmp_path / "given"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("DANLU_HOME", "~/here")
    assert Workspace().root == tmp_path / "me" / "here"
    assert list(tmp_path.iterdir()) == []


def test_every_finished_artifact_and_no_other(workspace: Workspace) -> None:
    assert list(workspace.all()) == []
    dataset, model = make(workspace, "b", "dataset"), make(workspace, "a")
    with workspace.create("model", "unfinished", key="k", config={}, parents={}) as draft:
        (draft.folder / "manifest.json").write_text("half")
        assert list(workspace.all()) == [dataset, model]
        assert list(workspace.all("model")) == [model]
        (draft.folder / "manifest.json").unlink()


def test_the_same_work_is_found_by_its_key(workspace: Workspace) -> None:
    first, other = make(workspace, "a", key="1"), make(workspace, "a", "dataset", key="2")
    assert workspace.with_key("model", "1") == first
    assert workspace.with_key("dataset", "2") == other
    assert workspace.with_key("model", "2") is None


def test_a_digest_finds_its_artifact(workspace: Workspace) -> None:
    made = make(workspace, "a")
    decoy = shutil.copytree(made.path, made.path.with_name(f"other-{made.digest[:12]}"))
    assert workspace.with_digest(made.digest).digest == made.digest
    shutil.rmtree(decoy)
    with pytest.raises(CorruptError, match="no longer here"):
        workspace.with_digest(made.digest[:12] + "0" * 52)


@pytest.fixture
def named(workspace: Workspace) -> dict[str, Artifact]:
    made = {name: make(workspace, name, key=f"key of {name}") for name in ("old", "new")}
    workspace.ledger.set_alias("reviews", "champion", made["old"], reason="first")
    workspace.ledger.set_alias("reviews", "challenger", made["new"], reason="second")
    return made


def test_a_target_is_a_folder_a_name_with_an_alias_or_a_name(workspace: Workspace, named: dict[str, Artifact]) -> None:
    old, new = named["old"], named["new"]
    for target, expected in {
        str(old.path): old,
        f"{old.path}/": old,
        "reviews": old,
        "reviews@": old,
        "reviews@champion": old,
        "reviews@challenger": new,
    }.items():
        assert workspace.target(target, "model").digest == expected.digest


def test_a_target_in_this_folder(
    workspace: Workspace, named: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = named["new"]
    monkeypatch.chdir(new.path.parent)
    for target in (new.path.name, f"./{new.path.name}", f"{new.path.name}/"):
        assert workspace.target(target, "model").digest == new.digest


def test_a_folder_that_happens_to_have_a_models_name_does_not_hide_it(
    workspace: Workspace, named: dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "reviews").mkdir()
    assert workspace.target("reviews", "model").digest == named["old"].digest


def test_a_target_of_another_kind(workspace: Workspace, named: dict[str, Artifact]) -> None:
    for target in ("reviews@champion", str(named["old"].path)):
        with pytest.raises(UsageError, match="a model, not a dataset"):
            workspace.target(target, "dataset")


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("recipe.yaml", "not an artifact's folder: recipe.yaml"),
        ("no/such/folder", "not an artifact's folder: no/such/folder"),
        ("./workspace", "not an artifact's folder: ./workspace"),
        ("review", "did you mean 'reviews'"),
        ("reviews@champ", "did you mean 'champion'"),
        ("", "no model is named ''"),
        ("@champion", "no model is named ''"),
        ("质量很差，退货了" * 100, "no model is named"),
        ("a/" * 5000, "not an artifact's folder"),
        ("a\0b", "no model is named"),
    ],
)
def test_what_means_nothing_says_so(workspace: Workspace, target: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        workspace.target(target, "model")
    assert caught.value.advice


def test_an_artifact_that_was_removed(workspace: Workspace, named: dict[str, Artifact]) -> None:
    shutil.rmtree(named["old"].path)
    with pytest.raises(CorruptError, match="no longer here") as caught:
        workspace.target("reviews", "model")
    assert "run the recipe again" in (caught.value.advice or "")


def test_damage_is_found_wherever_an_artifact_is_asked_for(workspace: Workspace, named: dict[str, Artifact]) -> None:
    old = named["old"]
    (old.path / "file").write_text("changed")
    asks: tuple[Callable[[], Artifact | None], ...] = (
        lambda: workspace.target("reviews", "model"),
        lambda: workspace.target(str(old.path), "model"),
        lambda: workspace.with_digest(old.digest),
        lambda: workspace.with_key("model", "key of old"),
    )
    for ask in asks:
        with pytest.raises(CorruptError, match="file was changed"):
            ask()
    assert workspace.target("reviews@challenger", "model").digest == named["new"].digest
