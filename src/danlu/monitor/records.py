"""From the events of requests to the records that are watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Record", "has_failed", "is_question", "n_without_input", "records_of", "seconds_of"]

_ASKING = ("/predict", "/v1/completions", "/v1/chat/completions")
_INFERENCE = "/v2/models/"
_FAILED = 500
"""A status from here on is the service's own fault; below it is that of whoever asked."""
_ANSWERED = 400


@dataclass(frozen=True, slots=True)
class Record:
    """One input of one request that was answered.

    Attributes:
        time: When, in seconds since 1970.
        request: The request's id.
        index: Which of its inputs.
        input: A text, or the file of a picture in base64.
        label: The class answered, where classes are.
        confidence: Its probability.
        written: Tokens written, where text is; of a request with several texts, their mean.
        logprob: The mean log-probability of a token, where it was recorded.
    """

    time: float
    request: str
    index: int
    input: str
    label: str | None = None
    confidence: float | None = None
    written: float | None = None
    logprob: float | None = None


def is_question(event: Mapping[str, Any]) -> bool:
    """Whether a request asked for the model's own answer: not for vectors, an explanation, or a page."""
    route = str(event.get("route", ""))
    return route in _ASKING or (route.startswith(_INFERENCE) and route.endswith("/infer"))


def has_failed(event: Mapping[str, Any]) -> bool:
    """Whether the service failed to answer; a wrong question is no failure of the service."""
    return int(event["status"]) >= _FAILED


def seconds_of(event: Mapping[str, Any]) -> float:
    """Seconds to the answer; of written text, seconds a token of it, for how long a text is says nothing of speed."""
    return float(event["seconds"]) / max(1, int(event.get("completion_tokens") or 1))


def n_without_input(event: Mapping[str, Any]) -> int:
    """How many answered inputs of a request were not kept."""
    if int(event["status"]) >= _ANSWERED:
        return 0
    inputs = event.get("inputs")
    if inputs is None:
        return max(1, len(event.get("answers") or []))
    return sum(not isinstance(each, str) for each in inputs)


def records_of(event: Mapping[str, Any]) -> list[Record]:
    """The inputs of a request that were answered and kept, with what was answered to each."""
    inputs, answers = event.get("inputs"), event.get("answers") or []
    if int(event["status"]) >= _ANSWERED or not inputs:
        return []
    written = event.get("completion_tokens")
    share = None if written is None else float(written) / max(1, len(answers) or len(inputs))
    found = []
    for index, each in enumerate(inputs):
        if not isinstance(each, str):
            continue
        answer = answers[index] if index < len(answers) and isinstance(answers[index], Mapping) else {}
        found.append(
            Record(
                time=float(event["time"]),
                request=str(event["id"]),
                index=index,
                input=each,
                label=answer.get("label"),
                confidence=answer.get("probability"),
                written=share,
                logprob=answer.get("logprob"),
            )
        )
    return found
