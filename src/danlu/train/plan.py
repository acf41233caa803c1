"""What training will cost on this machine, measured on a few real steps before the first one counts."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from danlu.core.artifact import Artifact
from danlu.core.progress import Progress
from danlu.core.workspace import Workspace
from danlu.data.token_store import TokenStore
from danlu.train import pretrain
from danlu.train.engine import Engine
from danlu.train.feed import PlannedFeed
from danlu.train.optimizer import learning_rate
from danlu.train.prepare import Material, Prepared, Score, Sources, TrainingSpec
from danlu.train.tasks import TRAINING
from danlu.train.watch import forget_peak, peak_memory

__all__ = ["Plan", "plan_training"]

_PROBES = 6
"""Batches that are measured: from the smallest to the largest."""


@dataclass(frozen=True)
class Plan:
    """The expected cost of a training run, pre-training included.

    Attributes:
        family: The model's family.
        n_parameters: Parameters of the finished model.
        n_steps: Optimizer steps.
        n_tokens: Tokens over the whole run, padding left out.
        padding_share: Share of all positions that hold padding.
        flops: Floating-point operations of all steps, forward and backward.
        memory_bytes: Peak resident memory of the process.
        seconds: Time of all steps, if the machine stays as free as it is now,
        evaluation_seconds: and of all evaluations on the validation split.
    """

    family: str
    n_parameters: int
    n_steps: int
    n_tokens: int
    padding_share: float
    flops: float
    memory_bytes: int
    seconds: float
    evaluation_seconds: float


def plan_training(
    workspace: Workspace, dataset: Artifact, spec: TrainingSpec, sources: Sources, score: Score, progress: Progress
) -> Plan:
    """Prepare a run as training would, take a few of its steps, and extend what they cost to all.

    Args:
        workspace: Where what texts were cut into is kept.
        dataset: What would be trained on.
        spec: What would be trained.
        sources: What else it would be made from.
        score: Judges a classifier on the validation split.
        progress: Told that it begins.

    Raises:
        DataError: There is nothing to train on.
    """
    progress.stage(f"plan: {spec.model.family} on {dataset.path.name}")
    start = None if sources.start is None else sources.start.path
    material = Material(
        dataset=dataset, spec=spec, folder=None, start=start, score=score, store=TokenStore(workspace.tokens)
    )
    last = TRAINING[spec.task].prepare(material)
    phases = [last]
    if spec.pretrains:
        texts = replace(material, dataset=sources.texts or dataset)
        phases = [pretrain.prepare(texts, held_out=dataset), last]
    forget_peak()  # what cutting the texts took is not asked for again
    costs = [_cost(phase) for phase in phases]
    n_tokens = sum(phase.feed.n_tokens for phase in phases)
    n_positions = sum(phase.feed.size(step) for phase in phases for step in range(phase.feed.n_steps))
    return Plan(
        family=spec.model.family,
        n_parameters=last.module.n_parameters(),
        n_steps=sum(phase.feed.n_steps for phase in phases),
        n_tokens=n_tokens,
        padding_share=1 - n_tokens / n_positions,
        flops=sum(cost.flops for cost in costs),
        memory_bytes=peak_memory(),
        seconds=sum(cost.seconds for cost in costs),
        evaluation_seconds=sum(cost.evaluation_seconds for cost in costs),
    )


@dataclass(frozen=True)
class _Cost:
    """Of one phase of training."""

    seconds: float
    flops: float
    evaluation_seconds: float


def _cost(prepared: Prepared) -> _Cost:
    """Of all steps, from a few measured ones of every size; of all evaluations, from one."""
    feed = prepared.feed
    sizes = np.array([feed.size(step) for step in range(feed.n_steps)])
    probes = np.argsort(sizes)[np.linspace(0, feed.n_steps - 1, min(_PROBES, feed.n_steps)).round().astype(int)]
    engine = Engine(prepared)
    _step(engine, feed, int(probes[-1]))  # the first step sets things up, and the largest needs the most memory
    seconds, flops = [], []
    for step in probes.tolist():
        started = time.perf_counter()
        _step(engine, feed, step)
        seconds.append(time.perf_counter() - started)
        with FlopCounterMode(display=False) as counter:
            _step(engine, feed, step)
        flops.append(counter.get_total_flops())
    total_seconds, total_flops = (float(np.interp(sizes, sizes[probes], each).sum()) for each in (seconds, flops))
    started = time.perf_counter()
    with engine.judged() as model:
        prepared.evaluate(model)
    evaluation = time.perf_counter() - started
    return _Cost(total_seconds, total_flops, evaluation * len(feed.evaluate_after))


def _step(engine: Engine, feed: PlannedFeed, step: int) -> None:
    """One step of the run, on weights that nobody keeps."""
    engine.step(feed.batch(step), step, learning_rate(0, feed.n_steps, engine.config))
