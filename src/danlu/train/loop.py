"""The training loop: step, save, then evaluate.

Everything that happens at a step follows from the seeds and the step's number, so that a run which was killed at any
instant goes on from its last checkpoint to the same bytes as one that was not.
"""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass
from typing import Any

from danlu.core.batch import Batch
from danlu.core.errors import UsageError
from danlu.core.progress import Progress
from danlu.model.weights import weights_root
from danlu.train.ahead import Ahead
from danlu.train.checkpoint import Run, State
from danlu.train.engine import Engine, Training, require_finite
from danlu.train.optimizer import learning_rate
from danlu.train.profile import Profiler
from danlu.train.watch import Watch, memory
from danlu.train.world import World

__all__ = ["Fitted", "advance", "fit"]

_N_REPORTS = 200
"""Points on a training curve: enough to see its shape."""


@dataclass(frozen=True)
class Fitted:
    """How a run ended.

    Attributes:
        step: Steps taken.
        n_steps: Steps planned.
        best_step: The step whose weights the model has now.
        best_score: Their score on the validation split.
    """

    step: int
    n_steps: int
    best_step: int
    best_score: float


def fit(work: Training, run: Run, progress: Progress, world: World = World()) -> Fitted:  # noqa: B008 - it is frozen
    """Train a module from the run's last checkpoint, or from the start; it ends with the best weights found.

    One that several processes have shares of ends without them: they are in the checkpoint of the best step.

    Args:
        work: The module, its data, and how to train it.
        run: Where checkpoints and curves go.
        progress: Told of every step.
        world: Who trains together; each calls this with the same work.

    Raises:
        DivergedError: The loss or a gradient is not finite; the step is not taken.
        DanluError: A checkpoint cannot be written.
    """
    begun = _beginning(work) if world.leads else {}
    engine, n_steps = Engine(work, world), work.feed.n_steps
    state = run.restore(engine)
    if state.step > n_steps:
        what = f"the run is at step {state.step}, and would now end at step {n_steps}"
        raise UsageError(what, where="train.epochs", advice="train longer, or leave train.resume out to begin anew")
    run.begin(begun, state.step)
    advance(engine, run, state, progress)
    assert state.best_step is not None, "the last step is always evaluated"
    assert state.best_score is not None
    if not engine.sharded:
        engine.load_weights(run.read(state.best_step))
    return Fitted(state.step, n_steps, state.best_step, state.best_score)


def _beginning(work: Training) -> dict[str, Any]:
    """What the chain says of a run before its first step."""
    return {
        "weights": weights_root(work.module.state_dict()),
        "order_root": work.feed.order_root,
        "n_steps": work.feed.n_steps,
        "commitments": work.seeds.commitments(),
    }


def advance(engine: Engine, run: Run, state: State, progress: Progress, until: int | None = None) -> None:
    """Train on from where an engine stands.

    Args:
        engine: What is trained.
        run: Where checkpoints and curves go.
        state: Where it stands; it comes to stand where the training stops.
        progress: Told of every step.
        until: Stop when the model was evaluated after this step; None: at the end.

    Raises:
        DivergedError: The loss or a gradient is not finite; the step is not taken.
        DanluError: A checkpoint cannot be written.
    """
    work, world = engine.work, engine.world
    feed, config = work.feed, work.config
    clock = _Clock(run, state, feed.n_steps, progress)
    profiler = Profiler(run.folder, config.profile_steps if world.leads else 0)
    saved_at = -math.inf
    with Ahead(feed, engine.device) as ahead:
        while True:
            if state.step in feed.evaluate_after and state.evaluated < state.step:
                run.save(engine.tensors(), state)
                saved_at = time.monotonic()
                scores = clock.watch.scores = _evaluate(engine, run, state, feed.n_steps)
                progress.note(
                    f"step {state.step}: " + " · ".join(f"{name} {value:.4f}" for name, value in scores.items())
                )
            if state.step in (feed.n_steps, until) or state.n_worse >= config.patience:
                break
            (due,) = world.told([time.monotonic() - saved_at >= config.checkpoint_seconds])
            if due:
                run.save(engine.tensors(), state)
                saved_at = time.monotonic()
            clock.start()
            profiler.begin()
            batch = ahead.batch(state.step)
            rate = learning_rate(state.step, feed.n_steps, config)
            loss, norm = engine.step(batch, state.step, rate)
            _count(state, loss, norm, rate, feed.n_steps, run)
            profiler.end(last=state.step == feed.n_steps)
            clock.tick(state, batch, loss, rate)
    clock.report(state)


def _evaluate(engine: Engine, run: Run, state: State, n_steps: int) -> dict[str, float]:
    with engine.judged() as model:
        scores = engine.work.evaluate(model)
    scores = dict(zip(scores, engine.world.told(list(scores.values())), strict=True))
    for name, value in scores.items():
        require_finite(f"validation {name}", value, f"after step {state.step}")
    state.evaluated = state.step
    if state.best_score is None or scores["score"] > state.best_score:
        state.best_step, state.best_score, state.n_worse = state.step, scores["score"], 0
    else:
        state.n_worse += 1
    run.report(step=state.step, valid=scores)
    run.enter(state, learning_rate(state.step - 1, n_steps, engine.work.config), scores)
    return scores


def _count(state: State, loss: float, norm: float, rate: float, n_steps: int, run: Run) -> None:
    """Count the step, and now and then put the mean loss on the curve."""
    state.step += 1
    state.loss_sum += loss
    state.loss_count += 1
    state.chain_loss += loss
    state.chain_count += 1
    if state.step % max(1, n_steps // _N_REPORTS) == 0 or state.step == n_steps:
        run.report(step=state.step, loss=state.loss_sum / state.loss_count, gradient_norm=norm, learning_rate=rate)
        state.loss_sum, state.loss_count = 0.0, 0


class _Clock:
    """What depends on the time: kept apart from the curves, which must not."""

    def __init__(self, run: Run, state: State, n_steps: int, progress: Progress) -> None:
        self._run, self._n_steps, self._progress = run, n_steps, progress
        self._process = secrets.token_hex(8)  # a process number may come again
        self._seconds = 0.0
        self._started = self._told = time.monotonic()
        self._n_tokens = self._n_positions = 0
        self.watch = Watch()
        if state.step:
            progress.note(f"resumed at step {state.step} of {n_steps}")
        self.report(state)

    def start(self) -> None:
        """A step begins."""
        self._started = time.monotonic()

    def tick(self, state: State, batch: Batch, loss: float, rate: float) -> None:
        """A step has ended; every second or so, tell how fast it goes."""
        now = time.monotonic()
        self._seconds += now - self._started
        n_tokens, n_positions = batch.count()
        self._n_tokens += n_tokens
        self._n_positions += n_positions
        self.watch.add(loss)
        if now - self._told < 1.0 and state.step < self._n_steps:
            return
        self._told = now
        facts = self.watch.facts(state, rate, self._n_tokens / self._seconds)
        self._progress.update(state.step, self._n_steps, facts=facts)
        self.report(state)

    def report(self, state: State) -> None:
        """Write down what the steps of this process have cost so far."""
        self._run.report_timing(
            process=self._process,
            step=state.step,
            time=round(time.time(), 3),
            seconds=round(self._seconds, 3),
            n_tokens=self._n_tokens,
            n_positions=self._n_positions,
            **memory(),
        )
