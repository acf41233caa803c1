"""What people said of answers: one typed record a statement, with an id that makes it count once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from danlu.core.config import Config
from danlu.core.files import digest_of
from danlu.data.normalize import normal_keys

__all__ = [
    "VALUES",
    "Feedback",
    "Source",
    "Tally",
    "answer_to",
    "complete",
    "content_keys",
    "input_of",
    "joined",
    "tally",
    "writable",
]

VALUES = ("correct", "label", "text", "rating")
"""What a statement may be; each record has one."""

_COPIED = ("digest", "arm", "experiment")
"""What a record takes over from the request that it is about."""

_Word = Annotated[str, Field(min_length=1, max_length=200)]


class Source(Config):
    """Who said it."""

    kind: Literal["user", "labeller", "import"]
    """A user of the service, somebody who labels for its owner, or a file."""
    id: _Word
    """Which one."""


class Feedback(Config):
    """One statement about one answer."""

    id: _Word
    """The idempotency key: the same record comes in once, however often it is sent."""
    name: _Word
    """The model's name, without an alias."""
    request: str | None = None
    """The id of the request; null where the text was brought along."""
    index: int = Field(default=0, ge=0)
    """Which of the request's inputs."""
    correct: bool | None = None
    """Whether the answer was right,"""
    label: str | None = None
    """or the right class,"""
    text: str | None = None
    """or the right translation or continuation,"""
    rating: float | None = Field(default=None, ge=0, le=1)
    """or how good it was, 0 to 1."""
    comment: str = ""
    """Words for people."""
    source: Source
    """Who said it."""
    digest: str | None = None
    """The model that answered."""
    arm: Literal["champion", "challenger"] | None = None
    """In which arm of an experiment."""
    experiment: str | None = None
    """Which experiment."""
    input: str | None = None
    """The text, or the picture's file in base64; it may be left out where the request kept it."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Feedback:
        said = [name for name in VALUES if getattr(self, name) is not None]
        if len(said) != 1:
            found = f"it has {' and '.join(said)}" if said else "it has none"
            raise ValueError(f"a record says exactly one of {', '.join(VALUES)}; {found}")
        texts = (getattr(self, name) for name in type(self).model_fields)
        if any(isinstance(text, str) and writable(text) != joined(text) for text in (*texts, self.source.id)):
            raise ValueError("a text holds half of a surrogate pair, which is no character")
        if self.request is None and self.input is None:
            raise ValueError("a record is about a request or brings its input; it has neither")
        return self

    @classmethod
    def key_of(cls, values: Mapping[str, Any], source: Mapping[str, Any] | None) -> str:
        """The id of a record that came without one: it follows from what is said, of what, and, if told, by whom."""
        told = {name: values.get(name) for name in ("name", "request", "index", "input", *VALUES)}
        return f"import-{digest_of({**told, 'source': source})[:24]}"


@dataclass(frozen=True)
class Tally:
    """What the feedback to a model comes to.

    Attributes:
        n: Records that count.
        right: Answers said to be right.
        wrong: Answers said to be wrong; those that were corrected among them.
        corrected: Answers in whose place another was given.
        labelled: Inputs that were labelled without an answer at hand to compare with.
        rated: Answers that were rated.
        by_kind: Records of each kind of source.
        by_source: Records of each source (``kind:id``), most first.
        by_arm: Records of each arm.
        conflicts: Inputs to which people gave different answers.
    """

    n: int
    right: int
    wrong: int
    corrected: int
    labelled: int
    rated: int
    by_kind: dict[str, int]
    by_source: dict[str, int]
    by_arm: dict[str, int]
    conflicts: int


def answer_to(record: Mapping[str, Any]) -> str | None:
    """What the model answered, where the request (``asked``) kept it."""
    answers = (record.get("asked") or {}).get("answers") or []
    if not 0 <= record["index"] < len(answers):
        return None
    found = answers[record["index"]].get("label", answers[record["index"]].get("translation"))
    return None if found is None else str(found)


def input_of(record: Mapping[str, Any]) -> str | None:
    """The text or picture that a record is about: its own, or what the request kept."""
    if record.get("input") is not None:
        return str(record["input"])
    inputs = (record.get("asked") or {}).get("inputs") or []
    found = inputs[record["index"]] if 0 <= record["index"] < len(inputs) else None
    return None if found is None else str(found)


def joined(text: str) -> str:
    """A text whose surrogate pairs are characters, as JSON may have them apart; half of one stays what it is."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def writable(text: str) -> str:
    """A text that can be written as UTF-8: half a surrogate pair as its escape."""
    return joined(text).encode("utf-8", "backslashreplace").decode()


def content_keys(contents: Iterable[str]) -> list[str]:
    """What decides whether two inputs are the same text."""
    keys: list[str] = normal_keys(pa.array(map(writable, contents), pa.large_string())).to_pylist()
    return keys


def complete(record: Feedback, asked: Mapping[str, Any] | None) -> Feedback:
    """A record with what the request that it is about says of model, arm and input."""
    if asked is None:
        return record
    taken = {name: asked.get(name) for name in _COPIED if getattr(record, name) is None}
    if record.input is None:
        taken["input"] = input_of({"index": record.index, "asked": asked})
    return record.model_copy(update=taken)


def tally(records: Iterable[Mapping[str, Any]]) -> Tally:
    """Count feedback.

    Args:
        records: Feedback events that count, each with ``asked``: the event of its request, or None.
    """
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    arms: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    for record in records:
        counts["n"] += 1
        kinds[record["source"]["kind"]] += 1
        sources[f"{record['source']['kind']}:{record['source']['id']}"] += 1
        if record.get("arm"):
            arms[record["arm"]] += 1
        for name in _verdict(record):
            counts[name] += 1
        given, content = record.get("label") or record.get("text"), input_of(record)
        if given is not None and content is not None:
            pairs.append((content, given))
    said: dict[str, set[str]] = {}
    for content, given in zip(*(content_keys(side) for side in zip(*pairs, strict=True)), strict=True):
        said.setdefault(content, set()).add(given)
    names = ("n", "right", "wrong", "corrected", "labelled", "rated")
    return Tally(
        **{name: counts[name] for name in names},
        by_kind=dict(kinds.most_common()),
        by_source=dict(sources.most_common()),
        by_arm=dict(arms.most_common()),
        conflicts=sum(len(answers) > 1 for answers in said.values()),
    )


def _verdict(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which numbers of the tally a record counts for."""
    if record.get("rating") is not None:
        return ("rated",)
    if record.get("correct") is not None:
        return ("right",) if record["correct"] else ("wrong",)
    given, answered = record.get("label") or record.get("text"), answer_to(record)
    if answered is None:
        return ("labelled",)
    return ("right",) if given == answered else ("wrong", "corrected")
