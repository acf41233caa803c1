"""Statements are laid out as their standards say, and are not taken at their word when they are read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from danlu.audit.record.statement import Stated, found_in, result_statement, with_byproducts
from danlu.core.artifact import create
from danlu.core.errors import CorruptError
from made_facts import FACTS, make_model, make_statement


def as_statement(plain: dict[str, Any]) -> None:
    parsed = json_format.ParseDict(plain, statement_pb2.Statement())
    whole = Statement(list(parsed.subject), parsed.predicate_type, json_format.MessageToDict(parsed.predicate))
    whole.validate()


def test_a_training_is_an_in_toto_statement_with_a_slsa_provenance(tmp_path: Path) -> None:
    plain = with_byproducts(make_statement(tmp_path), {"bom.cdx.json": "8" * 64})
    as_statement(plain)
    own = copy.deepcopy(plain["predicate"])
    del own["runDetails"]["metadata"]["danlu_time"]  # the one field of ours: the standard leaves room for it
    parsed = json_format.ParseDict(own, provenance_pb2.Provenance())
    assert parsed.build_definition.build_type == "urn:danlu:training:1"
    assert parsed.run_details.byproducts[0].name == "record/bom.cdx.json"
    digests = {each.name: dict(each.digest) for each in parsed.build_definition.resolved_dependencies}
    assert digests["parent: start"] == {"danluArtifact": "b" * 64}
    assert digests["source: texts.jsonl"] == {"sha256": "c" * 64}
    assert digests["code: danlu"] == {"sha256": "6" * 64, "gitCommit": "7" * 40}


def test_a_test_is_an_in_toto_statement_with_a_test_result(tmp_path: Path) -> None:
    with create(tmp_path, "audit", "a", key="k" * 64, config={"alpha": 1}, parents={"suspect": "1" * 64}) as draft:
        (draft.folder / "audit.json").write_text("{}")
    plain = result_statement(draft.artifact, {"suspect": "1" * 64}, "PASSED", "nothing found", {"verdict": "X"})
    as_statement(plain)
    parsed = json_format.ParseDict(plain["predicate"], test_result_pb2.TestResult(), ignore_unknown_fields=True)
    assert parsed.result == "PASSED"
    stated = Stated(plain)
    assert not stated.is_training
    assert stated.fact("verdict") == "X"
    assert stated.files == found_in(draft.artifact.path)
    assert plain["subject"][0] == {"name": "suspect", "digest": {"danluFiles": "1" * 64}}


def test_a_statement_is_about_every_file_and_the_tensors(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    stated = Stated(make_statement(tmp_path))
    assert stated.files == found_in(model.path)
    assert stated.files.keys() == {"manifest.json", "model.safetensors"}
    assert stated.tensors is not None
    (model.path / "record").mkdir()
    (model.path / "record" / "bom.cdx.json").write_text("")
    assert found_in(model.path) == stated.files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts.pop("lineage"), "lineage"),
        (lambda facts: facts["chain"].update(lines="5"), "chain.lines"),
        (lambda facts: facts["data"][0].update(role=None), "data.0.role"),
        (lambda facts: facts["packages"].update(numpy=2), "packages.numpy"),
    ],
)
def test_another_layout_is_told_of_by_its_place(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    plain = copy.deepcopy(make_statement(tmp_path))
    change(plain["predicate"]["buildDefinition"]["internalParameters"])
    with pytest.raises(CorruptError, match=message):
        Stated(plain)


@pytest.mark.parametrize(
    "plain", [{}, {"_type": "https://in-toto.io/Statement/v1"}, {"_type": "x", "predicateType": "y"}]
)
def test_what_is_no_statement_of_ours_is_told_of(plain: dict[str, Any]) -> None:
    with pytest.raises(CorruptError, match="not a statement"):
        Stated(plain)


def test_the_facts_stay_as_they_were_told(tmp_path: Path) -> None:
    stated = Stated(make_statement(tmp_path))
    assert {name: stated.facts[name] for name in FACTS} == FACTS
