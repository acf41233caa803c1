"""What may stand in a request, and nothing else: a parameter that would have no effect is refused."""

from __future__ import annotations

import functools
import json
import re
import secrets
from typing import Annotated, Any, Literal, get_type_hints

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field, ValidationError, model_validator
from starlette.types import Receive, Scope, Send

from danlu.core.config import Config
from danlu.serve.config import LimitsConfig
from danlu.serve.worker import AskError

__all__ = [
    "Body",
    "ChatBody",
    "ChatMessage",
    "CompletionBody",
    "EmbeddingBody",
    "ExplainBody",
    "FeedbackBody",
    "JsonRoute",
    "Named",
    "PredictBody",
    "SourceBody",
    "StreamOptions",
    "TextPart",
    "WritingBody",
    "check_text",
]


Named = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""What somebody or something is called: a line of text."""


class Body(Config):
    """Base of every body: JSON types are taken as they are, ``"3"`` is no number."""

    model_config = ConfigDict(strict=True)


class PredictBody(Body):
    """A question to a classifier, or texts to translate."""

    model: str | None = None
    """The model's name; it may be left out where only one is served."""
    inputs: list[str] = Field(min_length=1)
    """Texts; or pictures, each the content of its file in base64."""
    user: Named | None = None
    """Who asks, for the record, and for experiments: one user is always answered by one model."""


class ExplainBody(Body):
    """A question why."""

    model: str | None = None
    """The model's name; it may be left out where only one is served."""
    input: str
    """A text; or a picture, the content of its file in base64."""


class SourceBody(Body):
    """Who says how good an answer was."""

    kind: Literal["user", "labeller"] = "user"
    """Whoever asked, or somebody who labels for the model's owner, which takes a key with the scope ``label``."""
    id: Named
    """Which one."""


class FeedbackBody(Body):
    """How good an answer was: exactly one of ``correct``, ``label``, ``text`` and ``rating``."""

    id: Named | None = None
    """Makes it count once, however often it is sent; null: a new one."""
    request: Named
    """The id of the request that was answered."""
    index: int = Field(0, ge=0, lt=2**31)
    """Which of its inputs."""
    correct: bool | None = None
    """Whether the answer was right,"""
    label: str | None = Field(None, max_length=1000)
    """or the right class,"""
    text: str | None = None
    """or the right translation or continuation,"""
    rating: float | None = Field(None, ge=0, le=1)
    """or how good it was, 0 to 1."""
    comment: str | None = Field(None, max_length=2000)
    """Words for people."""
    source: SourceBody | None = None
    """Who says so; null: whoever sends it."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> FeedbackBody:
        said = [each for each in (self.correct, self.label, self.text, self.rating) if each is not None]
        if len(said) != 1:
            raise ValueError(f"give exactly one of correct, label, text and rating, not {len(said)}")
        return self


class EmbeddingBody(Body):
    """Texts to be turned into vectors."""

    model: str
    """The model's name."""
    input: str | list[str]
    """A text, or several."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or the bytes of float32 numbers in base64."""
    user: Named | None = None
    """Who asks, for the record."""


class StreamOptions(Body):
    """What a stream holds beside its text."""

    include_usage: bool = False
    """Whether the last chunk tells the number of tokens."""


class WritingBody(Body):
    """What completions and chats have in common."""

    model: str
    """The model's name."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 takes the most likely token each time, 1 draws as the model says."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the most likely tokens that have this probability together."""
    top_k: int | None = Field(None, gt=0)
    """Draw among the k most likely tokens only."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw among tokens at least this share as likely as the most likely one."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """More than 1 makes tokens that are in the text already less likely."""
    n: int = Field(1, ge=1)
    """Texts to write after each prompt."""
    stop: str | list[str] | None = None
    """The text ends before the first of these strings."""
    seed: int | None = Field(None, ge=0, lt=2**63)
    """What draws depend on, beside the prompt; null: a random one, which the record keeps."""
    stream: bool = False
    """Whether the text is sent as it is written."""
    stream_options: StreamOptions | None = None
    """What a stream holds beside its text."""
    user: Named | None = None
    """Who asks, for the record."""
    frequency_penalty: Literal[0] | None = None
    """Not supported; 0 is understood. Give ``repetition_penalty``."""
    presence_penalty: Literal[0] | None = None
    """Not supported; 0 is understood. Give ``repetition_penalty``."""

    def ask(self, prompts: list[Any], limits: LimitsConfig, max_tokens: int | None, **more: Any) -> dict[str, Any]:
        """What a model's process is asked.

        Raises:
            AskError: More is asked for than is allowed. Whether the values fit together, the model's process says.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        for name, value, most in [
            ("n", self.n * len(prompts), limits.n),
            ("stop", len(stops), limits.stops),
            ("max_tokens", max_tokens or 0, limits.new_tokens),
            ("stop", max(map(len, stops), default=0), 100),
            ("logprobs", more.get("logprobs") or 0, limits.logprobs),
        ]:
            if value > most:
                what = f"{name} is {value} in all; at most {most} are allowed here"
                raise AskError(400, "limit_exceeded", what, param=name)
        if self.stream_options is not None and not self.stream:
            raise AskError(400, "invalid_value", "stream_options are for streams", param="stream_options")
        for prompt in prompts:
            check_text(prompt, limits, "prompt")
        decode = {
            name: getattr(self, name) for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        }
        decode |= {
            "max_new_tokens": max(1, limits.new_tokens if max_tokens is None else max_tokens),
            "stop": stops,
            "seed": secrets.randbits(53) if self.seed is None else self.seed,
        }
        asked = {"kind": "write", "prompts": prompts, "decode": decode, "n": self.n, "max_tokens": max_tokens}
        return asked | {"stream": self.stream, "echo": False, "logprobs": None} | more


class CompletionBody(WritingBody):
    """A text to be continued."""

    prompt: str | list[str] | list[int] | list[list[int]]
    """The beginning of the text, or of several, as characters or as token ids."""
    max_tokens: int | None = Field(16, ge=0)
    """Tokens to write at most; null: as many as fit. Left out: 16, or fewer where only fewer are allowed."""
    echo: bool = False
    """Whether the prompt comes before what is written, with its probabilities where these are asked for."""
    logprobs: int | None = Field(None, ge=0)
    """How many likely tokens are told at each place; null: no probabilities at all."""
    best_of: Literal[1] | None = None
    """Not supported; 1 is understood."""
    suffix: None = None
    """Not supported."""
    logit_bias: None = None
    """Not supported."""

    @property
    def prompts(self) -> list[Any]:
        """Every prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TextPart(Body):
    """A part of a message."""

    type: Literal["text"]
    """What it is."""
    text: str
    """The text."""


class ChatMessage(Body):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who."""
    content: str | list[TextPart]
    """What."""
    name: str | None = Field(None, max_length=200)
    """What they are called; a model without a template for chats does not see it."""

    @property
    def text(self) -> str:
        """All of what was said."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(WritingBody):
    """A conversation to be continued."""

    messages: list[ChatMessage] = Field(min_length=1)
    """What was said so far."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens to write at most; null: as many as fit."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """The newer name of ``max_tokens``."""
    logprobs: bool = False
    """Whether the probability of every token is told."""
    top_logprobs: int | None = Field(None, ge=0)
    """How many likely tokens are told at each place."""

    @property
    def prompt(self) -> str:
        """The text that is continued: what was said, a line each.

        danlu's models are trained on texts, not on turns of a conversation: they go on from the last line.
        """
        return "\n".join(message.text for message in self.messages)


class JsonRoute(APIRoute):
    """A route whose body is strict JSON, given to its endpoint as ``body``.

    FastAPI finds and describes it. What else it does for a request, such as dependencies, no route here has, and it
    takes as long as half of all the rest.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ``starlette.routing.Route``."""
        if self.body_field is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            body = self._shape.model_validate(_parsed(await request.body(), request.app.state.service.config.limits))
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        response: Response = await self.endpoint(request, body, **request.path_params)
        await response(scope, receive, send)

    @functools.cached_property
    def _shape(self) -> type[Body]:
        found: type[Body] = get_type_hints(self.endpoint)["body"]
        return found


def _parsed(body: bytes, limits: LimitsConfig) -> Any:
    """A body as JSON: UTF-8, no NaN, and not deep."""
    if _is_deep(body, limits.json_depth):
        raise HTTPException(400, f"the JSON is deeper than {limits.json_depth}")
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from None
    if _HALF_PAIR.search(body):  # it may be a whole one
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise HTTPException(400, "the body holds half of a surrogate pair") from None
    return found


def check_text(text: Any, limits: LimitsConfig, param: str) -> None:
    """Refuse a text, or a list of token ids, that is too long.

    Raises:
        AskError: It is.
    """
    if len(text) > limits.input_chars:
        raise AskError(400, "limit_exceeded", f"a text may have {limits.input_chars} characters here", param=param)


_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+\\?(?:"|\Z)', re.DOTALL)
"""Strings; one without an end goes to the end of the body, so that no byte is looked at twice."""
_BRACKETS = re.compile(rb"[\[\]{}]")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def _is_deep(body: bytes, most: int) -> bool:
    """Whether lists and objects lie deeper in each other than they may; strings are left out of account."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > most:
            return True
    return False


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
