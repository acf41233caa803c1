"""Batches: which requests a model works on next, in the one thread of its process.

What is answered in one go (classes, translations, vectors) is gathered: while a batch is being answered the next one
fills, and a request with many inputs takes turns with the others. What is written token by token is never gathered:
a text joins those that are being written as soon as there is a place, and leaves when it ends.

Requests and replies are plain JSON values:

    request   {"id": 7, "kind": "predict", "inputs": [...]} or {"id": 7, "kind": "write", "prompts": [...], ...}
    reply     {"id": 7, "parts": [...]}, then {"id": 7, "done": {...}} or {"id": 7, "error": {...}}

An exception at a batch is nobody's answer: what was in it is worked on again, each request by itself, and only the one
that fails alone gets the error.
"""

from __future__ import annotations

import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from danlu.model.base import State
from danlu.serve.slots import Slots
from danlu.serve.writing import Chosen, Order, Text, choose

__all__ = ["Batcher", "Continuous", "Gathering", "InputError", "Kind", "failure"]

Request = dict[str, Any]
Reply = dict[str, Any]

_LOST = ("can't allocate memory", "not enough memory")
"""How torch says that the machine's memory ran out, for which it has no type of error."""
_READ_AT_ONCE = 512
"""Tokens of prompts, padding included, that are read before the texts that are being written get their next token;
a longer prompt is read alone."""


class InputError(Exception):
    """A request that a model cannot answer.

    Args:
        code: For programs.
        message: For people.
        param: Which part of the request it is about.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.facts = {"code": code, "message": message, "param": param}


def failure(number: int, error: Exception) -> Reply:
    """The reply to a request at which the model failed; what went wrong is told on stderr.

    Raises:
        Exception: The error, where the process cannot go on after it.
    """
    _raise_if_lost(error)
    traceback.print_exception(error)
    facts = {"code": "answer_failed", "message": "the model failed at this request", "param": None, "status": 503}
    return {"id": number, "error": facts}


def _raise_if_lost(error: Exception) -> None:
    """Raise an error after which nothing can be relied on: memory ran out, a device is lost."""
    lost = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)
    if lost or (isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)):
        raise error


class Batcher(Protocol):
    """What decides on the next batch."""

    def add(self, request: Request) -> None:
        """Take a request; InputError where it can never be answered."""

    def cancel(self, number: int) -> None:
        """Forget a request, if it is still there."""

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        ...

    @property
    def patience(self) -> float:
        """Seconds for which it is better to wait for more requests than to answer those that are here."""
        ...

    def step(self) -> list[Reply]:
        """Work on one batch; what there is to reply."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of question that is answered in one go.

    Attributes:
        prepare: Turns an input into what ``answer`` takes; InputError where it cannot be answered.
        answer: Answers many inputs, one result each.
    """

    prepare: Callable[[Any], Any]
    answer: Callable[[Sequence[Any]], list[Any]]


@dataclass
class _Job:
    id: int
    kind: str
    inputs: list[Any]
    results: list[Any]
    arrived: float
    n_taken: int = 0
    n_answered: int = 0


class Gathering:
    """Dynamic batching.

    Args:
        kinds: What can be asked.
        size: Inputs of a batch.
        wait: Seconds that the first of a batch waits for others.
    """

    def __init__(self, kinds: dict[str, Kind], size: int, wait: float) -> None:
        self._kinds, self._size, self._wait = kinds, size, wait
        self._jobs: deque[_Job] = deque()

    def add(self, request: Request) -> None:
        """See :class:`Batcher`."""
        kind = self._kinds[request["kind"]]
        inputs = []
        for place, given in enumerate(request["inputs"]):
            try:
                inputs.append(kind.prepare(given))
            except InputError as error:
                error.facts["param"] = f"{error.facts['param'] or 'inputs'}[{place}]"
                raise
        self._jobs.append(_Job(request["id"], request["kind"], inputs, [None] * len(inputs), time.monotonic()))

    def cancel(self, number: int) -> None:
        """See :class:`Batcher`."""
        self._jobs = deque(job for job in self._jobs if job.id != number)

    @property
    def busy(self) -> bool:
        """See :class:`Batcher`."""
        return bool(self._jobs)

    @property
    def patience(self) -> float:
        """See :class:`Batcher`."""
        if not self._jobs or sum(len(job.inputs) for job in self._jobs) >= self._size:
            return 0.0
        return max(0.0, self._jobs[0].arrived + self._wait - time.monotonic())

    def step(self) -> list[Reply]:
        """See :class:`Batcher`."""
        if not self._jobs:
            return []
        kind = self._jobs[0].kind
        batch = self._taken([job for job in self._jobs if job.kind == kind])
        failures = self._answer(kind, batch)
        done = [job for job in self._jobs if job.n_answered == len(job.inputs)]
        # Who has been served goes to the end, so that the next batch begins with another kind or request.
        rest = [job for job in self._jobs if job.n_answered < len(job.inputs)]
        self._jobs = deque(sorted(rest, key=lambda job: job.n_answered > 0))
        return failures + [{"id": job.id, "done": {"results": job.results, "batch": len(batch)}} for job in done]

    def _answer(self, kind: str, batch: Sequence[tuple[_Job, int]]) -> list[Reply]:
        """Answer a batch, or else each request of it by itself; replies to those that fail alone, which are dropped."""
        try:
            self._fill(kind, batch)
        except Exception as error:
            _raise_if_lost(error)
        else:
            return []
        parts: defaultdict[int, list[tuple[_Job, int]]] = defaultdict(list)
        for job, place in batch:
            parts[job.id].append((job, place))
        failures = []
        for number, part in parts.items():
            try:
                self._fill(kind, part)
            except Exception as error:
                failures.append(failure(number, error))
                self.cancel(number)
        return failures

    def _fill(self, kind: str, batch: Sequence[tuple[_Job, int]]) -> None:
        answers = self._kinds[kind].answer([job.inputs[place] for job, place in batch])
        for (job, place), answer in list(zip(batch, answers, strict=True)):
            job.results[place] = answer
            job.n_answered += 1

    def _taken(self, jobs: Sequence[_Job]) -> list[tuple[_Job, int]]:
        """The inputs of the next batch: one of each request in turn."""
        batch: list[tuple[_Job, int]] = []
        while len(batch) < self._size:
            n_before = len(batch)
            for job in jobs:
                if job.n_taken < len(job.inputs) and len(batch) < self._size:
                    batch.append((job, job.n_taken))
                    job.n_taken += 1
            if len(batch) == n_before:
                break
        return batch


class Continuous:
    """Continuous batching of texts that are written.

    Args:
        slots: Places for them.
        order: Makes the texts of a request; InputError where it cannot be answered.
        ends: The tokens that end a text.
        vocab_size: Tokens V.
    """

    def __init__(self, slots: Slots, order: Callable[[Request], Order], ends: frozenset[int], vocab_size: int) -> None:
        self._slots, self._order, self._ends, self._vocab_size = slots, order, ends, vocab_size
        self._waiting: deque[Text] = deque()
        self._orders: dict[int, Order] = {}
        self._live: list[Text] = []
        self._logits: list[torch.Tensor] = []
        self._failures: list[Reply] = []

    def add(self, request: Request) -> None:
        """See :class:`Batcher`."""
        order = self._order(request)
        self._orders[order.id] = order
        self._waiting.extend(text for text in order.texts if not text.ended)

    def cancel(self, number: int) -> None:
        """See :class:`Batcher`; its texts give up their places."""
        if self._orders.pop(number, None) is None:
            return
        self._waiting = deque(text for text in self._waiting if text.order.id != number)
        for place in reversed(range(len(self._live))):
            if self._live[place].order.id == number:
                self._leave(place)

    @property
    def busy(self) -> bool:
        """See :class:`Batcher`."""
        return bool(self._orders)

    @property
    def patience(self) -> float:
        """See :class:`Batcher`: nobody ever waits for company."""
        return 0.0

    @torch.inference_mode()
    def step(self) -> list[Reply]:
        """See :class:`Batcher`: a token more of every text that has a place."""
        self._advance()
        self._admit()
        self._choose()
        replies = self._replies()
        for place in reversed(range(len(self._live))):
            if self._live[place].ended:
                self._leave(place)
        failures, self._failures = self._failures, []
        return replies + failures

    def _admit(self) -> None:
        """Read waiting prompts while there are places; of many only some, so that nobody's text stands still."""
        prompts: list[list[int]] = []
        texts: list[Text] = []
        while self._waiting and len(self._live) + len(texts) < self._slots.n_places:
            tokens = self._waiting[0].prompt.tokens
            if not (prompts and prompts[-1] is tokens):
                longest = max(map(len, [*prompts, tokens]))
                if prompts and longest * (len(prompts) + 1) > _READ_AT_ONCE:
                    break
                prompts.append(tokens)
            texts.append(self._waiting.popleft())
        try:
            self._read_together(prompts, texts)
        except Exception as error:
            _raise_if_lost(error)
            for text in texts:
                self._read_alone(text)

    def _read_together(self, prompts: list[list[int]], texts: Sequence[Text]) -> None:
        """Read prompts and give their texts places: all of them or, at an error, none."""
        if not prompts:
            return
        logits_BV, state = self._slots.read(prompts)
        rows = {id(prompt): row for row, prompt in enumerate(prompts)}
        n_before = len(self._live)
        try:
            for text in texts:
                row = rows[id(text.prompt.tokens)]
                self._enter(text, logits_BV[row : row + 1], state, row)
        except Exception:
            while len(self._live) > n_before:
                self._leave(len(self._live) - 1)
            raise

    def _read_alone(self, text: Text) -> None:
        if text.order.id not in self._orders:  # another of its texts failed
            return
        try:
            logits_1V, state = self._slots.read([[*text.prompt.tokens, *text.tokens]])
            self._enter(text, logits_1V, state, 0)
        except Exception as error:
            self._fail(text.order, error)

    def _enter(self, text: Text, logits_1V: torch.Tensor, state: State, row: int) -> None:
        if text.order.config.repetition_penalty != 1 and text.seen is None:
            text.seen = torch.zeros(self._vocab_size, dtype=torch.bool)
            text.seen[text.prompt.tokens] = True
        self._slots.add(state, row)
        self._live.append(text)
        self._logits.append(logits_1V)

    def _choose(self) -> None:
        """Give every text that has a place its next token."""
        texts, rows = list(self._live), list(self._logits)
        if not texts:
            return
        chosen: Sequence[Chosen | None]
        try:
            chosen = choose(texts, torch.cat(rows))
        except Exception as error:
            _raise_if_lost(error)
            chosen = [None] * len(texts)
        for text, row, found in zip(texts, rows, chosen, strict=True):
            try:
                text.add(found or choose([text], row)[0], self._ends)
            except Exception as error:
                self._fail(text.order, error)

    def _advance(self) -> None:
        """Read the last token of every text: a step later, so that who waits for the token need not wait for this."""
        if not self._live:
            return
        try:
            logits_BV = self._slots.advance([text.tokens[-1] for text in self._live])
        except Exception as error:
            _raise_if_lost(error)
            self._read_again()
        else:
            self._logits = [logits_BV[place : place + 1] for place in range(len(self._live))]

    def _read_again(self) -> None:
        """Read every text from its beginning, each by itself: after an error nothing that was kept can be relied on."""
        texts = list(self._live)
        while self._live:
            self._leave(len(self._live) - 1)
        for text in texts:
            self._read_alone(text)

    def _replies(self) -> list[Reply]:
        replies: list[Reply] = []
        for order in list(self._orders.values()):
            if order.streamed and (parts := [part for text in order.texts if (part := text.take())]):
                replies.append({"id": order.id, "parts": parts})
            if order.done:
                counts = {"prompt_tokens": order.n_prompt_tokens, "completion_tokens": order.n_written}
                texts = [] if order.streamed else [text.take() for text in order.texts]
                replies.append({"id": order.id, "done": {"texts": texts, **counts}})
                del self._orders[order.id]
        return replies

    def _fail(self, order: Order, error: Exception) -> None:
        """Give a request up; another of its texts may have failed before."""
        if order.id in self._orders:
            self._failures.append(failure(order.id, error))
            self.cancel(order.id)

    def _leave(self, place: int) -> None:
        last = self._slots.remove(place)
        self._live[place], self._logits[place] = self._live[last], self._logits[last]
        self._live.pop()
        self._logits.pop()
