from __future__ import annotations

from pathlib import Path

import pytest

from audit_models import drawn, folder_of, trained
from audit_ways import DISGUISES, WAYS
from danlu.audit.changes import Changes
from danlu.audit.examine import Findings, Question, examine
from danlu.audit.merging import Merge
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.model.base import Model

SEEN = [(way, "") for way in WAYS] + [(way, "everything") for way in WAYS if "only" not in way]
SEEN += [
    (way, disguise) for way in ("copy", "int8 by row", "LoRA r=4") for disguise in ("reordered", "rotated", "rescaled")
]
SEEN += [("feed-forward only", "rotated"), ("feed-forward only", "reordered"), ("attention only", "rotated")]


@pytest.fixture(scope="module")
def reference() -> Model:
    return trained(drawn("a"), 1.0, 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, reference: Model) -> Path:
    home = tmp_path_factory.mktemp("models")
    folder_of(home / "a", reference)
    for number in range(3):
        folder_of(home / f"control {number}", trained(drawn(f"control {number}"), 1.0, 10 + number))
    for number in (31, 32):
        folder_of(home / f"parent {number}", trained(WAYS["copy"][0](reference), 0.3, number))
    return home


def audited(home: Path, suspect: Path, *, by_seed: bool, parents: bool = False) -> Findings:
    return examine(
        Question(
            suspect=suspect,
            reference=home / "a",
            controls=tuple(sorted(home.glob("control *"))),
            parents=tuple(sorted(home.glob("parent *"))) if parents else (),
            start=(drawn("a"), Seeds.new("a")) if by_seed else None,
        ),
        Silent(),
    )


@pytest.mark.parametrize(("way", "disguise"), SEEN)
def test_what_was_done_is_named_alone_and_in_disguise(
    tmp_path: Path, home: Path, reference: Model, way: str, disguise: str
) -> None:
    make, types = WAYS[way]
    hide, disguises = DISGUISES[disguise]
    suspect = folder_of(tmp_path / "b", hide(make(reference)))
    found = audited(home, suspect, by_seed=bool(disguise), parents=way == "merged")
    assert found.verdict == "PROVEN"
    assert found.types == (("repackaged",) if disguise and way == "copy" else types), found.changes
    assert set(found.disguises) == disguises
    assert found.parts == ((way.removesuffix(" only"),) if "only" in way else ())
    if way == "LoRA r=4" and not disguise:
        assert isinstance(found.changes, Changes)
        assert set(found.changes.details.values()) == {"4"}
    if way == "merged":
        assert isinstance(found.merge, Merge)
        assert found.merge.weights == pytest.approx((0.0, 0.6, 0.4), abs=0.05)


@pytest.mark.parametrize("way", ["feed-forward only", "attention only"])
def test_a_part_that_was_stolen_and_hidden_in_every_way_is_not_seen(
    tmp_path: Path, home: Path, reference: Model, way: str
) -> None:
    """As the page says: nothing is left by which to undo a rotation and a new order together."""
    suspect = folder_of(tmp_path / "b", DISGUISES["everything"][0](WAYS[way][0](reference)))
    assert audited(home, suspect, by_seed=True).verdict == "NO EVIDENCE"
