"""Artifacts appear whole or not at all, and know when they were touched."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core import artifact as artifacts
from danlu.core.artifact import FORMAT, RECORD, RECORD_FILES, Artifact, create, environment
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, read_json, write_json

CONFIG = {"epochs": 3, "名": "丹"}


def make(root: Path, content: bytes = b"content", **changes: Any) -> Artifact:
    arguments: dict[str, Any] = {
        "kind": "dataset",
        "name": "reviews",
        "key": "k" * 64,
        "config": CONFIG,
        "parents": {"raw": "d" * 64},
        **changes,
    }
    with create(root, **arguments) as draft:
        (draft.folder / "inner").mkdir()
        (draft.folder / "inner" / "data.bin").write_bytes(content)
        write_json(draft.folder / "summary.json", {"n": 1})
    return draft.artifact


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*/*") if path.name != ".scratch.lock")


def test_what_was_made_can_be_opened(tmp_path: Path) -> None:
    made = make(tmp_path, commitments={"init": "c" * 64})
    opened = Artifact.open(made.path, "dataset")
    assert opened == made
    assert made.path == tmp_path / "dataset" / f"reviews-{made.digest[:12]}"
    assert (opened.kind, opened.name, opened.config) == ("dataset", "reviews", CONFIG)
    assert opened.manifest["parents"] == {"raw": "d" * 64}
    assert opened.manifest["commitments"] == {"init": "c" * 64}
    assert opened.manifest["environment"] == environment()
    assert list(opened.manifest["files"]) == ["inner/data.bin", "summary.json"]
    assert opened.manifest["files"]["inner/data.bin"] == {
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "bytes": 7,
    }
    assert opened.json("summary.json") == {"n": 1}
    opened.verify()


def test_the_digest_is_that_of_the_identity_and_never_drifts(tmp_path: Path) -> None:
    made = make(tmp_path)
    identity = {
        "format": 1,
        "kind": "dataset",
        "name": "reviews",
        "key": "k" * 64,
        "config": CONFIG,
        "parents": {"raw": "d" * 64},
        "commitments": {},
        "files": made.manifest["files"],
    }
    assert made.digest == digest_of(identity)
    assert made.digest == "637598bc92d083249668866b244482d14d6dc330185a0a37fc1f32f8aa167b80"


def test_the_digest_does_not_depend_on_when_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(tmp_path / "first")
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1999, 1, 1, 0, 0, 0, 4, 1, 0)))
    monkeypatch.setattr(artifacts, "environment", lambda: {"danlu": "99"})
    second = make(tmp_path / "second")
    assert first.manifest["created"] != second.manifest["created"]
    assert first.digest == second.digest


def test_the_digest_does_not_depend_on_what_was_measured(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"key": "k", "config": {}, "parents": {}}
    made = []
    for seconds in (1.5, 2.5):
        with create(tmp_path / str(seconds), "model", "m", **arguments) as draft:
            (draft.folder / "file").write_bytes(b"same")
            draft.measured["seconds"] = seconds
        made.append(draft.artifact)
    assert [artifact.manifest["measured"] for artifact in made] == [{"seconds": 1.5}, {"seconds": 2.5}]
    assert made[0].digest == made[1].digest
    assert "measured" not in make(tmp_path).manifest


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "model"},
        {"name": "other"},
        {"key": "x" * 64},
        {"config": {"epochs": 4}},
        {"parents": {}},
        {"commitments": {"init": "c" * 64}},
        {"content": b"Content"},
    ],
)
def test_the_digest_depends_on_everything_else(tmp_path: Path, change: dict[str, Any]) -> None:
    assert make(tmp_path, **change).digest != make(tmp_path).digest


def test_the_same_work_done_twice_is_there_once(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    assert first == second
    assert names(tmp_path) == [first.path.name]


def test_the_same_work_done_at_the_same_time_is_there_once(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"key": "k", "config": {}, "parents": {}}
    with create(tmp_path, "model", "m", **arguments) as one, create(tmp_path, "model", "m", **arguments) as two:
        (one.folder / "file").write_bytes(b"same")
        (two.folder / "file").write_bytes(b"same")
    assert one.artifact == two.artifact
    one.artifact.verify()
    assert names(tmp_path) == [one.artifact.path.name]


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_appears_when_the_block_fails(tmp_path: Path, fault: type[BaseException]) -> None:
    drafts = []

    def fail() -> None:
        with create(tmp_path, "model", "m", key="k", config={}, parents={}) as draft:
            drafts.append(draft)
            (draft.folder / "file").write_bytes(b"half")
            raise fault

    with pytest.raises(fault):
        fail()
    assert names(tmp_path) == []
    with pytest.raises(AssertionError):
        _ = drafts[0].artifact


def test_nothing_appears_before_the_block_has_ended(tmp_path: Path) -> None:
    with create(tmp_path, "model", "m", key="k", config={}, parents={}) as draft:
        (draft.folder / "file").write_bytes(b"half")
        assert [path for path in (tmp_path / "model").iterdir() if not path.name.startswith(".")] == []
    assert draft.artifact.path.is_dir()


KILLED = """
import os, signal, sys
from pathlib import Path
from danlu.core import artifact, files
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "rename":
    Path.rename = die
elif sys.argv[2] == "manifest":
    artifact.write_json = die
with artifact.create(Path(sys.argv[1]), "model", "m", key="k", config={}, parents={}) as draft:
    (draft.folder / "file").write_bytes(b"half")
    if sys.argv[2] == "block":
        die()
"""


@pytest.mark.parametrize("point", ["block", "manifest", "rename"])
def test_nothing_appears_when_the_process_is_killed(tmp_path: Path, point: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), point], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [name for name in names(tmp_path) if not name.startswith(".scratch-")] == []
    with create(tmp_path, "model", "m", key="k", config={}, parents={}) as draft:
        (draft.folder / "file").write_bytes(b"whole")
    assert names(tmp_path) == [draft.artifact.path.name]
    draft.artifact.verify()


# what was touched


def test_verify_names_every_file_that_is_wrong(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.path / "inner" / "data.bin").write_bytes(b"Content")
    (made.path / "summary.json").unlink()
    (made.path / "inner" / "extra").write_bytes(b"")
    with pytest.raises(CorruptError) as caught:
        made.verify()
    assert caught.value.what == (
        "inner/data.bin was changed; summary.json is missing; inner/extra is not in the manifest"
    )
    assert caught.value.where == str(made.path)


@settings(max_examples=20)
@given(st.integers(0, 7 * 8 - 1))
def test_verify_finds_any_flipped_bit(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    made = make(tmp_path_factory.mktemp("artifact"))
    content = bytearray(b"content")
    content[bit // 8] ^= 1 << bit % 8
    (made.path / "inner" / "data.bin").write_bytes(content)
    with pytest.raises(CorruptError, match=r"data\.bin was changed"):
        made.verify()


def tamper(made: Artifact, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = read_json(made.path / "manifest.json")
    change(manifest)
    write_json(made.path / "manifest.json", manifest)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["config"].update(epochs=4),
        lambda m: m["parents"].clear(),
        lambda m: m["files"].pop("summary.json"),
        lambda m: m["files"]["summary.json"].update(sha256="0" * 64),
        lambda m: m["commitments"].update(init="0" * 64),
        lambda m: m.update(name="other"),
        lambda m: m.update(key="other"),
        lambda m: m.update(kind="model"),
        lambda m: m.update(digest="0" * 64),
        lambda m: m.update(digest=None),
        lambda m: m.update(format=0),
        lambda m: m.update(format="one"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_not_opened(tmp_path: Path, change: Callable[..., object]) -> None:
    made = make(tmp_path)
    tamper(made, change)
    with pytest.raises(CorruptError, match="does not match its own digest") as caught:
        Artifact.open(made.path)
    assert caught.value.where == str(made.path / "manifest.json")
    assert caught.value.advice


@pytest.mark.parametrize(
    "key", ["format", "kind", "name", "key", "config", "parents", "commitments", "files", "digest"]
)
def test_a_manifest_that_lacks_a_key_is_not_opened(tmp_path: Path, key: str) -> None:
    made = make(tmp_path)
    tamper(made, lambda manifest: manifest.pop(key))
    with pytest.raises(CorruptError, match="lacks"):
        Artifact.open(made.path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3"])
def test_a_manifest_that_is_none_is_not_opened(tmp_path: Path, content: bytes) -> None:
    made = make(tmp_path)
    (made.path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptError):
        Artifact.open(made.path)


def test_when_and_where_it_was_made_is_outside_the_digest(tmp_path: Path) -> None:
    made = make(tmp_path)
    tamper(made, lambda manifest: manifest.update(created="2001-01-01T00:00:00Z"))
    assert Artifact.open(made.path).digest == made.digest


def test_a_newer_format_asks_for_an_upgrade_whatever_else_changed(tmp_path: Path) -> None:
    made = make(tmp_path)
    write_json(made.path / "manifest.json", {"format": FORMAT + 1, "all": "different"})
    with pytest.raises(UsageError, match=f"written in format {FORMAT + 1}") as caught:
        Artifact.open(made.path)
    assert caught.value.advice == "upgrade danlu"


def test_a_folder_that_is_no_artifact_and_one_of_another_kind(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        Artifact.open(tmp_path)
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        Artifact.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="this is a dataset, not a model"):
        Artifact.open(made.path, "model")


def test_a_file_that_it_lacks_or_that_was_removed(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(CorruptError, match=r"has no metrics\.json"):
        made.json("metrics.json")
    (made.path / "summary.json").unlink()
    with pytest.raises(CorruptError, match="missing"):
        made.json("summary.json")


def test_a_copied_folder_is_still_whole(tmp_path: Path) -> None:
    made = make(tmp_path)
    copy = shutil.copytree(made.path, tmp_path / "elsewhere")
    opened = Artifact.open(copy, "dataset")
    opened.verify()
    assert opened.digest == made.digest


def test_the_manifest_is_readable_json_and_names_what_may_change_a_result(tmp_path: Path) -> None:
    made = make(tmp_path)
    stored = json.loads((made.path / "manifest.json").read_text(encoding="utf-8"))
    assert stored == made.manifest
    assert {"danlu", "python", "platform", "torch", "numpy"} <= stored["environment"].keys()


def test_a_record_beside_the_manifest_is_allowed_and_nothing_else_is(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.path / RECORD).mkdir()
    for name in RECORD_FILES:
        (made.path / RECORD / name).write_text("x")
    made.verify()
    assert Artifact.open(made.path).digest == made.digest
    (made.path / RECORD / "other.txt").write_text("x")
    (made.path / "inner" / RECORD).mkdir()
    (made.path / "inner" / RECORD / RECORD_FILES[0]).write_text("x")
    assert made.differences() == [
        "inner/record/bom.cdx.json is not in the manifest",
        "record/other.txt is not in the manifest",
    ]
    with pytest.raises(CorruptError, match=r"record/other\.txt"):
        made.verify()
