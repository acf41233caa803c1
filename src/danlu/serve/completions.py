"""What OpenAI's clients ask of models that write: completions, chats, and streams of both."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from danlu.serve.asking import (
    EventStream,
    answered,
    arm_of_request,
    facts_of_request,
    keep,
    opened,
    service_of,
)
from danlu.serve.bodies import ChatBody, CompletionBody, JsonRoute, WritingBody
from danlu.serve.replies import ChatReply, CompletionReply, documented
from danlu.serve.trial import Arm
from danlu.serve.worker import AskError, Ticket

__all__ = ["chat_completions", "completions", "router"]

router = APIRouter(prefix="/v1", route_class=JsonRoute)

_ELSEWHERE = "ask it at POST /predict"

Choice = Callable[[dict[str, Any], bool], dict[str, Any]]
"""From a part of a text, and whether it is the whole of it, to a choice as clients know it."""


@router.post("/completions", responses=documented(CompletionReply, streams=True))
async def completions(request: Request, body: CompletionBody) -> Response:
    """Continue texts."""
    more = {"echo": body.echo, "logprobs": body.logprobs}
    if not body.prompts:
        raise AskError(400, "invalid_value", "there is no prompt", param="prompt")
    limits, most = service_of(request).config.limits, body.max_tokens
    if "max_tokens" not in body.model_fields_set and most is not None:
        most = min(most, limits.new_tokens)  # nobody asked for more than is allowed
    asked = body.ask(body.prompts, limits, most, **more)
    return await _written(request, body, asked, ("text_completion", "text_completion"), _completion)


@router.post("/chat/completions", responses=documented(ChatReply, streams=True))
async def chat_completions(request: Request, body: ChatBody) -> Response:
    """Continue a conversation."""
    if body.top_logprobs is not None and not body.logprobs:
        raise AskError(400, "invalid_value", "top_logprobs needs logprobs: true", param="top_logprobs")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise AskError(400, "invalid_value", "give max_tokens or max_completion_tokens", param="max_tokens")
    most = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    more = {"logprobs": (body.top_logprobs or 0) if body.logprobs else None}
    asked = body.ask([body.prompt], service_of(request).config.limits, most, **more)
    return await _written(request, body, asked, ("chat.completion", "chat.completion.chunk"), _chat)


async def _written(
    request: Request, body: WritingBody, asked: dict[str, Any], kinds: tuple[str, str], choice: Choice
) -> Response:
    facts = facts_of_request(request)
    arm = arm_of_request(request, body.model, "write", _ELSEWHERE, body.user)
    facts["seed"] = asked["decode"]["seed"]
    keep(request, asked["prompts"])
    head = {"id": facts["id"], "created": int(time.time()), "model": arm.model}
    if body.stream:
        return await _streamed(request, body, arm, asked, {**head, "object": kinds[1]}, choice)
    done = await answered(request, arm.worker, asked)
    _shadowed(request, arm, asked)
    choices = [choice(text, True) for text in done["texts"]]
    return JSONResponse({**head, "object": kinds[0], "choices": choices, "usage": _usage(done, facts)})


async def _streamed(
    request: Request, body: WritingBody, arm: Arm, asked: dict[str, Any], head: dict[str, Any], choice: Choice
) -> Response:
    began = time.monotonic()
    stack, ticket, first = await opened(request, arm.worker, asked)
    facts = facts_of_request(request)
    facts["first_seconds"] = round(time.monotonic() - began, 6)
    wants_usage = body.stream_options is not None and body.stream_options.include_usage

    async def chunks() -> AsyncIterator[dict[str, Any]]:
        async for reply in _replies(ticket, first):
            for part in reply.get("parts", []):
                yield {**head, "choices": [choice(part, False)], **({"usage": None} if wants_usage else {})}
            if "done" in reply:
                usage = _usage(reply["done"], facts)
                _shadowed(request, arm, asked)
                if wants_usage:
                    yield {**head, "choices": [], "usage": usage}

    return EventStream(stack, ticket, chunks, facts)


def _shadowed(request: Request, arm: Arm, asked: dict[str, Any]) -> None:
    """Have the challenger in the shadow, if there is one, write the same."""
    service = service_of(request)
    kept = ("text", "ended") if service.config.keep_inputs else ("ended",)

    def answers(done: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: text[key] for key in kept} for text in done["texts"]]

    service.shadow(arm, facts_of_request(request)["id"], asked, answers)


async def _replies(ticket: Ticket, first: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    reply = first
    while True:
        yield reply
        if "done" in reply:
            return
        reply = await ticket.reply()


def _usage(done: dict[str, Any], facts: dict[str, Any]) -> dict[str, int]:
    counts = {name: done[name] for name in ("prompt_tokens", "completion_tokens")}
    facts.update(counts)
    return {**counts, "total_tokens": sum(counts.values())}


def _completion(part: dict[str, Any], whole: bool) -> dict[str, Any]:  # noqa: ARG001  both kinds of choice have it
    choice = {"index": part["index"], "text": part["text"], "finish_reason": part["ended"], "logprobs": None}
    if (entries := part.get("tokens")) is not None:
        choice["logprobs"] = {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": [_likeliest(entry) for entry in entries],
            "text_offset": [entry["offset"] for entry in entries],
        }
    return choice


def _likeliest(entry: dict[str, Any]) -> dict[str, float] | None:
    """Likely tokens by how they are told; of two that are told alike, the likelier one."""
    if entry["logprob"] is None:
        return None
    return {token: logprob for token, _, logprob in reversed(entry["top"])}


def _chat(part: dict[str, Any], whole: bool) -> dict[str, Any]:
    said = {"role": "assistant", "content": part["text"]}
    choice = {"index": part["index"], "message" if whole else "delta": said, "finish_reason": part["ended"]}
    choice["logprobs"] = None
    if (entries := part.get("tokens")) is not None:
        content = [
            {
                "token": entry["token"],
                "logprob": entry["logprob"],
                "bytes": entry["bytes"],
                "top_logprobs": [dict(zip(("token", "bytes", "logprob"), top, strict=True)) for top in entry["top"]],
            }
            for entry in entries
        ]
        choice["logprobs"] = {"content": content, "refusal": None}
    return choice
