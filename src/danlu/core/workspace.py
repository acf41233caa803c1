"""The workspace: one folder that holds everything danlu makes.

<root>/artifacts/<kind>/<name>-<digest>/   finished work
<root>/runs/<name>-<key>/                  training under way: checkpoints, curves, seeds
<root>/refs/ledger.jsonl                   names and aliases
<root>/refs/experiments.jsonl              trials of a challenger against a champion
<root>/events/*.jsonl                      what happened
<root>/samples/                            fetched samples
<root>/tokens/                             what texts were cut into; may be deleted at any time
<root>/curves/                             pages that compare training curves
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from danlu.core import artifact
from danlu.core.artifact import Artifact, Draft
from danlu.core.errors import CorruptError, UsageError
from danlu.core.experiments import Experiments
from danlu.core.ledger import Ledger

__all__ = ["Workspace"]


class Workspace:
    """A workspace folder.

    Args:
        root: The folder; None takes ``DANLU_HOME``, or ``./danlu-workspace``. Made when first written to.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(os.environ.get("DANLU_HOME") or "danlu-workspace")).expanduser().absolute()
        self.artifacts = self.root / "artifacts"
        self.runs = self.root / "runs"
        self.events = self.root / "events"
        self.samples = self.root / "samples"
        self.tokens = self.root / "tokens"
        self.curves = self.root / "curves"
        self.ledger = Ledger(self.root / "refs" / "ledger.jsonl")
        self.experiments = Experiments(self.root / "refs" / "experiments.jsonl")

    def create(
        self,
        kind: str,
        name: str,
        *,
        key: str,
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        commitments: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Draft]:
        """Make an artifact here; see :func:`danlu.core.artifact.create`."""
        return artifact.create(
            self.artifacts, kind, name, key=key, config=config, parents=parents, commitments=commitments
        )

    def all(self, kind: str | None = None) -> Iterator[Artifact]:
        """Every finished artifact, of one kind or of all, in order of name."""
        for path in sorted(self.artifacts.glob(f"{kind or '*'}/*/manifest.json")):
            if not path.parent.name.startswith("."):
                yield Artifact.open(path.parent)

    def with_key(self, kind: str, key: str) -> Artifact | None:
        """The artifact that the same work made before, every file of it checked, or None.

        Raises:
            CorruptError: It is damaged.
        """
        found = next((found for found in self.all(kind) if found.manifest["key"] == key), None)
        if found:
            found.verify()
        return found

    def with_digest(self, digest: str) -> Artifact:
        """The artifact with a digest, every file of it checked.

        Raises:
            CorruptError: The ledger names it, and it is no longer here or damaged.
        """
        for path in self.artifacts.glob(f"*/*-{digest[:12]}"):
            found = Artifact.open(path)
            if found.digest == digest:
                found.verify()
                return found
        raise CorruptError(
            f"artifact {digest[:12]} is named in the ledger and is no longer here",
            where=str(self.artifacts),
            advice="restore the folder from a copy, or run the recipe again",
        )

    def target(self, target: str, kind: str) -> Artifact:
        """What a TARGET of the command line means.

        Args:
            target: An artifact's folder, ``name@alias``, or a name alone (its champion).
            kind: What it must be.

        Raises:
            UsageError: Nothing is called that.
            CorruptError: It is damaged.
        """
        if _is_artifact(Path(target)):
            found = Artifact.open(Path(target), kind)
            found.verify()
            return found
        if "/" in target or target.endswith((".yaml", ".yml")):
            raise UsageError(
                f"not an artifact's folder: {target}",
                where=str(self.root),
                advice="give an artifact's folder or name@alias; danlu log lists them",
            )
        name, _, alias = target.partition("@")
        found = self.with_digest(self.ledger.resolve(name, alias or "champion"))
        if found.kind != kind:
            raise UsageError(f"{target} is a {found.kind}, not a {kind}", where=str(found.path))
        return found


def _is_artifact(path: Path) -> bool:
    with contextlib.suppress(OSError):  # too long for a path: a text, put where the target belongs
        return (path / "manifest.json").is_file()
    return False
