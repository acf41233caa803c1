"""Artifacts: folders that appear whole or not at all, and say in a manifest what they are and what they came from.

    artifacts/<kind>/<name>-<first 12 of digest>/
        manifest.json      written last
        ...                any files
        record/            a signed record about the finished artifact, where one was written: outside its digest

The digest is that of kind, name, config, parents and the files' own digests. When, where and how fast an artifact was
made is in the manifest too, outside the digest: the same work done twice has one identity.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from danlu._version import __version__
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import digest_of, publish, read_json, scratch_folder, sha256_file, write_json

__all__ = ["FORMAT", "RECORD", "RECORD_FILES", "Artifact", "Draft", "create", "environment", "identity_digest"]

FORMAT = 1
"""Version of the manifest's layout. A later danlu reads every earlier one."""

RECORD = "record"
"""The folder, in an artifact's own, of the record about it (:mod:`danlu.audit.record`)."""

RECORD_FILES = ("bom.cdx.json", "filing.zh.md", "model.sig", "signer.pub", "statement.dsse.json")
"""What may lie there, and nothing else."""

_IDENTITY = ("format", "kind", "name", "key", "config", "parents", "commitments", "files")
_MEND = "restore the folder from a copy, or remove it and run the same command again"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk.

    Attributes:
        path: Its folder.
        manifest: The content of ``manifest.json``.
    """

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: Path, kind: str | None = None) -> Artifact:
        """Open an artifact folder.

        Args:
            path: The folder.
            kind: What it must be.

        Raises:
            UsageError: No artifact there, one of another kind, or one written by a later danlu.
            CorruptError: The manifest is damaged.
        """
        if not (path / "manifest.json").is_file():
            raise UsageError("not an artifact: it has no manifest.json", where=str(path))
        manifest = read_json(path / "manifest.json")
        number = manifest.get("format") if isinstance(manifest, dict) else None
        if isinstance(number, int) and number > FORMAT:
            raise UsageError(
                f"written in format {number}; this danlu reads up to {FORMAT}", where=str(path), advice="upgrade danlu"
            )
        where = str(path / "manifest.json")
        if not isinstance(manifest, dict) or not {*_IDENTITY, "digest"} <= manifest.keys():
            raise CorruptError("the manifest lacks some of its keys", where=where, advice=_MEND)
        if manifest["digest"] != identity_digest(manifest):
            raise CorruptError("the manifest does not match its own digest", where=where, advice=_MEND)
        if kind is not None and manifest["kind"] != kind:
            advice = "danlu log lists the models with their folders"
            raise UsageError(f"this is a {manifest['kind']}, not a {kind}", where=str(path), advice=advice)
        return cls(path, manifest)

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact's identity, in hexadecimal."""
        return str(self.manifest["digest"])

    @property
    def kind(self) -> str:
        """``dataset``, ``model``, ``evaluation``, ..."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """The name that the recipe gave."""
        return str(self.manifest["name"])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config that it was made with."""
        return dict(self.manifest["config"])

    def json(self, name: str) -> Any:
        """Read one of its JSON files.

        Raises:
            CorruptError: The artifact has no such file, or it is damaged.
        """
        if name not in self.manifest["files"]:
            raise CorruptError(f"the artifact has no {name}", where=str(self.path))
        return read_json(self.path / name)

    def verify(self) -> None:
        """Hash every file again.

        Raises:
            CorruptError: A file is missing, changed, or not in the manifest; all of them are named.
        """
        if wrong := self.differences():
            raise CorruptError("; ".join(wrong), where=str(self.path), advice=_MEND)

    def differences(self) -> list[str]:
        """Hash every file again: which are missing, changed, or neither in the manifest nor a record's."""
        wrong = []
        present = {p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file()}
        present -= {"manifest.json", *(f"{RECORD}/{name}" for name in RECORD_FILES)}
        for name, stored in self.manifest["files"].items():
            if name not in present:
                wrong.append(f"{name} is missing")
            elif sha256_file(self.path / name) != stored["sha256"]:
                wrong.append(f"{name} was changed")
        return wrong + [f"{name} is not in the manifest" for name in sorted(present - self.manifest["files"].keys())]


@dataclass
class Draft:
    """An artifact being made: fill ``folder``; ``done`` is set when the block that made it has ended well.

    ``measured`` takes what differs when the same work is done again, such as seconds: it goes into the manifest,
    outside the digest.
    """

    folder: Path
    done: Artifact | None = None
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def artifact(self) -> Artifact:
        """The finished artifact."""
        assert self.done is not None, "the artifact is complete only after its block has ended"
        return self.done


@contextlib.contextmanager
def create(
    root: Path,
    kind: str,
    name: str,
    *,
    key: str,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    commitments: Mapping[str, str] | None = None,
) -> Iterator[Draft]:
    """Make an artifact: it appears when the block ends well, and leaves nothing when it does not.

    Args:
        root: The workspace's ``artifacts`` folder.
        kind: What it is.
        name: Its name, from the recipe.
        key: Digest of what went in; the same key means that the work need not be done again.
        config: The resolved config, as JSON values.
        parents: role -> digest of each artifact that it was made from.
        commitments: Seed commitments, for what used randomness.

    Yields:
        A draft whose ``folder`` is to be filled.

    Raises:
        DanluError: The disk is full or may not be written to.
    """
    home = root / kind
    with scratch_folder(home) as folder:
        draft = Draft(folder)
        yield draft
        files = {
            str(path.relative_to(folder)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "name": name,
            "key": key,
            "config": dict(config),
            "parents": dict(parents),
            "commitments": dict(commitments or {}),
            "files": files,
        }
        manifest["digest"] = digest_of(manifest)
        manifest["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest["environment"] = environment()
        if draft.measured:
            manifest["measured"] = draft.measured
        write_json(folder / "manifest.json", manifest)
        target = home / f"{name}-{manifest['digest'][:12]}"
        with contextlib.suppress(FileExistsError):  # the same work was done before, or beside us
            publish(folder, target)
        draft.done = Artifact.open(target)


def identity_digest(manifest: Mapping[str, Any]) -> str:
    """The digest that a manifest must bear, of what it says.

    Raises:
        KeyError: It lacks a key.
    """
    return digest_of({name: manifest[name] for name in _IDENTITY})


def environment() -> dict[str, str]:
    """What the work was done with: versions that may change a result, and the machine's kind."""
    packages = {}
    for package in ("torch", "numpy", "tokenizers", "scikit-learn", "pyarrow", "opencc"):
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    return {
        "danlu": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **packages,
    }
