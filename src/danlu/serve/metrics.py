"""What is counted, for Prometheus. Labels are served names, routes and outcomes: they do not grow with time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from danlu.serve.following import Seat

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self._registry}
        by_route = ["model", "route", "status"]
        self._requests = Counter("danlu_requests", "Requests answered.", by_route, **shared)
        self._seconds = Histogram(
            "danlu_request_seconds", "Time from request to answer.", by_route[:2], buckets=_SECONDS, **shared
        )
        self._first = Histogram(
            "danlu_time_to_first_token_seconds", "Time to the first text.", ["model"], buckets=_SECONDS, **shared
        )
        self._tokens = Counter("danlu_tokens", "Tokens read and written.", ["model", "kind"], **shared)
        self._shadows = Counter(
            "danlu_shadow_requests", "Requests asked of a challenger in the shadow.", ["model", "outcome"], **shared
        )
        self._refused = Counter("danlu_connections_refused", "Requests over the limit of connections.", **shared)
        told = {
            "danlu_requests_under_way": "Requests that wait or are answered.",
            "danlu_model_ready": "Whether the model can be asked.",
            "danlu_challenger_ready": "Whether an experiment's challenger can be asked.",
            "danlu_process_starts": "How often a process was started for the model.",
            "danlu_swaps": "How often the name has come to mean another model.",
            "danlu_swaps_failed": "How often it could not.",
        }
        self._now = {name: Gauge(name, text, ["model"], **shared) for name, text in told.items()}

    def request(self, facts: Mapping[str, Any]) -> None:
        """Count a request.

        Args:
            facts: What is written down of it.
        """
        model = facts.get("model", "")
        self._requests.labels(model, facts["route"], facts["status"]).inc()
        self._seconds.labels(model, facts["route"]).observe(facts["seconds"])
        if "first_seconds" in facts:
            self._first.labels(model).observe(facts["first_seconds"])
        for kind in ("prompt_tokens", "completion_tokens"):
            if facts.get(kind):
                self._tokens.labels(model, kind.removesuffix("_tokens")).inc(facts[kind])

    def shadow(self, model: str, outcome: str) -> None:
        """Count what became of a request in the shadow: ``answered``, ``failed`` or ``dropped``."""
        self._shadows.labels(model, outcome).inc()

    def refused(self) -> None:
        """Count a request that there was no connection for."""
        self._refused.inc()

    def text(self, seats: Mapping[str, Seat]) -> bytes:
        """All of it in the text format of Prometheus, with how things are now."""
        for name, seat in seats.items():
            now = {
                "danlu_requests_under_way": seat.n_asked,
                "danlu_model_ready": seat.worker.ready,
                "danlu_challenger_ready": seat.trial is not None and seat.trial.worker.ready,
                "danlu_process_starts": seat.n_starts,
                "danlu_swaps": seat.n_swaps,
                "danlu_swaps_failed": seat.n_failed,
            }
            for gauge, value in now.items():
                self._now[gauge].labels(name).set(value)
        return generate_latest(self._registry)
