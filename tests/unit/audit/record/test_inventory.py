"""The bill of materials and the annex say what the statement says, in the layout of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from danlu.audit.record.bom import bill_of_materials, bom_problems, differences
from danlu.audit.record.filing import filing_annex
from danlu.audit.record.statement import Stated
from danlu.core.files import canonical_json
from made_facts import make_statement


@pytest.fixture
def stated(tmp_path: Path) -> Stated:
    return Stated(make_statement(tmp_path))


def test_the_bill_fits_the_official_schema(stated: Stated) -> None:
    bom = bill_of_materials(stated)
    assert bom_problems(canonical_json(bom)) == []
    assert bill_of_materials(stated) == bom
    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["pedigree"]["ancestors"][0]["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["confidenceInterval"] == {
        "lowerBound": "0.9",
        "upperBound": "0.92",
    }
    kinds = [component["type"] for component in bom["components"]]
    assert kinds == ["data", "data", "library", "library"]
    references = [component["bom-ref"] for component in (model, *bom["components"])]
    assert len(set(references)) == len(references)


def test_what_does_not_fit_the_schema_is_told_of(stated: Stated) -> None:
    bom = bill_of_materials(stated)
    bom["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "magic"
    (problem,) = bom_problems(canonical_json(bom))
    assert "magic" in problem
    assert problem.startswith("$.metadata.component.modelCard.modelParameters.approach.type: ")
    bom = bill_of_materials(stated) | {"unknown": 1}
    bom["metadata"]["timestamp"] = "yesterday"
    wrong = bom_problems(canonical_json(bom))
    assert len(wrong) == 2
    assert any("date-time" in each for each in wrong), wrong
    assert bom_problems(b"\xff") != []
    assert bom_problems(b"{}") != []


def test_differences_name_the_place_and_both_values() -> None:
    said = {"a": {"b": [1, 2]}, "c": None}
    assert differences(said, {"a": {"b": [1, 2]}, "c": None}) == []
    assert differences(said, {"a": {"b": [1, 3]}, "d": "x"}) == [
        "a.b[1] is 3 and was to be 2",
        'd is "x" and was to be null',
    ]
    assert differences([1], [1, 2], "x") == ["x is [1, 2] and was to be [1]"]


def test_the_annex_is_a_draft_and_says_what_it_cannot_know(stated: Stated) -> None:
    annex = filing_annex(stated)
    assert "不构成法律意见" in annex
    assert "no legal advice" in annex
    for fact in ("sample:minilm", "Apache-2.0", "texts.jsonl", "c" * 64, "0.9100", "由填报人填写", "写记录时不在本机"):
        assert fact in annex
    assert "None" not in annex
    assert filing_annex(stated) == annex
