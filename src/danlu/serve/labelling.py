"""What somebody should label next: the questions that ``danlu feedback NAME ask=N`` put and nobody has answered yet.

An answer to one is feedback of a labeller to the same request and input (``POST /feedback``).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from danlu.core.index import Index
from danlu.core.workspace import Workspace
from danlu.serve.asking import service_of
from danlu.serve.replies import QuestionsReply, documented

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
    found = await asyncio.to_thread(_open, service.workspace, name, n)
    classes = worker.facts.get("classes") or []
    return JSONResponse({"model": called, "name": name, "classes": classes, "questions": found})


def _open(workspace: Workspace, name: str, n: int) -> list[dict[str, Any]]:
    with Index.open(workspace) as index:
        index.refresh()
        return index.open_questions(name, n)
