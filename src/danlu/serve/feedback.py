"""What people say of answers, on its way in: each piece is written down once, and before it is acknowledged.

It is on the disk when it is acknowledged (:mod:`danlu.core.events`): it outlives this process however that ends,
SIGKILL included, and the machine's power.

The id that comes with a piece makes it count once: the same again is acknowledged again, something else under it is
refused. Ids of earlier processes and of other ones (``danlu feedback NAME import=FILE``) are read from their event
files, those of this one are remembered.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from danlu.core.errors import CorruptError, nearest
from danlu.core.files import digest_of
from danlu.serve.asking import asker, service_of
from danlu.serve.bodies import FeedbackBody, JsonRoute, check_text
from danlu.serve.keys import Key
from danlu.serve.replies import FeedbackReply, documented
from danlu.serve.service import Service
from danlu.serve.worker import AskError, Worker

__all__ = ["Asked", "FeedbackDesk", "feedback", "router"]

_VALUES = ("correct", "label", "text", "rating")
"""What a piece may say; each says one of them."""
_IS_FEEDBACK = b'"event": "feedback"'
_RECENT_CHARS = 16 * 2**20
"""Characters of requests that are remembered, so that feedback soon after an answer need not be looked up."""

router = APIRouter(route_class=JsonRoute)


@router.post("/feedback", responses=documented(FeedbackReply))
async def feedback(request: Request, body: FeedbackBody) -> Response:
    """Say how good an answer was; the same id may be sent again, and counts once."""
    if body.text is not None:
        check_text(body.text, service_of(request).config.limits, "text")
    desk: FeedbackDesk = request.app.state.feedback
    given, status = await desk.take(body, asker(request), request.state.key)
    return JSONResponse({"id": given, "status": status})


@dataclass(frozen=True)
class Asked:
    """What is remembered of a request that was answered.

    Attributes:
        name: The model's name without an alias.
        n_inputs: How many inputs it had.
        inputs: They, where they were kept.
        key: The id of its key.
        copied: What feedback to it takes over.
    """

    name: str
    n_inputs: int
    inputs: list[str | None] | None
    key: str | None
    copied: dict[str, Any]

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Asked | None:
        """The request of an event; None: nobody can say anything of its answer, for there is none."""
        n_inputs = event.get("n_inputs", len(event.get("answers", ())))
        if event["status"] != 200 or not n_inputs or "digest" not in event:
            return None
        name = event.get("name") or event["model"].partition("@")[0]
        copied = {each: event[each] for each in ("digest", "experiment", "arm") if event.get(each) is not None}
        return cls(name, n_inputs, event.get("inputs"), event.get("key"), copied)

    @property
    def n_chars(self) -> int:
        """Roughly the memory that it takes."""
        return 500 + sum(len(each) for each in self.inputs or [] if each)


class FeedbackDesk:
    """Where feedback comes in; made where an event loop runs.

    Args:
        service: What is served; the events of its workspace tell what was asked and said before.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._said = _Said(service.workspace.events, service.events.path)
        self._recent: OrderedDict[str, Asked] = OrderedDict()
        self._n_chars = 0
        self._lock = asyncio.Lock()

    def remember(self, event: Mapping[str, Any]) -> None:
        """Keep a request at hand that was written down."""
        if (asked := Asked.of(event)) is None:
            return
        self._recent[event["id"]] = asked
        self._n_chars += asked.n_chars
        while self._n_chars > _RECENT_CHARS:
            self._n_chars -= self._recent.popitem(last=False)[1].n_chars

    async def take(self, body: FeedbackBody, sender: str, key: Key | None) -> tuple[str, Literal["recorded", "known"]]:
        """Take a piece in.

        Args:
            body: The piece.
            sender: Who sends it, in case it does not say whose it is.
            key: The key that was used; None: none is needed here.

        Returns:
            Its id, and whether it is new.

        Raises:
            AskError: It cannot be taken.
            DanluError: It cannot be written down, or what was said before cannot be read.
        """
        source = {"kind": "user", "id": sender} if body.source is None else body.source.plain()
        if source["kind"] == "labeller" and not _may_label(key):
            raise AskError(403, "scope_missing", "to label takes a key with the scope label", param="source")
        said = {name: value for name in _VALUES if (value := getattr(body, name)) is not None}
        content = {"request": body.request, "index": body.index, **said}
        content |= {} if body.comment is None else {"comment": body.comment}
        async with self._lock:
            if body.id is not None and (before := await asyncio.to_thread(self._said.find, body.id)) is not None:
                if before != (_digest(content), source if body.source else before[1]):
                    what = "something else was said under this id before: send what is new under a new one"
                    raise AskError(409, "id_taken", what, param="id")
                return body.id, "known"
            asked = await self._asked(body.request, key)
            _check(body, asked, self._worker(asked.name))
            given = body.id or f"fb-{secrets.token_hex(12)}"
            facts = {"id": given, "name": asked.name, **content, "source": source, **asked.copied}
            if asked.inputs is not None and (kept := asked.inputs[body.index]) is not None:
                facts["input"] = kept
            facts |= {} if key is None else {"key": key.id}
            await asyncio.to_thread(self._service.events.write, "feedback", **facts)  # it waits for the disk
            self._said.add(facts)
        return given, "recorded"

    async def _asked(self, request: str, key: Key | None) -> Asked:
        """The request of an id; with a key that may not label, one of one's own."""
        found = self._recent.get(request) or await asyncio.to_thread(self._looked_up, request)
        if found is None or not (_may_label(key) or (key and key.id) == found.key):
            what = "no request of this id was answered here: give the id of an answer, or its header x-request-id"
            raise AskError(404, "request_not_found", what, param="request")
        return found

    def _looked_up(self, request: str) -> Asked | None:
        index = self._service.index
        index.refresh()
        found = index.request(request)
        return None if found is None else Asked.of(found)

    def _worker(self, name: str) -> Worker:
        for seat in self._service.seats.values():
            if seat.target.name == name:
                return seat.worker
        what = "the model that answered is not served here now: say it where it is, or by danlu feedback"
        raise AskError(404, "model_not_found", what, param="request")


class _Said:
    """What was said under which id.

    Args:
        folder: The event files.
        own: The one of this process, whose feedback is added as it is written.
    """

    def __init__(self, folder: Path, own: Path) -> None:
        self._folder, self._own = folder, own
        self._found: dict[str, tuple[str, dict[str, str]]] = {}
        self._read: dict[str, int] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Remember a piece; the first of an id counts."""
        content = {
            name: event[name] for name in ("request", "index", "comment", *_VALUES) if event.get(name) is not None
        }
        self._found.setdefault(event["id"], (_digest(content), event["source"]))

    def find(self, given: str) -> tuple[str, dict[str, str]] | None:
        """The digest of what was said under an id, and who said it."""
        if given not in self._found:
            for path in self._folder.glob("*.jsonl"):
                if path != self._own and path.stat().st_size > self._read.get(path.name, 0):
                    self._take_in(path)
        return self._found.get(given)

    def _take_in(self, path: Path) -> None:
        """Read the lines of a file that have been added to it."""
        n_bytes = self._read.get(path.name, 0)
        with path.open("rb") as file:
            file.seek(n_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                n_bytes += len(line)
                if _IS_FEEDBACK in line[:100]:  # where an event's kind stands; the rest is not looked at
                    try:
                        self.add(json.loads(line))
                    except (ValueError, KeyError, TypeError) as error:
                        raise CorruptError("not an event", where=f"{path}, before byte {n_bytes}") from error
        self._read[path.name] = n_bytes


def _digest(content: Mapping[str, Any]) -> str:
    return digest_of({"index": 0, **content})[:32]


def _may_label(key: Key | None) -> bool:
    return key is None or "label" in key.scopes


def _check(body: FeedbackBody, asked: Asked, worker: Worker) -> None:
    """Whether a piece can be true of a request.

    Raises:
        AskError: It cannot.
    """
    if body.index >= asked.n_inputs:
        what = f"the request had {asked.n_inputs} inputs: index is 0 to {asked.n_inputs - 1}"
        raise AskError(400, "invalid_value", what, param="index")
    classes, task = worker.facts["classes"], worker.facts["task"]
    if body.label is not None and not classes:
        raise AskError(
            400, "wrong_task", f"a model for {task} has no classes: give the right answer as text", param="label"
        )
    if body.text is not None and classes:
        raise AskError(
            400, "wrong_task", f"a model for {task} names classes: give the right one as label", param="text"
        )
    if body.label is not None and body.label not in classes:
        raise AskError(400, "invalid_value", f"no class is called that: {nearest(body.label, classes)}", param="label")
