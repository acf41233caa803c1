"""The application: its routes, and how it says that something went wrong.

    GET  /health/live /health/ready    no key
    GET  /metrics                      scope metrics
    POST /predict                      classes of texts or pictures, translations
    GET  /v1/models
    POST /v1/completions /v1/chat/completions /v1/embeddings

There is no CORS: pages of other sites cannot ask.
"""

from __future__ import annotations

import base64
import calendar
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response

from danlu._version import __version__
from danlu.serve import completions
from danlu.serve.asking import answered, facts_of_request
from danlu.serve.bodies import EmbeddingBody, JsonRoute, PredictBody, check_text
from danlu.serve.gate import Gate, error_body, error_headers
from danlu.serve.service import Service
from danlu.serve.worker import AskError

__all__ = ["create_app", "embeddings", "live", "metrics", "model", "models", "predict", "ready"]

_router = APIRouter(route_class=JsonRoute)


def create_app(service: Service) -> Gate:
    """The application that serves; its models are started and stopped by whoever made the service."""
    app = FastAPI(title="danlu", version=__version__, docs_url=None, redoc_url=None)
    app.state.service = service
    app.include_router(_router)
    app.include_router(completions.router)
    app.add_exception_handler(AskError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    return Gate(app, service)


@_router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether the server answers at all."""
    return {"status": "ok"}


@_router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Whether every model can be asked."""
    found = request.app.state.service.ready
    fine = all(found.values())
    return JSONResponse({"status": "ok" if fine else "not ready", "models": found}, 200 if fine else 503)


@_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """What is counted, for Prometheus."""
    return Response(request.app.state.service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@_router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """What is served."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [_described(service, name) for name in service.workers]}


@_router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> dict[str, Any]:
    """One model that is served."""
    service: Service = request.app.state.service
    if name not in service.workers:
        raise AskError(404, "model_not_found", "no model is called that here", param="model")
    return _described(service, name)


@_router.post("/predict")
async def predict(request: Request, body: PredictBody) -> dict[str, Any]:
    """Classes of texts or pictures, or translations."""
    service: Service = request.app.state.service
    name, worker = service.named(body.model, "predict", "ask it at POST /v1/completions")
    facts = facts_of_request(request)
    facts |= {"model": name, "digest": worker.model.digest}
    pictures = worker.facts["task"] == "image-classification"
    _check_inputs(service, body.inputs, pictures)
    done = await answered(request, worker, {"kind": "predict", "inputs": body.inputs})
    found = [{key: value for key, value in each.items() if key != "n_tokens"} for each in done["results"]]
    kept = ("label", "probability", "n_tokens")
    facts["answers"] = [{key: each[key] for key in kept if key in each} for each in done["results"]]
    if not pictures:
        for answer, text in zip(facts["answers"], body.inputs, strict=True):
            answer["n_chars"] = len(text)
    facts["batch"] = done["batch"]
    return {"id": facts["id"], "model": name, "digest": worker.model.digest, "predictions": found}


@_router.post("/v1/embeddings")
async def embeddings(request: Request, body: EmbeddingBody) -> dict[str, Any]:
    """Vectors of texts."""
    service: Service = request.app.state.service
    name, worker = service.named(body.model, "embed", "it has no vectors of texts")
    facts = facts_of_request(request)
    facts |= {"model": name, "digest": worker.model.digest} | ({} if body.user is None else {"user": body.user})
    inputs = [body.input] if isinstance(body.input, str) else body.input
    _check_inputs(service, inputs)
    done = await answered(request, worker, {"kind": "embed", "inputs": inputs})
    n_tokens = sum(each["n_tokens"] for each in done["results"])
    facts |= {"prompt_tokens": n_tokens, "batch": done["batch"]}

    def shown(vector: list[float]) -> list[float] | str:
        if body.encoding_format == "float":
            return vector
        return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()

    data = [
        {"object": "embedding", "index": index, "embedding": shown(each["vector"])}
        for index, each in enumerate(done["results"])
    ]
    return {
        "object": "list",
        "model": name,
        "data": data,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _described(service: Service, name: str) -> dict[str, Any]:
    worker = service.workers[name]
    known = {key: worker.facts.get(key) for key in ("task", "family", "classes", "max_len")}
    created = calendar.timegm(time.strptime(worker.model.manifest["created"], "%Y-%m-%dT%H:%M:%SZ"))
    named = {"id": name, "object": "model", "created": created, "owned_by": "danlu"}
    return {**named, "digest": worker.model.digest, **known}


def _check_inputs(service: Service, inputs: list[str], pictures: bool = False) -> None:
    limits = service.config.limits
    if not inputs or len(inputs) > limits.inputs:
        what = f"a request has 1 to {limits.inputs} inputs here, not {len(inputs)}"
        raise AskError(400, "limit_exceeded", what, param="inputs")
    if not pictures:  # a picture is as large as a body may be
        for text in inputs:
            check_text(text, limits, "inputs")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AskError)
    facts_of_request(request)["code"] = error.code
    return Response(error_body(error), error.status, error_headers(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a body, in the words of pydantic without what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "this parameter is not known here"
    found = AskError(400, "invalid_value", f"{'.'.join(place) or 'the body'}: {message}", param=".".join(place) or None)
    return await _refused(request, found)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException | StarletteHTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    return await _refused(
        request, AskError(error.status_code, codes.get(error.status_code, "invalid_value"), str(error.detail))
    )
