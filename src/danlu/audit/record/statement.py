"""in-toto statements (version 1): how a model was made (SLSA provenance, version 1), and what a test of one found.

What is danlu's own in them stands under ``internalParameters``, or bears the prefix ``danlu_``: readers of the two
standards pass over what they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.audit.record.layout import check_layout
from danlu.core.artifact import RECORD, Artifact
from danlu.core.errors import CorruptError
from danlu.core.files import sha256_file

__all__ = [
    "PROVENANCE",
    "TENSORS",
    "TEST_RESULT",
    "TIME",
    "Stated",
    "found_in",
    "result_statement",
    "training_statement",
    "with_byproducts",
]

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
TRAINING = "urn:danlu:training:1"
"""What kind of build a training is: the name that stands for the layout of its parameters."""
TENSORS = "tensors"
"""The subject that stands for all tensors whatever they are called; it is no file."""
_DEFINITION = ("predicate", "buildDefinition")
TIME = "unattested: by the clock of the machine that wrote it"


def found_in(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an artifact, its manifest among them and its record left out."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: sha256_file(path) for name, path in paths.items() if not name.startswith(f"{RECORD}/")}


def training_statement(model: Artifact, facts: Mapping[str, Any], tensors: tuple[str, int]) -> dict[str, Any]:
    """How a model was made.

    Args:
        model: The finished artifact.
        facts: What there is to say of it, by the names that ``internalParameters`` is to have: ``lineage``, ``data``,
            ``commitments``, ``chain``, ``code``, ``packages``, ``environment``, ``evaluations`` and others.
        tensors: The Merkle root over its tensors, and how many there are.
    """
    root, n_tensors = tensors
    subjects = _subjects(model.path)
    if n_tensors:
        subjects.append({"name": TENSORS, "digest": {"danluMerkle": root}, "annotations": {"n": n_tensors}})
    definition = {
        "buildType": TRAINING,
        "externalParameters": {"name": model.name, "config": model.config},
        "internalParameters": {"artifact": _described(model), **facts},
        "resolvedDependencies": _dependencies(facts),
    }
    details = {
        "builder": {"id": "urn:danlu:builder", "version": {"danlu": facts["code"]["version"]}},
        "metadata": {
            "invocationId": str(model.manifest["key"]),
            "finishedOn": str(model.manifest["created"]),
            "danlu_time": TIME,
        },
        "byproducts": [],
    }
    predicate = {"buildDefinition": definition, "runDetails": details}
    return {"_type": STATEMENT, "subject": subjects, "predicateType": PROVENANCE, "predicate": predicate}


def result_statement(
    tested: Artifact, models: Mapping[str, str], result: str, means: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a test of a model found.

    Args:
        tested: The artifact that holds what was found: an evaluation or an audit.
        models: What each model that took part is called -> its digest.
        result: ``PASSED``, ``WARNED`` or ``FAILED``.
        means: What that says here, and what it does not.
        facts: What was found.
    """
    parents = tested.manifest["parents"]
    known_by = "danluFiles" if tested.kind == "audit" else "danluArtifact"  # an audit takes any folder of files
    described = {"name": tested.kind, "digest": {"danluArtifact": tested.digest}, "annotations": _described(tested)}
    configuration = [{"name": "config", "annotations": tested.config}]
    configuration += [{"name": role, "digest": {known_by: digest}} for role, digest in parents.items()]
    return {
        "_type": STATEMENT,
        "subject": [
            *({"name": name, "digest": {known_by: digest}} for name, digest in models.items()),
            described,
            *_subjects(tested.path),
        ],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": result,
            "configuration": configuration,
            "danlu_means": means,
            "danlu_facts": {"artifact": _described(tested), **facts},
            "danlu_time": {"created": str(tested.manifest["created"]), "is": TIME},
        },
    }


def with_byproducts(statement: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """A statement that also names the files of the record beside it, with their SHA-256."""
    predicate = statement["predicate"]
    listed = [{"name": f"{RECORD}/{name}", "digest": {"sha256": digest}} for name, digest in files.items()]
    details = {**predicate["runDetails"], "byproducts": listed}
    return {**statement, "predicate": {**predicate, "runDetails": details}}


class Stated:
    """A statement as it is read: whoever wrote it, what is missing or of another shape is said so.

    Args:
        plain: The statement.

    Raises:
        CorruptError: It is no statement of danlu's.
    """

    def __init__(self, plain: dict[str, Any]) -> None:
        self.plain = plain
        kind = (plain.get("_type"), plain.get("predicateType"))
        if kind not in ((STATEMENT, PROVENANCE), (STATEMENT, TEST_RESULT)):
            raise CorruptError(f"not a statement of danlu's: {kind[0]}, {kind[1]}")
        self.is_training = kind[1] == PROVENANCE
        if self.is_training and self.at(*_DEFINITION, "buildType") != TRAINING:
            raise CorruptError(f"a build that is no training of danlu's: {self.at(*_DEFINITION, 'buildType')}")
        check_layout(self.facts, training=self.is_training)

    def at(self, *path: str | int) -> Any:
        """A value of the statement.

        Raises:
            CorruptError: It is not there.
        """
        value: Any = self.plain
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise CorruptError(f"the statement lacks {'.'.join(map(str, path))}") from error
        return value

    @property
    def facts(self) -> dict[str, Any]:
        """What danlu says in words of its own."""
        facts: dict[str, Any] = self.fact()
        return facts

    def fact(self, *path: str | int) -> Any:
        """One of the facts; errors as of :meth:`at`."""
        own = (*_DEFINITION, "internalParameters") if self.is_training else ("predicate", "danlu_facts")
        return self.at(*own, *path)

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of every file that the statement is about."""
        digests = self._named(self.at("subject"))
        return {name: digest["sha256"] for name, digest in digests.items() if "sha256" in digest}

    @property
    def tensors(self) -> str | None:
        """The Merkle root over the tensors, where there are any."""
        root: str | None = self._named(self.at("subject")).get(TENSORS, {}).get("danluMerkle")
        return root

    @property
    def byproducts(self) -> dict[str, str]:
        """SHA-256 of the files of the record that the statement names."""
        listed = self._named(self.at("predicate", "runDetails", "byproducts")) if self.is_training else {}
        return {name: str(digest.get("sha256")) for name, digest in listed.items()}

    @staticmethod
    def _named(listed: Any) -> dict[str, dict[str, str]]:
        try:
            return {str(each["name"]): dict(each["digest"]) for each in listed}
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("the statement lists something without a name or a digest") from error


def _subjects(folder: Path) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": digest}} for name, digest in found_in(folder).items()]


def _described(artifact: Artifact) -> dict[str, Any]:
    return {"kind": artifact.kind, "name": artifact.name, "digest": artifact.digest}


def _dependencies(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that a model was made of, as resources."""
    found: list[dict[str, Any]] = [
        {"name": f"parent: {parent['role']}", "digest": {"danluArtifact": parent["digest"]}}
        for parent in facts["lineage"]["parents"]
    ]
    for data in facts["data"]:
        found.append({"name": f"data: {data['role']}", "digest": {"danluArtifact": data["digest"]}})
        sources = data.get("sources", ())
        found += [{"name": f"source: {each['name']}", "digest": {each["digest"]: each["value"]}} for each in sources]
    code = facts["code"]
    digest = {"sha256": code["sha256"]} | ({"gitCommit": code["commit"]} if code["commit"] else {})
    found.append({"name": "code: danlu", "uri": f"pkg:pypi/danlu@{code['version']}", "digest": digest})
    packages: Mapping[str, str] = facts["packages"]
    return [*found, *({"name": name, "uri": f"pkg:pypi/{name}@{version}"} for name, version in packages.items())]
