"""Training cost: batches by token budget and length, beside batches in file order padded to their longest text.

    python bench/padding.py [--rounds 3] [--workspace DIR]

The same encoder (that of recipes/reviews.yaml), the same texts, as many optimizer steps an epoch; A and B take turns,
an epoch each, so that a busy machine slows both. Only real tokens count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from danlu.cli.console import LinePrinter
from danlu.core.workspace import Workspace
from danlu.data.batches import collate, padding_share
from danlu.data.stage import class_names
from danlu.data.tokenizer import PAD, encode
from danlu.evaluate.stage import validation_scores
from danlu.pipeline import Job
from danlu.train.examples import load_examples
from danlu.train.loop import take_step
from danlu.train.optimizer import make_optimizer
from danlu.train.prepare import Material, TrainingSpec
from danlu.train.tasks import TRAINING

RECIPE = Path(__file__).parents[1] / "recipes" / "reviews.yaml"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--workspace", type=Path)
    given = arguments.parse_args()
    job = Job.load(RECIPE, ["seed=1"], Workspace(given.workspace), LinePrinter())
    dataset, recipe = job.dataset, job.recipe
    spec = TrainingSpec(
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=recipe.pretrain,
        train=recipe.train,
        seed=recipe.seed,
    )
    material = Material(dataset=dataset, spec=spec, folder=None, start=None, score=validation_scores)
    prepared = TRAINING[spec.task].prepare(material)
    train = load_examples(dataset, "train", class_names(dataset))
    tokens = encode(prepared.answerer.tokenizer, train.texts, recipe.model.max_len)
    n_steps = prepared.feed.n_steps // recipe.train.epochs
    ways = {
        "by length": [prepared.feed.rows(step) for step in range(n_steps)],
        "file order": np.array_split(np.arange(len(tokens)), n_steps),
    }
    optimizer = make_optimizer(prepared.module, prepared.config)

    def epoch(batches: list[np.ndarray]) -> float:
        started = time.perf_counter()
        for step, rows in enumerate(batches):
            batch = collate(tokens, rows, PAD, train.labels)
            take_step(prepared, optimizer, batch, 1e-4, step)
        return len(tokens.ids) / (time.perf_counter() - started)

    epoch(ways["by length"][:20])
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(given.rounds):
        for way, batches in ways.items():
            speeds[way].append(epoch(batches))
            print(f"round {number + 1}, {way}: {speeds[way][-1]:,.0f} tokens/s", file=sys.stderr)
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    print(f"{len(tokens):,} texts, {len(tokens.ids):,} tokens, {n_steps} steps an epoch, {given.rounds} rounds in turn")
    for way, batches in ways.items():
        share = padding_share(tokens.lengths, batches)
        print(f"{way:12s} {statistics.median(speeds[way]):10,.0f} tokens/s   padding {share:6.1%}")
    print(f"ratio        {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
