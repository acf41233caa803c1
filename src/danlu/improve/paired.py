"""Which tests on held-out data there are of a challenger: what ``danlu improve``, ``compare`` and ``run`` have kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace

__all__ = ["PairedTest", "tests_of"]


@dataclass(frozen=True)
class PairedTest:
    """A paired test of a challenger.

    Attributes:
        artifact: The proposal, or the comparison.
        passed: A proposal's gate passed; or the challenger was shown to be better.
        against: What it was compared with.
        against_champion: Whether that is the champion.
        told: What was found, in a few words.
    """

    artifact: Artifact
    passed: bool
    against: str
    against_champion: bool
    told: str


def tests_of(workspace: Workspace, champion: str | None, challenger: str) -> list[PairedTest]:
    """The tests of a challenger: proposals, then comparisons with the champion, then with a baseline; newest first.

    Args:
        workspace: Where they are.
        champion: Digest of the champion; None where there is none.
        challenger: Digest of the challenger.

    Raises:
        CorruptError: One of them is damaged.
    """
    proposed = [] if champion is None else list(_proposals(workspace, champion, challenger))
    compared = list(_comparisons(workspace, champion, challenger))
    found = [*proposed, *(test for test in compared if test.against_champion)]
    return [*found, *(test for test in compared if not test.against_champion)]


def _proposals(workspace: Workspace, champion: str, challenger: str) -> Iterator[PairedTest]:
    for artifact in _newest(workspace, "proposal"):
        parents = artifact.manifest["parents"]
        if (parents.get("champion"), parents.get("challenger")) == (champion, challenger):
            gate = artifact.json("proposal.json")["gate"]
            yield PairedTest(artifact, gate["passed"] is True, "the champion", True, f"proposal: {_gate(gate)}")


def _comparisons(workspace: Workspace, champion: str | None, challenger: str) -> Iterator[PairedTest]:
    model_of = {found.digest: found.manifest["parents"].get("model") for found in workspace.all("evaluation")}
    for artifact in _newest(workspace, "comparison"):
        models = {label: model_of.get(digest) for label, digest in artifact.manifest["parents"].items()}
        if challenger not in models.values():
            continue
        facts = artifact.json("comparison.json")
        against, primary = facts["baseline"], facts["primary"]
        is_champion = champion is not None and models.get(against) == champion
        for each in facts["models"]:
            if models.get(each["a"]) == challenger != models.get(against):
                told = f"{_difference(primary, each['metrics'][primary])} against {against}: {each['verdict']}"
                yield PairedTest(artifact, each["verdict"] == "better", against, is_champion, told)
                break


def _newest(workspace: Workspace, kind: str) -> list[Artifact]:
    return sorted(workspace.all(kind), key=lambda artifact: str(artifact.manifest["created"]), reverse=True)


def _gate(gate: Mapping[str, Any]) -> str:
    """What a proposal's gate found."""
    told = "passed" if gate["passed"] is True else "not passed"
    return f"{told}, {_difference(gate['metric'], gate)}" if "difference" in gate and "metric" in gate else told


def _difference(metric: str, found: Mapping[str, Any]) -> str:
    return f"{metric} {found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
