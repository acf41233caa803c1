"""An audit as the command line makes it: from folders to the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit_models import derive, drawn, folder_of, rotated, trained
from danlu.auditing import audit
from danlu.core.artifact import Artifact
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.model.base import Model
from danlu.report.audit import VERDICTS, audit_page
from page_tree import Page


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def made(workspace: Workspace, model: Model, seed: str | None, seeds: Seeds) -> Artifact:
    """A model as the train stage leaves it, with the seeds of its run."""
    commitments = seeds.commitments()
    with workspace.create(
        "model", "ours", key="k" * 64, config={"seed": seed}, parents={}, commitments=commitments
    ) as draft:
        folder_of(draft.folder / "made", model)
        for path in (draft.folder / "made").iterdir():
            path.rename(draft.folder / path.name)
        (draft.folder / "made").rmdir()
    run = workspace.runs / f"ours-model-{'k' * 12}"
    run.mkdir(parents=True)
    seeds.save(run / "seeds.json")
    return draft.artifact


def facts_of(workspace: Workspace, suspect: Path, *words: str) -> tuple[dict, str]:
    found = audit(workspace, str(suspect), words, Silent())
    return found.json("audit.json"), (found.path / "audit.html").read_text(encoding="utf-8")


def test_a_hidden_copy_of_a_model_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    ours = made(workspace, reference, None, Seeds.new("a"))
    suspect = folder_of(tmp_path / "suspect", derive(rotated, reference))
    controls = [folder_of(tmp_path / "controls" / str(n), trained(drawn(str(n)), 1.0, n)) for n in range(3)]
    facts, html = facts_of(workspace, suspect, f"against={ours.path}", f"controls={controls[0].parent}")
    assert facts["verdict"] == "PROVEN"
    assert facts["disguises"] == ["rotated"]
    assert facts["seed"]["basis"] == "tokens"
    assert facts["p"]["seed"] <= 1e-3
    page = Page(html).root
    english = [node for node in page.walk() if node.has_class("en")]
    chinese = [node for node in page.walk() if node.has_class("zh")]
    assert len(english) == len(chinese) > 60
    assert not any(re.search("[一-鿿]", node.text()) for node in english)
    assert "not independent" in html
    assert "committed to before its first step" in html
    assert not re.search(r"(src|href)=\"(?!#|data:)", html)


def test_a_seed_that_others_may_have_chosen_convicts_nobody(workspace: Workspace, tmp_path: Path) -> None:
    ours = made(workspace, trained(drawn("1"), 1.0, 1), "1", Seeds.new("1"))
    suspect = folder_of(tmp_path / "suspect", trained(drawn("1"), 1.0, 2))  # another training from the same start
    facts, html = facts_of(workspace, suspect, f"against={ours.path}")
    assert facts["verdict"] == "SHARED START"
    assert "without having copied anything" in html
    assert facts["types"] == facts["disguises"] == [], "nothing was done to either"


def test_what_is_asked_wrongly_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    suspect = folder_of(tmp_path / "suspect", drawn("1"))
    with pytest.raises(UsageError, match="against"):
        audit(workspace, str(suspect), [], Silent())
    with pytest.raises(UsageError, match="no models in this folder"):
        audit(workspace, str(suspect), [f"against={suspect}", f"controls={tmp_path / 'none'}"], Silent())


def test_every_verdict_has_its_words(workspace: Workspace, tmp_path: Path) -> None:
    suspect = folder_of(tmp_path / "suspect", trained(drawn("b"), 1.0, 1))
    reference = folder_of(tmp_path / "reference", trained(drawn("a"), 1.0, 2))
    facts, html = facts_of(workspace, suspect, f"against={reference}")
    assert facts["verdict"] == "NO EVIDENCE"
    assert "run are not at hand" in html
    none = dict.fromkeys(facts["order"], "no such units")
    bare = facts | {"verdict": "CONTEXT ONLY", "p": {}, "order": none, "power": {}}
    assert "No exact test could be made" in audit_page(bare, {})
    for verdict, words in VERDICTS.items():
        assert str(words.en) in audit_page(facts | {"verdict": verdict}, {})
