"""Experiments at the server: who answers whom, and what a model in the shadow would have answered.

**Live.** Whoever asks belongs to one arm (:meth:`danlu.core.experiments.Experiment.arm`), and a request that has been
given to an arm stays there: where its process is overloaded, too slow or lost, the request fails in that arm, and is
written down as its failure. It is never handed to the other arm, for then the worse model would be judged by answers
of the better one. While one of the two processes cannot be asked at all (it is being started, or again after its end),
the experiment stands still for both arms alike: these requests go to the champion and are in no arm. Whether it stands
still depends on what happened before and never on the coin of who asks now, so that the comparison stays fair.
Vectors (``embed``) are the champion's for everybody, as those of two models cannot be compared.

**Shadow.** The champion answers everybody. Afterwards, off the request's path, the same is asked of the challenger;
what it cannot keep up with is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from danlu.core.experiments import Experiment
from danlu.serve.worker import AskError, Worker

__all__ = ["Arm", "Shadow", "Trial", "asker_of", "unit_of"]

_TRIED = ("explain", "predict", "write")
"""What is asked of both arms. An explanation is that of the model whose answer was seen."""
_WAITING = 32
"""Requests that wait for a challenger in the shadow; one more is dropped."""


@dataclass(frozen=True)
class Trial:
    """An experiment whose challenger is held here.

    Attributes:
        experiment: The experiment.
        worker: The challenger's process.
    """

    experiment: Experiment
    worker: Worker

    @property
    def live(self) -> bool:
        """Whether users get answers of the challenger."""
        return bool(self.experiment.plan["mode"] == "live")

    def applies(self, champion: Worker, kind: str) -> bool:
        """Whether a request takes part: both processes can be asked this kind of question now."""
        both = (champion, self.worker)
        return kind in _TRIED and all(each.ready and kind in each.facts["kinds"] for each in both)


@dataclass(frozen=True)
class Arm:
    """Who answers a request; it is chosen once, and stays while the request is under way.

    Attributes:
        model: What callers call the model.
        name: Its name without an alias.
        worker: The process that answers.
        trial: The experiment that the request takes part in.
        arm: On which side of it: ``champion`` or ``challenger``.
        unit: Who asks, as a digest that means nothing outside of the experiment: a user counts once.
    """

    model: str
    name: str
    worker: Worker
    trial: Trial | None = None
    arm: str | None = None
    unit: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What is written down of it with the request."""
        known = {"model": self.model, "name": self.name, "digest": self.worker.model.digest}
        if self.trial is None:
            return known
        return {**known, "experiment": self.trial.experiment.id, "arm": self.arm, "unit": self.unit}


def asker_of(user: str | None, key: str | None, header: str | None, address: str) -> str:
    """Who asks, as far as it is known: the first of these that there is.

    Args:
        user: The body's ``user``.
        key: The id of the key.
        header: The header ``x-danlu-user``.
        address: The client's address.
    """
    known = [("user", user), ("key", key), ("header", header)]
    kind, found = next(((kind, each) for kind, each in known if each), ("address", address))
    return f"{kind}:{found}"


def unit_of(asker: str, experiment: str) -> str:
    """The digest of who asks within an experiment."""
    return hashlib.sha256(f"{experiment}\n{asker}".encode("utf-8", "backslashreplace")).hexdigest()[:16]


class Shadow:
    """Asks challengers what was answered already.

    Args:
        write: Writes an event down.
        count: Counts what became of a request: ``answered``, ``failed`` or ``dropped``; by the model's name.
    """

    def __init__(self, write: Callable[..., None], count: Callable[[str, str], None]) -> None:
        self._write, self._count = write, count
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_waiting: Counter[str] = Counter()

    def ask(self, arm: Arm, request: str, asked: dict[str, Any], answers: Callable[[dict[str, Any]], Any]) -> None:
        """Ask the challenger the same, now or never.

        Args:
            arm: Who answered.
            request: The request's id.
            asked: What was asked.
            answers: From what the process says when it is done to the answers of an event.
        """
        if arm.trial is None or arm.trial.live:
            return
        if self._n_waiting[arm.model] >= _WAITING or not arm.trial.worker.ready:
            self._count(arm.model, "dropped")
            return
        self._n_waiting[arm.model] += 1
        task = asyncio.create_task(self._asked(arm, arm.trial, request, asked, answers))
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._n_waiting[arm.model] -= 1

        task.add_done_callback(ended)

    async def stop(self) -> None:
        """Forget what is waiting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _asked(
        self, arm: Arm, trial: Trial, request: str, asked: dict[str, Any], answers: Callable[[dict[str, Any]], Any]
    ) -> None:
        facts: dict[str, Any] = {"request": request, "name": arm.name, "experiment": trial.experiment.id}
        facts |= {"digest": trial.worker.model.digest, "answers": None}
        whole = {**asked, "stream": False} if "stream" in asked else asked
        try:
            async with trial.worker.ask(whole) as ticket:
                facts["answers"] = answers((await ticket.reply())["done"])
        except AskError as error:
            if error.code in ("overloaded", "model_starting"):
                self._count(arm.model, "dropped")
                return
            facts["code"] = error.code
        self._count(arm.model, "failed" if "code" in facts else "answered")
        self._write("shadow", **facts)
