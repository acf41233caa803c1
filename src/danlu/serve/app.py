"""The application: its routes, and how it says that something went wrong.

    GET  /health/live /health/ready                       no key
    GET  / /assets/{file}                                 the page; no key
    GET  /metrics /board                                  scope metrics
    GET  /label                                           scope label
    POST /predict /explain /feedback                      scope ask, as all that follows
    GET  /v1/models
    POST /v1/completions /v1/chat/completions /v1/embeddings
    GET  /v2 /v2/models/{name} /v2/models/{name}/ready    the Open Inference Protocol
    POST /v2/models/{name}/infer

There is no CORS: pages of other sites cannot ask.
"""

from __future__ import annotations

import asyncio
import calendar
import logging
import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from danlu._version import __version__
from danlu.core.errors import DanluError
from danlu.serve import completions, explaining, feedback, inference_protocol, labelling, page, predicting
from danlu.serve.asking import facts_of_request, service_of
from danlu.serve.feedback import FeedbackDesk
from danlu.serve.gate import Gate, error_body, error_headers
from danlu.serve.replies import ErrorReply, ModelReply, ModelsReply, ReadyReply, documented
from danlu.serve.service import Service
from danlu.serve.worker import AskError

__all__ = ["board", "create_app", "live", "metrics", "model", "models", "ready"]

_router = APIRouter()
_log = logging.getLogger("uvicorn.error")


def create_app(service: Service) -> Gate:
    """The application that serves; its models are started and stopped by whoever made the service."""
    app = FastAPI(title="danlu", version=__version__, docs_url=None, redoc_url=None)
    desk = FeedbackDesk(service)
    app.state.service, app.state.feedback, app.state.looking = service, desk, asyncio.Lock()
    for module in (predicting, completions, explaining, feedback, labelling, inference_protocol, page):
        app.include_router(module.router)
    app.include_router(_router)
    app.add_exception_handler(AskError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DanluError, _not_now)

    def record(facts: dict[str, Any]) -> None:
        service.record(facts)
        desk.remember(facts)

    return Gate(app, service, record)


@_router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether the server answers at all."""
    return {"status": "ok"}


@_router.get("/health/ready", responses={200: {"model": ReadyReply}, 503: {"model": ReadyReply}})
async def ready(request: Request) -> Response:
    """Whether every model can be asked."""
    found = service_of(request).ready
    fine = all(found.values())
    return JSONResponse({"status": "ok" if fine else "not ready", "models": found}, 200 if fine else 503)


@_router.get("/metrics", response_class=PlainTextResponse, responses={"4XX": {"model": ErrorReply}})
async def metrics(request: Request) -> Response:
    """What is counted, for Prometheus."""
    return Response(service_of(request).metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@_router.get("/v1/models", responses=documented(ModelsReply))
async def models(request: Request) -> Response:
    """What is served."""
    service = service_of(request)
    return JSONResponse({"object": "list", "data": [_described(service, name) for name in service.workers]})


@_router.get("/v1/models/{name:path}", responses=documented(ModelReply))
async def model(request: Request, name: str) -> Response:
    """One model that is served."""
    service = service_of(request)
    return JSONResponse(_described(service, service.named(name)[0]))


@_router.get("/board", responses={"4XX": {"model": ErrorReply}, "5XX": {"model": ErrorReply}})
async def board(request: Request, model: str | None = None) -> Response:
    """How a model does: what the page's board shows."""
    service = service_of(request)
    called, worker = service.named(model)
    if service.board is None:
        raise AskError(404, "not_found", "this server was started without a board")
    async with request.app.state.looking:  # it reads much: several who look take turns
        found = await asyncio.to_thread(service.board, service.seats[called].target.name, worker.model.digest)
    return JSONResponse(found)


def _described(service: Service, name: str) -> dict[str, Any]:
    worker = service.workers[name]
    known = {key: worker.facts.get(key) for key in ("task", "family", "classes", "max_len", "image_size")}
    created = calendar.timegm(time.strptime(worker.model.manifest["created"], "%Y-%m-%dT%H:%M:%SZ"))
    named = {"id": name, "object": "model", "created": created, "owned_by": "danlu"}
    most = service.config.limits.new_tokens if worker.facts.get("task") == "language-modelling" else None
    return {**named, "digest": worker.model.digest, **known, "max_new_tokens": most}


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AskError)
    facts_of_request(request)["code"] = error.code
    return Response(error_body(error, request.scope["path"]), error.status, error_headers(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a request, in the words of pydantic without what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "this parameter is not known here"
    return await _refused(
        request, AskError(400, "invalid_value", f"{place or 'the body'}: {message}", param=place or None)
    )


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "invalid_value")
    found = await _refused(request, AskError(error.status_code, code, str(error.detail)))
    found.headers.update(error.headers or {})
    return found


async def _not_now(request: Request, error: Exception) -> Response:
    """What the workspace cannot do; who runs the server is told where, and who asks is not."""
    assert isinstance(error, DanluError)
    _log.error("%s", error)
    what = f"the server's workspace cannot be used now: {error.what}"
    return await _refused(request, AskError(503, "workspace_unusable", what, retry_after=10))
