"""What training will cost on this machine, measured on a few real steps before the first one counts."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from danlu.core.artifact import Artifact
from danlu.core.progress import Progress
from danlu.train.loop import take_step
from danlu.train.optimizer import learning_rate, make_optimizer
from danlu.train.stage import Prepared, TrainingSpec, prepare_run

__all__ = ["Plan", "peak_memory", "plan_training"]

_PROBES = 6
"""Batches that are measured: from the smallest to the largest."""


@dataclass(frozen=True)
class Plan:
    """The expected cost of a training run.

    Attributes:
        family: The model's family.
        n_parameters: Trainable parameters.
        n_steps: Optimizer steps.
        n_tokens: Tokens over the whole run, padding left out.
        padding_share: Share of all positions that hold padding.
        flops: Floating-point operations of all steps, forward and backward.
        memory_bytes: Peak resident memory of the process.
        seconds: Time of all steps and evaluations, if the machine stays as free as it is now.
    """

    family: str
    n_parameters: int
    n_steps: int
    n_tokens: int
    padding_share: float
    flops: float
    memory_bytes: int
    seconds: float


def plan_training(dataset: Artifact, spec: TrainingSpec, progress: Progress) -> Plan:
    """Prepare a run as training would, take a few of its steps, and extend what they cost to all.

    Args:
        dataset: What would be trained on.
        spec: What would be trained.
        progress: Told that it begins.

    Raises:
        DataError: There is nothing to train on.
    """
    progress.stage(f"plan: {spec.model.family} on {dataset.path.name}")
    prepared = prepare_run(dataset, spec, None)
    feed = prepared.feed
    sizes = np.array([feed.size(step) for step in range(feed.n_steps)])
    by_size = np.argsort(sizes)
    probes = by_size[np.linspace(0, feed.n_steps - 1, min(_PROBES, feed.n_steps)).round().astype(int)]
    take_probe_step(prepared, spec, int(probes[-1]))  # the first step sets things up, and the largest needs the most
    measured = [_measure(prepared, spec, int(step)) for step in probes]
    seconds = np.interp(sizes, sizes[probes], [each[0] for each in measured]).sum()
    flops = np.interp(sizes, sizes[probes], [each[1] for each in measured]).sum()
    evaluation = _evaluation_seconds(prepared) * len(feed.evaluate_after)
    return Plan(
        family=spec.model.family,
        n_parameters=prepared.classifier.n_parameters,
        n_steps=feed.n_steps,
        n_tokens=feed.n_tokens,
        padding_share=1 - feed.n_tokens / float(sizes.sum()),
        flops=float(flops),
        memory_bytes=peak_memory(),
        seconds=float(seconds + evaluation),
    )


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def take_probe_step(prepared: Prepared, spec: TrainingSpec, step: int) -> None:
    """One step of the run, on weights that nobody keeps."""
    module = prepared.classifier.module
    optimizer = make_optimizer(module, spec.train)
    rate = learning_rate(0, prepared.feed.n_steps, spec.train)
    take_step(module, optimizer, prepared.feed.batch(step), rate, spec.train.clip_norm, step)


def _measure(prepared: Prepared, spec: TrainingSpec, step: int) -> tuple[float, float]:
    """Seconds and operations of one step."""
    started = time.perf_counter()
    take_probe_step(prepared, spec, step)
    seconds = time.perf_counter() - started
    with FlopCounterMode(display=False) as counter:
        take_probe_step(prepared, spec, step)
    return seconds, float(counter.get_total_flops())


def _evaluation_seconds(prepared: Prepared) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        prepared.classifier.predict_proba(prepared.valid.texts)
    return time.perf_counter() - started
