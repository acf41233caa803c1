"""The training loop: step, save, then evaluate.

Everything that happens at a step follows from the seeds and the step's number, so that a run which was killed at any
instant goes on from its last checkpoint to the same bytes as one that was not.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from pydantic import Field
from torch import nn

from danlu.core.batch import Batch
from danlu.core.errors import DivergedError
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.model.base import Model
from danlu.train.adapt import AdaptConfig
from danlu.train.checkpoint import Run, State
from danlu.train.optimizer import OptimizerConfig, learning_rate, make_optimizer

__all__ = ["Feed", "Fitted", "TrainConfig", "Training", "fit", "plain_loss", "take_step"]

_N_REPORTS = 200
"""Points on a training curve: enough to see its shape."""


class TrainConfig(OptimizerConfig):
    """How a model is trained."""

    epochs: int = Field(8, ge=1)
    """Passes over the training records."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, the learning rate being at its end by then; null: after the epochs."""
    batch_tokens: int = Field(2048, ge=1)
    """The most tokens in a batch, padding included; a picture counts as one."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradients with a larger norm are scaled down to it (Pascanu et al., 2013)."""
    patience: int = Field(3, ge=1)
    """Stop after so many evaluations in a row without a better score."""
    evaluations_per_epoch: int = Field(1, ge=1)
    """How often in an epoch, or in what ``max_steps`` leaves of it, the model is evaluated on the validation split."""
    adapt: AdaptConfig = AdaptConfig()
    """Which weights are trained, where the model starts from a checkpoint."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Longest time between two checkpoints; one is also written before every evaluation."""


class Feed(Protocol):
    """The training data, step by step.

    Attributes:
        n_steps: Steps in the whole run.
        evaluate_after: Numbers of steps after which the model is evaluated; ``n_steps`` is among them.
    """

    n_steps: int
    evaluate_after: frozenset[int]

    def batch(self, step: int) -> Batch:
        """The batch of a step (0, 1, ...); the same each time it is asked for."""
        ...


def plain_loss(model: Model, batch: Batch) -> torch.Tensor:
    """The model's own loss of its answer to a batch."""
    return model.loss(model(batch), batch)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the loop works on.

    Attributes:
        module: The module with its initial weights.
        feed: The training data.
        seeds: The run's seeds; the loop uses the ``dropout`` stream.
        config: How to train.
        evaluate: Scores the module on the validation split; ``"score"`` decides which weights are best (higher).
        loss: The scalar loss of the module on a batch.
    """

    module: Model
    feed: Feed
    seeds: Seeds
    config: TrainConfig
    evaluate: Callable[[Model], dict[str, float]]
    loss: Callable[[Model, Batch], torch.Tensor] = plain_loss


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


def fit(work: Training, run: Run, progress: Progress) -> Fitted:
    """Train a module from the run's last checkpoint, or from the start; it ends with the best weights found.

    Args:
        work: The module, its data, and how to train it.
        run: Where checkpoints and curves go.
        progress: Told of every step.

    Raises:
        DivergedError: The loss or a gradient is not finite; the step is not taken.
        DanluError: A checkpoint cannot be written.
    """
    model, feed, config = work.module, work.feed, work.config
    optimizer = make_optimizer(model, config)
    state = run.restore(model, optimizer)
    clock = _Clock(run, state.step, feed.n_steps, progress)
    saved_at = -math.inf
    while True:
        if state.step in feed.evaluate_after and state.evaluated < state.step:
            run.save(model, optimizer, state)
            saved_at = time.monotonic()
            scores = _evaluate(model, work.evaluate, run, state)
            progress.note(f"step {state.step}: " + " · ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if state.step == feed.n_steps or state.n_worse >= config.patience:
            break
        if time.monotonic() - saved_at >= config.checkpoint_seconds:
            run.save(model, optimizer, state)
            saved_at = time.monotonic()
        clock.start()
        batch = feed.batch(state.step)
        rate = learning_rate(state.step, feed.n_steps, config)
        torch.manual_seed(work.seeds.at("dropout", state.step))
        loss, norm = take_step(work, optimizer, batch, rate, state.step)
        _count(state, loss, norm, rate, feed.n_steps, run)
        clock.tick(state, batch, loss)
    clock.report(state)
    assert state.best_step is not None, "the last step is always evaluated"
    assert state.best_score is not None
    run.load_weights(state.best_step, model)
    return Fitted(state.step, feed.n_steps, state.best_step, state.best_score)


def take_step(
    work: Training, optimizer: torch.optim.Optimizer, batch: Batch, rate: float, step: int
) -> tuple[float, float]:
    """One optimizer step.

    Returns:
        The loss, and the norm of the gradients before clipping.

    Raises:
        DivergedError: One of the two is not finite; the step is not taken.
    """
    work.module.train()
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
    optimizer.zero_grad(set_to_none=True)
    loss = work.loss(work.module, batch)
    value = loss.item()
    moment = f"at step {step} (learning rate {rate:g}); the step was not taken, the last checkpoint is intact"
    _require_finite("loss", value, moment)
    torch.autograd.backward(loss)
    norm = nn.utils.clip_grad_norm_(work.module.parameters(), work.config.clip_norm)
    _require_finite("norm of the gradients", norm.item(), moment)
    optimizer.step()
    return value, norm.item()


def _require_finite(what: str, value: float, moment: str) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} is {value} {moment}",
            where="training",
            advice="lower train.learning_rate or train.clip_norm, or look for broken records (danlu data)",
        )


def _evaluate(model: Model, evaluate: Callable[[Model], dict[str, float]], run: Run, state: State) -> dict[str, float]:
    model.eval()
    with torch.inference_mode():
        scores = evaluate(model)
    for name, value in scores.items():
        _require_finite(f"validation {name}", value, f"after step {state.step}")
    state.evaluated = state.step
    if state.best_score is None or scores["score"] > state.best_score:
        state.best_step, state.best_score, state.n_worse = state.step, scores["score"], 0
    else:
        state.n_worse += 1
    run.report(step=state.step, valid=scores)
    return scores


def _count(state: State, loss: float, norm: float, rate: float, n_steps: int, run: Run) -> None:
    """Count the step, and now and then put the mean loss on the curve."""
    state.step += 1
    state.loss_sum += loss
    state.loss_count += 1
    if state.step % max(1, n_steps // _N_REPORTS) == 0 or state.step == n_steps:
        run.report(step=state.step, loss=state.loss_sum / state.loss_count, gradient_norm=norm, learning_rate=rate)
        state.loss_sum, state.loss_count = 0.0, 0


class _Clock:
    """What depends on the time: kept apart from the curves, which must not."""

    def __init__(self, run: Run, step: int, n_steps: int, progress: Progress) -> None:
        self._run, self._n_steps, self._progress = run, n_steps, progress
        self._process = secrets.token_hex(8)  # a process number may come again
        self._seconds = 0.0
        self._started = self._told = time.monotonic()
        self._n_tokens = self._n_positions = 0
        if step:
            progress.note(f"resumed at step {step} of {n_steps}")

    def start(self) -> None:
        """A step begins."""
        self._started = time.monotonic()

    def tick(self, state: State, batch: Batch, loss: float) -> None:
        """A step has ended; every second or so, tell how fast it goes."""
        now = time.monotonic()
        self._seconds += now - self._started
        n_tokens, n_positions = batch.count()
        self._n_tokens += n_tokens
        self._n_positions += n_positions
        if now - self._told < 1.0 and state.step < self._n_steps:
            return
        self._told = now
        rate = self._n_tokens / self._seconds
        self._progress.update(state.step, self._n_steps, f"loss {loss:.4f} · {rate:,.0f} tokens/s")
        self.report(state)

    def report(self, state: State) -> None:
        """Write down what the steps of this process have cost so far."""
        self._run.report_timing(
            process=self._process,
            step=state.step,
            seconds=round(self._seconds, 3),
            n_tokens=self._n_tokens,
            n_positions=self._n_positions,
        )
