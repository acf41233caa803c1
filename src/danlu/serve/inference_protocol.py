"""The Open Inference Protocol, version 2, over REST: for classifiers, pictures and translation.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md and open_inference_rest.yaml.

    texts      one BYTES tensor ``text`` [n]
    pictures   one UINT8 tensor ``image`` [n, C, Y, X], exactly of the size that the model's metadata tells
    classes    BYTES ``label`` [n], FP32 ``probability`` [n], FP32 ``probabilities`` [n, N] in the order of the metadata
    otherwise  BYTES ``translation`` [n]

Data may be nested or flat, in row-major order. A model's version is its digest. There are no parameters and no
extensions; what is not understood is refused. The answer's parameter ``request`` is what feedback refers to.
"""

from __future__ import annotations

import base64
import io
import math
from itertools import chain
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from PIL import Image
from pydantic import Field
from starlette.responses import JSONResponse, Response

from danlu._version import __version__
from danlu.serve.asking import arm_of_request, facts_of_request, service_of
from danlu.serve.bodies import Body, JsonRoute, Named
from danlu.serve.predicting import TAKES_PICTURES, check_inputs, predictions
from danlu.serve.replies import InferReply, ModelMetadata, ModelReadyReply, PlainErrorReply, ServerMetadata, documented
from danlu.serve.trial import Arm
from danlu.serve.worker import AskError, Worker

__all__ = [
    "InferBody",
    "InputTensor",
    "NoParameters",
    "OutputTensor",
    "infer",
    "live",
    "model",
    "model_ready",
    "ready",
    "router",
    "server",
]

router = APIRouter(prefix="/v2", route_class=JsonRoute)

_ELSEWHERE = "ask it at POST /v1/completions"
_MODEL, _VERSION = "/models/{name}", "/models/{name}/versions/{version}"


class NoParameters(Body):
    """Parameters, of which there are none."""


class InputTensor(Body):
    """What is asked."""

    name: str
    """``text`` or ``image``."""
    shape: list[int] = Field(min_length=1, max_length=4)
    """How many there are; of pictures also channels, height and width."""
    datatype: str
    """BYTES or UINT8."""
    data: list[Any]
    """Texts, or numbers from 0 to 255; flat, or nested as the shape says."""
    parameters: NoParameters | None = None
    """None are known."""


class OutputTensor(Body):
    """What is to be answered."""

    name: str
    """Its name in the model's metadata."""
    parameters: NoParameters | None = None
    """None are known."""


class InferBody(Body):
    """A question to a model."""

    id: Named | None = None
    """Comes back with the answer."""
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    """The one input that a model has."""
    outputs: list[OutputTensor] | None = None
    """What is to be answered; null: all there is."""
    parameters: NoParameters | None = None
    """None are known."""


@router.get("", responses=documented(ServerMetadata, error=PlainErrorReply))
async def server() -> Response:
    """What server this is."""
    return JSONResponse({"name": "danlu", "version": __version__, "extensions": []})


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """Whether the server answers at all."""
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Whether every model can be asked; the specification calls the answer ``live``, its servers call it ``ready``."""
    fine = all(service_of(request).ready.values())
    return JSONResponse({"live": fine, "ready": fine}, 200 if fine else 503)


@router.get(_MODEL, responses=documented(ModelMetadata, error=PlainErrorReply))
@router.get(_VERSION, responses=documented(ModelMetadata, error=PlainErrorReply))
async def model(request: Request, name: str, version: str | None = None) -> Response:
    """What a model takes and answers."""
    called, worker = service_of(request).named(name, "predict", _ELSEWHERE)
    _check_version(worker, version)
    found = {"name": called, "versions": [worker.model.digest], "platform": "danlu_safetensors"}
    return JSONResponse({**found, "inputs": [_input_of(worker)], "outputs": _outputs_of(worker)})


@router.get(f"{_MODEL}/ready", responses=documented(ModelReadyReply, error=PlainErrorReply))
@router.get(f"{_VERSION}/ready", responses=documented(ModelReadyReply, error=PlainErrorReply))
async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
    """Whether a model can be asked."""
    service = service_of(request)
    called, worker = service.named(name)
    _check_version(worker, version)
    if not service.ready[called]:
        raise AskError(503, "model_starting", "the model's process is being started", retry_after=1.0)
    return JSONResponse({"name": called, "ready": True})


@router.post(f"{_MODEL}/infer", responses=documented(InferReply, error=PlainErrorReply))
@router.post(f"{_VERSION}/infer", responses=documented(InferReply, error=PlainErrorReply))
async def infer(request: Request, body: InferBody, name: str, version: str | None = None) -> Response:
    """Classes of texts or pictures, or translations."""
    service, facts = service_of(request), facts_of_request(request)
    arm = arm_of_request(request, name, "predict", _ELSEWHERE)
    if version not in (None, arm.worker.model.digest):  # who asks for the champion by its digest is in no experiment
        arm = Arm(arm.model, arm.name, service.named(name)[1])
        _check_version(arm.worker, version)
        for key in ("experiment", "arm", "unit"):
            facts.pop(key, None)
        facts.update(arm.facts)
    known = [each["name"] for each in _outputs_of(arm.worker)]
    wanted = known if body.outputs is None else [each.name for each in body.outputs]
    if unknown := set(wanted) - set(known):
        raise AskError(
            400, "invalid_value", f"no output is called {min(unknown)[:100]!r}: there are {', '.join(known)}"
        )
    given, expected = body.inputs[0], _input_of(arm.worker)
    inputs = _pictures(given, expected) if expected["name"] == "image" else _texts(given, expected)
    check_inputs(service.config.limits, inputs, pictures=expected["name"] == "image")
    tensors = _tensors(await predictions(request, arm, inputs), arm.worker.facts["classes"])
    told = {"model_name": arm.model, "model_version": arm.worker.model.digest, "id": body.id or facts["id"]}
    outputs = [tensors[each] for each in known if each in wanted]
    return JSONResponse({**told, "parameters": {"request": facts["id"]}, "outputs": outputs})


def _check_version(worker: Worker, version: str | None) -> None:
    if version not in (None, worker.model.digest):
        raise AskError(404, "model_not_found", f"this version is not served: there is {worker.model.digest}")


def _input_of(worker: Worker) -> dict[str, Any]:
    if worker.facts["task"] == TAKES_PICTURES:
        return {"name": "image", "datatype": "UINT8", "shape": [-1, *worker.facts["image_size"]]}
    return {"name": "text", "datatype": "BYTES", "shape": [-1]}


def _outputs_of(worker: Worker) -> list[dict[str, Any]]:
    if not (classes := worker.facts["classes"]):
        return [{"name": "translation", "datatype": "BYTES", "shape": [-1]}]
    return [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "probability", "datatype": "FP32", "shape": [-1]},
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [-1, len(classes)],
            "parameters": {"classes": classes},
        },
    ]


def _tensors(results: list[dict[str, Any]], classes: list[str]) -> dict[str, dict[str, Any]]:
    """Answers by the name of their tensor."""
    n = len(results)

    def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape, "data": data}

    if not classes:
        found = [tensor("translation", "BYTES", [n], [each["translation"] for each in results])]
    else:
        rows = [[each["probabilities"][name] for name in classes] for each in results]
        found = [
            tensor("label", "BYTES", [n], [each["label"] for each in results]),
            tensor("probability", "FP32", [n], [each["probability"] for each in results]),
            tensor("probabilities", "FP32", [n, len(classes)], list(chain.from_iterable(rows))),
        ]
    return {each["name"]: each for each in found}


def _texts(given: InputTensor, expected: dict[str, Any]) -> list[str]:
    return _flat(given, expected, str, "texts")


def _pictures(given: InputTensor, expected: dict[str, Any]) -> list[str]:
    """Pictures as files in base64, like those of every other route."""
    numbers = _flat(given, expected, int, "whole numbers")
    if numbers and not (min(numbers) >= 0 and max(numbers) <= 255):
        raise _wrong("data", "UINT8 is 0 to 255")
    return [_png(pixels_CYX) for pixels_CYX in np.array(numbers, np.uint8).reshape(given.shape)]


def _png(pixels_CYX: np.ndarray) -> str:
    pixels_YXC = pixels_CYX.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels_YXC[:, :, 0] if len(pixels_CYX) == 1 else pixels_YXC).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def _flat(given: InputTensor, expected: dict[str, Any], kind: type, what: str) -> list[Any]:
    """The data of a tensor without its nesting.

    Raises:
        AskError: The tensor is not what the model takes, or its data not what its shape says.
    """
    if given.name != expected["name"]:
        raise _wrong("name", f"the model takes one input, called {expected['name']}")
    if given.datatype != expected["datatype"]:
        raise _wrong("datatype", f"{given.name} is {expected['datatype']}")
    n, *rest = given.shape
    if n < 1 or rest != expected["shape"][1:]:
        shown = ", ".join(["n", *map(str, expected["shape"][1:])])
        raise _wrong("shape", f"{given.name} has the shape [{shown}], n at least 1")
    found = given.data
    if found and isinstance(found[0], list):
        for length in rest:
            if not all(isinstance(each, list) and len(each) == length for each in found):
                raise _wrong("data", "it is nested otherwise than the shape says")
            found = list(chain.from_iterable(found))
    if len(found) != math.prod(given.shape):
        raise _wrong("data", f"the shape says {math.prod(given.shape)} values, there are {len(found)}")
    if set(map(type, found)) != {kind}:
        raise _wrong("data", f"{expected['datatype']} are {what}")
    return found


def _wrong(part: str, what: str) -> AskError:
    return AskError(400, "invalid_value", f"inputs[0].{part}: {what}")
