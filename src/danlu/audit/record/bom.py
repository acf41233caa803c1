"""The bill of materials of a model: CycloneDX 1.6 with its model card, read off a statement."""

from __future__ import annotations

import functools
import importlib.resources
import json
import uuid
from typing import Any

from danlu.audit.record.statement import Stated

__all__ = ["bill_of_materials", "bom_problems", "differences"]

_LEARNING = {
    "language-modelling": "self-supervised",
    "masked-language-modelling": "self-supervised",
}
"""How a task is learnt; the others are, from labelled examples, ``supervised``."""


def bill_of_materials(stated: Stated) -> dict[str, Any]:
    """Everything that a model consists of and was made of; the same statement gives the same bill.

    Raises:
        CorruptError: The statement lacks what is to be listed.
    """
    digest, version = stated.fact("artifact", "digest"), stated.fact("code", "version")
    model, data = f"model:{digest}", [_data(each) for each in stated.fact("data")]
    libraries = [_library(name, number) for name, number in stated.fact("packages").items() if name != "danlu"]
    danlu = {"type": "application", "bom-ref": "tool:danlu", "name": "danlu", "version": version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": stated.at("predicate", "runDetails", "metadata", "finishedOn"),
            "tools": {"components": [danlu]},
            "component": _model(stated, model, [each["bom-ref"] for each in data]),
        },
        "components": [*data, *libraries],
        "dependencies": [
            {"ref": model, "dependsOn": [each["bom-ref"] for each in data]},
            {"ref": "tool:danlu", "dependsOn": [each["bom-ref"] for each in libraries]},
        ],
    }


def bom_problems(text: bytes) -> list[str]:
    """Where a bill of materials departs from the official schema, which CycloneDX's library ships; takes the extra."""
    try:
        bill = json.loads(text.decode())
    except ValueError as error:  # neither text nor JSON
        return [str(error)]
    return [f"{_json_path(error.instance_path)}: {error.message[:200]}" for error in _schema().iter_errors(bill)]


@functools.cache
def _schema() -> Any:
    """The compiled validator: the library's own one spends four seconds on importing the rules of formats."""
    import jsonschema_rs

    folder = importlib.resources.files("cyclonedx.schema") / "_res"  # it has no public name for its files
    names = [f"{name}.SNAPSHOT.schema.json" for name in ("bom-1.6", "spdx", "cryptography-defs", "jsf-0.82")]
    main, *parts = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
    beside = main["$id"].rpartition("/")[0]  # the first names the others by their files
    named = [(f"{beside}/{name}", part) for name, part in zip(names[1:], parts, strict=True)]
    return jsonschema_rs.Draft7Validator(main, registry=jsonschema_rs.Registry(named), validate_formats=True)


def _json_path(parts: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def differences(said: Any, found: Any, at: str = "") -> list[str]:
    """Where two JSON values differ, each place by its path with both values."""
    if isinstance(said, dict) and isinstance(found, dict):
        keys = [*said, *(key for key in found if key not in said)]
        return [
            line
            for key in keys
            for line in differences(said.get(key), found.get(key), f"{at}.{key}" if at else str(key))
        ]
    if isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        pairs = enumerate(zip(said, found, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{at}[{number}]")]
    return [] if said == found else [f"{at} is {_short(found)} and was to be {_short(said)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _model(stated: Stated, ref: str, data: list[str]) -> dict[str, Any]:
    kind, task, family = (stated.fact("model", key) for key in ("kind", "task", "family"))
    parents = stated.fact("lineage", "parents")
    root = stated.tensors
    learning = "self-supervised" if kind == "pretrained" else _LEARNING.get(task, "supervised")
    properties = {
        "danlu:artifact": stated.fact("artifact", "digest"),
        "danlu:tensor-root": root or "no tensors",
        "danlu:lineage": stated.fact("lineage", "claim"),
        "danlu:teachers": stated.fact("lineage", "teachers", "said"),
    }
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": stated.fact("artifact", "name"),
        "version": stated.fact("artifact", "digest")[:12],
        "components": [_file(ref, name, digest) for name, digest in sorted(stated.files.items())],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": learning},
                "task": task,
                "architectureFamily": family,
                "modelArchitecture": f"{family}, {stated.fact('model', 'n_parameters')} parameters",
                "datasets": [{"ref": each} for each in data],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(stated)},
        },
        "properties": _properties(properties),
    }
    if parents:
        component["pedigree"] = {"ancestors": [_ancestor(parent) for parent in parents]}
    return component


def _metrics(stated: Stated) -> list[dict[str, Any]]:
    found = []
    for evaluation in stated.fact("evaluations"):
        for name, metric in evaluation["metrics"].items():
            if metric["value"] is not None:
                row = {"type": name, "value": str(metric["value"]), "slice": f"evaluation {evaluation['digest'][:12]}"}
                if metric["low"] is not None:
                    row["confidenceInterval"] = {"lowerBound": str(metric["low"]), "upperBound": str(metric["high"])}
                found.append(row)
    score = stated.fact("model", "valid_score")
    return found + ([] if score is None else [{"type": "score", "value": str(score), "slice": "validation split"}])


def _ancestor(parent: dict[str, Any]) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"parent:{parent['role']}:{parent['digest']}",
        "name": parent["name"],
        "version": parent["digest"][:12],
        "properties": _properties({"danlu:relation": parent["relation"], "danlu:digest": parent["digest"]}),
    }
    if parent["licence"]:
        component["licenses"] = [{"license": {"name": parent["licence"]}}]
    return component


def _data(data: dict[str, Any]) -> dict[str, Any]:
    ref = f"data:{data['role']}:{data['digest']}"
    licences = sorted({each["licence"] for each in data.get("sources", ()) if each["licence"]})
    about = {"danlu:digest": data["digest"], "danlu:merkle-root": data.get("merkle_root") or "not at hand"}
    if "records" in data:
        about |= {"danlu:records": str(data["records"]["kept"]), "danlu:cleaning": json.dumps(data["cleaning"])}
    sources = [
        _file(ref, f"source {number}: {each['name']}", each["value"])
        for number, each in enumerate(data.get("sources", ()), start=1)
    ]
    component: dict[str, Any] = {
        "type": "data",
        "bom-ref": ref,
        "name": data["name"],
        "version": data["digest"][:12],
        "data": [{"type": "dataset", "name": data["role"], "contents": {"properties": _properties(about)}}],
        "components": [*sources, *(_file(ref, name, digest) for name, digest in data.get("files", {}).items())],
    }
    if licences:
        component["licenses"] = [{"license": {"name": licence}} for licence in licences]
    return component


def _file(within: str, name: str, digest: str) -> dict[str, Any]:
    return {
        "type": "file",
        "bom-ref": f"{within}/{name}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _properties(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]
