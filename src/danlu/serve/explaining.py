"""Why a model answered what it did: which parts of the input spoke for it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from danlu.serve.asking import answered, asker, facts_of_request, service_of
from danlu.serve.bodies import ExplainBody, JsonRoute
from danlu.serve.predicting import TAKES_PICTURES, check_inputs
from danlu.serve.replies import ExplanationReply, documented

__all__ = ["explain", "router"]

router = APIRouter(route_class=JsonRoute)


@router.post("/explain", responses=documented(ExplanationReply))
async def explain(request: Request, body: ExplainBody) -> Response:
    """Which parts of a text or a picture speak for the answer, and which against it.

    Whoever belongs to an arm of an experiment gets the explanation of the model that answers them. It is no answer
    that an experiment could count, and takes much longer than one: it is written down without the model's name.
    """
    service, facts = service_of(request), facts_of_request(request)
    where = "only the answers of classifiers are explained"
    arm = service.arm(body.model, "explain", where, asker(request))
    facts |= {"model": arm.model, "digest": arm.worker.model.digest}
    pictures = arm.worker.facts["task"] == TAKES_PICTURES
    check_inputs(service.config.limits, [body.input], pictures=pictures)
    done = await answered(request, arm.worker, {"kind": "explain", "inputs": [body.input]})
    (found,) = done["results"]
    return JSONResponse({"id": facts["id"], "model": arm.model, **found})
