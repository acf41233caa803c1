"""What answers look like: the shapes that ``/openapi.json`` tells, and that tests hold real answers against.

Routes build plain dicts, which are sent as they are; nothing here is checked while a request waits.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ChatReply",
    "CompletionReply",
    "EmbeddingsReply",
    "ErrorReply",
    "ExplanationReply",
    "FeedbackReply",
    "InferReply",
    "ModelMetadata",
    "ModelReadyReply",
    "ModelReply",
    "ModelsReply",
    "PlainErrorReply",
    "PredictReply",
    "QuestionsReply",
    "ReadyReply",
    "Reply",
    "ServerMetadata",
    "documented",
]


class Reply(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class _Error(Reply):
    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(Reply):
    """Why there is no answer, as OpenAI's clients know it."""

    error: _Error


class PlainErrorReply(Reply):
    """Why there is no answer, as the Open Inference Protocol has it."""

    error: str


def documented(
    reply: type[Reply], *, error: type[Reply] = ErrorReply, streams: bool = False
) -> dict[int | str, dict[str, Any]]:
    """What a route may answer, for FastAPI's ``responses``.

    Args:
        reply: When all is well.
        error: When it is not.
        streams: Whether it may also be sent as it comes into being.
    """
    fine: dict[str, Any] = {"model": reply}
    if streams:
        event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
        fine["content"] = {"text/event-stream": {"schema": event}}  # each of them
    return {200: fine, "4XX": {"model": error}, "5XX": {"model": error}}


class ReadyReply(Reply):
    """Whether models can be asked."""

    status: Literal["ok", "not ready"]
    models: dict[str, bool]


class ModelReply(Reply):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    digest: str
    task: str | None
    family: str | None
    classes: list[str] | None
    max_len: int | None
    image_size: list[int] | None
    """Channels, height and width of the pictures that it takes."""
    max_new_tokens: int | None
    """The most that a request may ask of a model that writes."""


class ModelsReply(Reply):
    """All of them."""

    object: Literal["list"]
    data: list[ModelReply]


class _Prediction(Reply):
    label: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    translation: str | None = None
    truncated: bool | None = None
    """Whether the text was longer than the model sees, so that only its beginning and its end were read."""


class PredictReply(Reply):
    """One prediction an input."""

    id: str
    model: str
    digest: str
    predictions: list[_Prediction]


class _Usage(Reply):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class _Embedding(Reply):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsReply(Reply):
    """One vector an input."""

    object: Literal["list"]
    model: str
    data: list[_Embedding]
    usage: _Usage


class _Choice(Reply):
    index: int
    text: str
    finish_reason: str | None
    logprobs: dict[str, Any] | None


class CompletionReply(Reply):
    """Texts that were continued."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[_Choice]
    usage: _Usage


class _Said(Reply):
    role: Literal["assistant"]
    content: str


class _ChatChoice(Reply):
    index: int
    message: _Said
    finish_reason: str | None
    logprobs: dict[str, Any] | None


class ChatReply(Reply):
    """A conversation that was continued."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_ChatChoice]
    usage: _Usage


class _Span(Reply):
    text: str
    start: int
    end: int
    weight: float


class ExplanationReply(Reply):
    """Which parts of an input speak for the answer: spans of a text, or the pixels of a picture."""

    id: str
    model: str
    label: str
    probability: float
    method: str
    change: float
    """What the weights are the shares of: a difference of logits, from what says nothing to what was asked."""
    gap: float
    """What they miss of it."""
    text: str | None = None
    """What spans count in; where the model reads a text mended as a whole, the text as it reads it."""
    spans: list[_Span] | None = None
    """Weights are positive where a part speaks for ``label``."""
    height: int | None = None
    width: int | None = None
    weights: list[list[float]] | None = None
    """One a pixel, row by row."""


class FeedbackReply(Reply):
    """That feedback is written down."""

    id: str
    status: Literal["recorded", "known"]
    """``known``: it was before, and is not written twice."""


class _Question(BaseModel):
    """The question as its event has it."""

    id: str
    request: str | None
    index: int
    input: str | None


class QuestionsReply(Reply):
    """What somebody should label."""

    model: str
    name: str
    classes: list[str]
    n_open: int
    """How many questions are open in all."""
    questions: list[_Question]
    """The longest open of them, as many as were asked for."""


class ServerMetadata(Reply):
    """The server, as the Open Inference Protocol has it."""

    name: str
    version: str
    extensions: list[str]


class _MetadataTensor(Reply):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None


class ModelMetadata(Reply):
    """A model, as the Open Inference Protocol has it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[_MetadataTensor]
    outputs: list[_MetadataTensor]


class ModelReadyReply(Reply):
    """Whether a model can be asked."""

    name: str
    ready: bool


class _OutputTensor(Reply):
    name: str
    datatype: str
    shape: list[int]
    data: list[str] | list[float]


class InferReply(Reply):
    """The tensors that a model answered."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, str]
    outputs: list[_OutputTensor]
