"""What the facts of a statement look like: a statement comes from outside, and is not taken at its word about that."""

from __future__ import annotations

from functools import cache
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from danlu.core.errors import CorruptError

__all__ = ["check_layout"]


class _Described(TypedDict):
    kind: str
    name: str
    digest: str


class _Parent(TypedDict):
    role: str
    relation: str
    name: str
    digest: str
    licence: str | None


class _Tokenizer(TypedDict):
    origin: str
    sha256: str | None


class _Teachers(TypedDict):
    models: list[str]
    synthetic_sources: list[str]
    said: str


class _Lineage(TypedDict):
    from_scratch: bool
    claim: str
    parents: list[_Parent]
    tokenizer: _Tokenizer
    teachers: _Teachers


_Source = TypedDict(
    "_Source",
    {
        "name": str,
        "digest": str,
        "value": str,
        "bytes": int | None,
        "records": int | None,
        "licence": str | None,
        "class": str,
    },
)


class _Records(TypedDict):
    read: int
    kept: int
    dropped: dict[str, int]
    splits: dict[str, int]


class _Data(TypedDict):
    role: str
    digest: str
    name: str
    version: NotRequired[str]
    sources: NotRequired[list[_Source]]
    cleaning: NotRequired[dict[str, Any]]
    records: NotRequired[_Records]
    files: NotRequired[dict[str, str]]
    merkle_root: NotRequired[str]


class _Chain(TypedDict):
    file: str
    lines: int
    head: str
    order_root: str


class _Metric(TypedDict):
    value: float | None
    low: float | None
    high: float | None
    n: int


class _Evaluation(TypedDict):
    digest: str
    primary: str
    metrics: dict[str, _Metric]


class _Model(TypedDict):
    kind: str
    task: str
    family: str
    valid_score: float | None
    n_parameters: int | None
    seconds: float | None


class _Code(TypedDict):
    version: str
    sha256: str
    commit: str | None
    dirty: bool | None


class _Environment(TypedDict):
    at_the_end: dict[str, str]
    of_the_record: dict[str, Any]
    one_process: bool


class _Training(TypedDict):
    artifact: _Described
    model: _Model
    lineage: _Lineage
    data: list[_Data]
    commitments: dict[str, str]
    chain: _Chain | None
    evaluations: list[_Evaluation]
    code: _Code
    packages: dict[str, str]
    environment: _Environment


class _Test(TypedDict):
    artifact: _Described


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def check_layout(facts: Any, *, training: bool) -> None:
    """Refuse facts that are not laid out as danlu lays them out; more than that may be there.

    Raises:
        CorruptError: Something is missing, or of another kind; the first such thing is named.
    """
    try:
        _adapter(_Training if training else _Test).validate_python(facts, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptError(f"the statement is not laid out as danlu lays one out: {place}: {first['msg']}") from error
