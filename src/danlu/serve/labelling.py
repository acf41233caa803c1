"""What somebody should label next: the questions that ``danlu feedback NAME ask=N`` put and nobody has answered yet.

An answer to one is feedback of a labeller to the same request and input (``POST /feedback``).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from danlu.serve.asking import service_of
from danlu.serve.replies import QuestionsReply, documented
from danlu.serve.service import Service

__all__ = ["questions", "router"]

router = APIRouter()


@router.get("/label", responses=documented(QuestionsReply))
async def questions(
    request: Request, model: str | None = None, n: Annotated[int, Query(ge=1, le=100)] = 10
) -> Response:
    """Open questions about a model's answers, the longest open first."""
    service = service_of(request)
    called, worker = service.named(model, "predict", "there is nothing to label")
    name = service.seats[called].target.name
    n_open, found = await asyncio.to_thread(_open, service, name, n)
    classes = worker.facts.get("classes") or []
    return JSONResponse({"model": called, "name": name, "classes": classes, "n_open": n_open, "questions": found})


def _open(service: Service, name: str, n: int) -> tuple[int, list[dict[str, Any]]]:
    """How many questions are open in all, and the first n."""
    index = service.index
    index.refresh()
    return index.n_open_questions(name), index.open_questions(name, n)
