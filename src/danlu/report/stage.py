"""The report stage: artifacts in, one self-contained page and a model card out; and the page about a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.core.artifact import Artifact
from danlu.core.files import digest_of, explained, write_atomic, write_json
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.report.audit import audit_page
from danlu.report.curves import Together
from danlu.report.facts import Entry, gather
from danlu.report.histories import find
from danlu.report.page import curves_page, data_page, model_card, report_page
from danlu.report.tuning import tuning_page

__all__ = ["Entry", "write_audit", "write_curves", "write_data_card", "write_report", "write_tuning"]


def write_report(
    workspace: Workspace,
    *,
    recipe: Mapping[str, Any],
    dataset: Artifact,
    entries: Sequence[Entry],
    comparison: Artifact,
    gate: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    progress: Progress,
) -> Artifact:
    """Write the report of a run.

    Args:
        workspace: Where the artifact goes.
        recipe: Its resolved values.
        dataset: What was trained and tested on.
        entries: Models with their evaluations: the recipe's own first, then the baselines.
        comparison: Each model against the baseline.
        gate: The gate's decision: ``passed metric difference low high p alpha baseline``.
        plan: What training was expected to cost, or None.
        progress: Told that it begins.

    Returns:
        An artifact of kind ``report`` with ``report.html`` and ``card.md``. The same inputs give the same bytes.

    Raises:
        CorruptError: An artifact lacks a file, or it is damaged.
    """
    progress.stage("report")
    name = str(recipe["name"])
    facts = gather(
        name,
        workspace.root.parent,
        recipe=recipe,
        dataset=dataset,
        entries=entries,
        comparison=comparison,
        gate=gate,
        plan=plan,
    )
    parents = {"dataset": dataset.digest, "comparison": comparison.digest}
    for entry, model in zip(entries, facts.models, strict=True):
        parents |= {f"model.{model.label}": entry.model.digest, f"evaluation.{model.label}": entry.evaluation.digest}
    key = digest_of({"parents": parents, "recipe": dict(recipe), "gate": dict(gate), "plan": plan and dict(plan)})
    with workspace.create("report", name, key=key, config=recipe, parents=parents) as draft:
        write_atomic(draft.folder / "report.html", report_page(facts).encode())
        write_atomic(draft.folder / "card.md", model_card(facts).encode())
    return draft.artifact


def write_data_card(workspace: Workspace, dataset: Artifact, progress: Progress) -> Artifact:
    """Write the page about a dataset.

    Returns:
        An artifact of kind ``card`` with ``card.html``.

    Raises:
        CorruptError: The dataset lacks its summary, or it is damaged.
    """
    progress.stage(f"data card: {dataset.path.name}")
    parents = {"dataset": dataset.digest}
    key = digest_of({"parents": parents})
    with workspace.create("card", dataset.name, key=key, config={}, parents=parents) as draft:
        write_atomic(draft.folder / "card.html", data_page(dataset).encode())
    return draft.artifact


def write_curves(workspace: Workspace, targets: Sequence[str]) -> tuple[Together, Path]:
    """Write a page with the training curves of models and runs over each other.

    Args:
        workspace: Where they are, and where the page goes.
        targets: Each as of :func:`danlu.report.histories.find`.

    Returns:
        What is on the page, and the page. It is no artifact: a run under way has another tomorrow.

    Raises:
        UsageError: Nothing is called that, or they cannot be compared.
        DataError: There is no curve to show.
        CorruptError: A model or a curve is damaged.
    """
    together = Together([find(workspace, target) for target in targets])
    paths = [str(each.path.absolute()) for each in together.histories]
    page = workspace.curves / f"{together.histories[0].label}-{digest_of(paths)[:12]}.html"
    with explained(page):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, curves_page(together).encode())
    return together, page


def write_tuning(
    workspace: Workspace,
    facts: Mapping[str, Any],
    *,
    key: str,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    commitments: Mapping[str, str],
    progress: Progress,
) -> Artifact:
    """Write what came of a search.

    Args:
        workspace: Where the artifact goes.
        facts: Its trials and the best of them; see :class:`danlu.tuning.Tuning`.
        key: Digest of what went into the search.
        config: What went into it.
        parents: role -> digest of each artifact that it was made from.
        commitments: Those of the search's seeds.
        progress: Told that it begins.

    Returns:
        An artifact of kind ``tuning`` with ``trials.json`` and ``tune.html``. The same inputs give the same bytes.
    """
    progress.stage("search page")
    name = str(facts["name"])
    with workspace.create("tuning", name, key=key, config=config, parents=parents, commitments=commitments) as draft:
        write_json(draft.folder / "trials.json", facts)
        write_atomic(draft.folder / "tune.html", tuning_page(facts, parents, commitments).encode())
    return draft.artifact


def write_audit(
    workspace: Workspace,
    facts: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    parents: Mapping[str, str],
    kept: Mapping[str, Sequence[Any]],
    progress: Progress,
) -> Artifact:
    """Write what came of an audit.

    Args:
        workspace: Where the artifact goes.
        facts: What was found; see :class:`danlu.audit.examine.Findings`.
        config: How it was asked.
        parents: role -> digest of every model that took part.
        kept: What was asked and answered: name of a file -> its rows; one without any is not written.
        progress: Told that it begins.

    Returns:
        An artifact of kind ``audit`` with ``audit.json`` and ``audit.html``. The same inputs give the same bytes.
    """
    progress.stage("audit page")
    name = str(facts["suspect"]["folder"])
    key = digest_of({"parents": dict(parents), "config": dict(config)})
    with workspace.create("audit", name, key=key, config=config, parents=parents) as draft:
        write_json(draft.folder / "audit.json", facts)
        for file, rows in kept.items():
            if rows:
                lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
                write_atomic(draft.folder / file, ("\n".join(lines) + "\n").encode())
        write_atomic(draft.folder / "audit.html", audit_page(facts, parents).encode())
    return draft.artifact
