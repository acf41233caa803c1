"""What is served: the models, the processes that hold them, and what is counted and written down of every request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from danlu.core.artifact import Artifact
from danlu.core.errors import nearest
from danlu.core.events import EventLog
from danlu.serve.config import ServeConfig
from danlu.serve.keys import KeyRing
from danlu.serve.trial import Arm, Shadow
from danlu.serve.worker import AskError, Worker

__all__ = ["Service"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Service:
    """Models that can be asked; made where an event loop runs.

    Args:
        models: What each is called, and the model.
        config: How they are served.
        keys: Who may ask.
        events: Where it is written down what was asked.

    Attributes:
        config, keys, events: See above.
        workers: The process of each model.
        stopping: Whether no new request is to come.
    """

    def __init__(self, models: Mapping[str, Artifact], config: ServeConfig, keys: KeyRing, events: EventLog) -> None:
        self.config, self.keys, self.events = config, keys, events
        threads = config.threads or max(1, len(os.sched_getaffinity(0)) // len(models))
        self.workers = {name: Worker(model, config, threads) for name, model in models.items()}
        self.stopping = False
        self._shadow = Shadow(self.events.write, lambda model, outcome: self._shadows.labels(model, outcome).inc())
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "danlu_requests", "Requests answered.", ["model", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "danlu_request_seconds",
            "Time from request to answer.",
            ["model", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "danlu_time_to_first_token_seconds",
            "Time to the first text.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter("danlu_tokens", "Tokens read and written.", ["model", "kind"], registry=registry)
        self._waiting = Gauge(
            "danlu_requests_under_way", "Requests that wait or are answered.", ["model"], registry=registry
        )
        self._shadows = Counter(
            "danlu_shadow_requests", "Requests asked of a challenger.", ["model", "outcome"], registry=registry
        )
        self._ready = Gauge("danlu_model_ready", "Whether the model can be asked.", ["model"], registry=registry)
        self._starts = Gauge(
            "danlu_process_starts", "How often the model's process was started.", ["model"], registry=registry
        )

    async def start(self) -> None:
        """Start every model's process, and wait until all can be asked.

        Raises:
            DanluError: A model cannot be served; none is left running.
        """
        begun = await asyncio.gather(*(each.start() for each in self.workers.values()), return_exceptions=True)
        if failed := [each for each in begun if isinstance(each, BaseException)]:
            await self.stop()
            raise failed[0]

    async def stop(self) -> None:
        """End every process."""
        self.stopping = True
        await asyncio.gather(*(worker.stop() for worker in self.workers.values()))

    @property
    def ready(self) -> dict[str, bool]:
        """Whether each model can be asked."""
        return {name: worker.ready and not self.stopping for name, worker in self.workers.items()}

    def named(self, name: str | None, kind: str, where: str) -> tuple[str, Worker]:
        """The model of a name; without a name, the only one.

        Args:
            name: What the request calls it.
            kind: What is to be asked of it.
            where: Where else its kind of question is answered, for the message.

        Raises:
            AskError: There is no such model, or it cannot be asked this.
        """
        if name is None:
            if len(self.workers) > 1:
                what = f"several models are served here: {', '.join(self.workers)}"
                raise AskError(400, "model_missing", what, param="model")
            (name,) = self.workers
        if name not in self.workers:
            what = f"no model is called {name[:100]!r} here: {nearest(name[:100], self.workers)}"
            raise AskError(404, "model_not_found", what, param="model")
        worker = self.workers[name]
        if worker.facts and kind not in worker.facts["kinds"]:
            what = f"{name} is a model for {worker.facts['task']}: {where}"
            raise AskError(400, "wrong_task", what, param="model")
        return name, worker

    def arm(self, name: str | None, kind: str, where: str, asker: str) -> Arm:
        """Who answers a request: the model of a name, or where an experiment runs one of its two.

        Args:
            name: What the request calls the model; without a name, the only one.
            kind: What is to be asked of it.
            where: Where else its kind of question is answered, for the message.
            asker: Who asks (:func:`danlu.serve.trial.asker_of`).

        Raises:
            AskError: There is no such model, or it cannot be asked this.
        """
        called, worker = self.named(name, kind, where)
        return Arm(called, worker.model.manifest["name"], worker)

    def shadow(self, arm: Arm, request: str, asked: dict[str, Any], answers: Callable[[dict[str, Any]], Any]) -> None:
        """Ask the challenger in the shadow, if there is one, what was answered already; it takes no time.

        Args:
            arm: Who answered.
            request: The request's id.
            asked: What was asked.
            answers: From what a process says when it is done to the ``answers`` that are written down.
        """
        self._shadow.ask(arm, request, asked, answers)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Count a request, and write it down.

        Args:
            facts: What is known of it; at least ``route``, ``status`` and ``seconds``.

        Raises:
            DanluError: It cannot be written.
        """
        self.events.write("request", **facts)
        model = facts.get("model", "")
        self._requests.labels(model, facts["route"], facts["status"]).inc()
        self._seconds.labels(model, facts["route"]).observe(facts["seconds"])
        if "first_seconds" in facts:
            self._first.labels(model).observe(facts["first_seconds"])
        for kind in ("prompt_tokens", "completion_tokens"):
            if facts.get(kind):
                self._tokens.labels(model, kind.removesuffix("_tokens")).inc(facts[kind])

    def metrics(self) -> bytes:
        """What is counted, in the text format of Prometheus."""
        for name, worker in self.workers.items():
            self._waiting.labels(name).set(worker.n_asked)
            self._ready.labels(name).set(worker.ready)
            self._starts.labels(name).set(worker.n_starts)
        return generate_latest(self._registry)
