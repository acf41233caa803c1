"""What is answered in one go: classes of texts and pictures, translations, and vectors."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from danlu.serve.asking import answered, arm_of_request, facts_of_request, keep, service_of
from danlu.serve.bodies import EmbeddingBody, JsonRoute, PredictBody, check_text
from danlu.serve.config import LimitsConfig
from danlu.serve.replies import EmbeddingsReply, PredictReply, documented
from danlu.serve.trial import Arm
from danlu.serve.worker import AskError

__all__ = ["TAKES_PICTURES", "check_inputs", "embeddings", "predict", "predictions", "router"]

TAKES_PICTURES = "image-classification"
"""The task whose inputs are pictures."""

_WRITTEN_DOWN = ("label", "probability", "n_tokens", "truncated")
_NOT_TOLD = ("n_tokens",)

router = APIRouter(route_class=JsonRoute)


@router.post("/predict", responses=documented(PredictReply))
async def predict(request: Request, body: PredictBody) -> Response:
    """Classes of texts or pictures, or translations."""
    arm = arm_of_request(request, body.model, "predict", "ask it at POST /v1/completions", body.user)
    check_inputs(service_of(request).config.limits, body.inputs, pictures=arm.worker.facts["task"] == TAKES_PICTURES)
    results = await predictions(request, arm, body.inputs)
    found = [{key: value for key, value in each.items() if key not in _NOT_TOLD} for each in results]
    told = {"id": facts_of_request(request)["id"], "model": arm.model, "digest": arm.worker.model.digest}
    return JSONResponse({**told, "predictions": found})


async def predictions(request: Request, arm: Arm, inputs: list[str]) -> list[dict[str, Any]]:
    """The model's answers, one an input, which are written down with the request.

    Raises:
        AskError: There are none.
    """
    service, facts = service_of(request), facts_of_request(request)
    pictures = arm.worker.facts["task"] == TAKES_PICTURES
    kept = (*_WRITTEN_DOWN, "translation") if service.config.keep_inputs else _WRITTEN_DOWN

    def answers(done: dict[str, Any]) -> list[dict[str, Any]]:
        found = [{key: each[key] for key in kept if key in each} for each in done["results"]]
        if not pictures:
            for answer, text in zip(found, inputs, strict=True):
                answer["n_chars"] = len(text)
        return found

    keep(request, inputs, pictures=pictures)
    asked = {"kind": "predict", "inputs": inputs}
    done = await answered(request, arm.worker, asked)
    facts |= {"answers": answers(done), "batch": done["batch"]}
    service.shadow(arm, facts["id"], asked, answers)
    results: list[dict[str, Any]] = done["results"]
    return results


@router.post("/v1/embeddings", responses=documented(EmbeddingsReply))
async def embeddings(request: Request, body: EmbeddingBody) -> Response:
    """Vectors of texts."""
    arm = arm_of_request(request, body.model, "embed", "it has no vectors of texts", body.user)
    inputs = [body.input] if isinstance(body.input, str) else body.input
    check_inputs(service_of(request).config.limits, inputs)
    done = await answered(request, arm.worker, {"kind": "embed", "inputs": inputs})
    n_tokens = sum(each["n_tokens"] for each in done["results"])
    facts_of_request(request).update({"prompt_tokens": n_tokens, "batch": done["batch"]})

    def shown(vector: list[float]) -> list[float] | str:
        if body.encoding_format == "float":
            return vector
        return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()

    data = [
        {"object": "embedding", "index": index, "embedding": shown(each["vector"])}
        for index, each in enumerate(done["results"])
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JSONResponse({"object": "list", "model": arm.model, "data": data, "usage": usage})


def check_inputs(limits: LimitsConfig, inputs: Sequence[str], *, pictures: bool = False) -> None:
    """Refuse too many inputs, and texts that are too long.

    Raises:
        AskError: There are, or none at all.
    """
    if not 1 <= len(inputs) <= limits.inputs:
        what = f"a request has 1 to {limits.inputs} inputs here, not {len(inputs)}"
        raise AskError(400, "limit_exceeded", what, param="inputs")
    if not pictures:  # a picture is as large as a body may be
        for text in inputs:
            check_text(text, limits, "inputs")
