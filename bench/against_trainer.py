"""Training from scratch beside transformers: the same texts, tokenizer and number of parameters, the same seconds.

    python bench/against_trainer.py poetry [--seconds 900] [--rate 1e-3]
    python bench/against_trainer.py translate [--seconds 1200] [--rate 1e-3]

Both sides run at the same time, each in a process of its own on one thread, so that a busy machine slows both. Ours is
the recipe's model and training with as many steps as fit the seconds, by a few that were measured before. Theirs is
GPT-2, or MarianMT, of as many parameters, drawn as transformers draws it and trained by its Trainer: AdamW with a
cosine, warm-up and weight decay as ours, batches of texts of like length with as many tokens as ours have on average,
and the learning rate of --rate. Seconds are those of the steps; how a model is doing meanwhile is looked at with the
clock standing still, and what comes before the first step (tokens; our token vectors) is told apart.

poetry: bits per character on the validation split (its first 2,000 texts) over time, and on the whole test split at the
end; ours gets half of the seconds.
translate: chrF and BLEU of both and of the translation memory on the test split, four beams each, with paired tests.

What comes out is kept as JSON in --keep, so that a side can be run alone (--side) and the result shown again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.evaluate.comparison import compare_with_baseline
from danlu.evaluate.config import EvaluateConfig
from danlu.evaluate.significance import swap_test
from danlu.evaluate.stage import validation_scores
from danlu.evaluate.translation import TranslationWriter
from danlu.model.translation_memory import TranslationMemory, TranslationMemoryConfig
from danlu.pipeline import Job
from danlu.train.checkpoint import Run
from danlu.train.config import TrainConfig
from danlu.train.engine import Engine
from danlu.train.examples import load_pairs, load_texts
from danlu.train.language import N_VALID_TEXTS
from danlu.train.loop import fit
from danlu.train.prepare import Material, Prepared, TrainingSpec
from danlu.train.tasks import TRAINING
from stopwatch import Stopwatch

RECIPES = {"poetry": "recipes/poetry.yaml", "translate": "recipes/translate.yaml"}
SIDES = {"poetry": ("theirs", "half"), "translate": ("theirs", "ours")}
CALLED = {"theirs": "theirs", "ours": "ours", "half": "ours"}
N_LOOKS = {"poetry": 5, "translate": 1}
"""Looks in an epoch: poetry has one at most, and to translate the validation split takes a while."""
N_PROBES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--rate", type=float, default=1e-3, help="the Trainer's learning rate")
    parser.add_argument("--texts", type=int, help="texts in the Trainer's batches; as many as ours have on average")
    parser.add_argument("--side", help="run this side alone: ours, half, theirs")
    parser.add_argument("--keep", type=Path, default=Path("danlu-workspace/bench"))
    parser.add_argument("--show", action="store_true", help="show what was kept")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    if given.side:
        torch.set_num_threads(1)
        seconds = given.seconds / 2 if given.side == "half" else given.seconds
        train = theirs if given.side == "theirs" else ours
        found = train(given.task, seconds, given.keep, rate=given.rate, texts=given.texts)
        (given.keep / f"{given.task}-{given.side}.json").write_text(json.dumps(found, ensure_ascii=False))
        return
    if not given.show:
        side_by_side(sys.argv[1:], SIDES[given.task])
    found = {side: json.loads((given.keep / f"{given.task}-{side}.json").read_text()) for side in SIDES[given.task]}
    show_poetry(found) if given.task == "poetry" else show_translations(found, given.keep)


def side_by_side(arguments: Sequence[str], sides: Sequence[str]) -> None:
    """Theirs in one process; ours, one after another, in the other."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    commands = {side: [sys.executable, __file__, *arguments, "--side", side] for side in sides}
    other = subprocess.Popen(commands.pop("theirs"), env=environment)
    for command in commands.values():
        subprocess.run(command, env=environment, check=True)
    if other.wait():
        raise SystemExit("their side failed")


def job_of(task: str) -> Job:
    return Job.load(Path(RECIPES[task]), [], Workspace(None), Silent())


def spec_of(job: Job, **train: Any) -> TrainingSpec:
    recipe = job.recipe
    return TrainingSpec(
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=None,
        train=recipe.train.model_copy(update={"patience": 10**6, **train}),
        seed=recipe.seed,
    )


def prepared(job: Job, folder: Path, **train: Any) -> Prepared:
    spec = spec_of(job, **train)
    material = Material(dataset=job.dataset, spec=spec, folder=folder, start=None, score=validation_scores)
    return TRAINING[spec.task].prepare(material)


def ours(task: str, seconds: float, keep: Path, **_theirs: Any) -> dict[str, Any]:
    """The recipe's model, by our own loop."""
    job = job_of(task)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_steps = round(seconds / seconds_a_step(prepared(job, folder)))
        begun = time.perf_counter()
        looks = {"evaluations_per_epoch": N_LOOKS[task]}
        work = prepared(job, folder, max_steps=n_steps, epochs=n_steps, **looks)  # an epoch has a step at least
        curve: list[list[float]] = []

        def evaluate(model: Any) -> dict[str, float]:
            with watch.still():
                scores = work.evaluate(model)
            curve.append([watch.seconds, -scores["score"]])
            print(f"{task}, ours: {curve[-1]}", file=sys.stderr, flush=True)
            return scores

        before = time.perf_counter() - begun
        watch = Stopwatch()
        fit(replace(work, evaluate=evaluate), Run(folder, Silent()), Silent())
    told = {"parameters": work.module.n_parameters(), "steps": n_steps, "curve": curve, "before": before}
    if task == "poetry":
        return told | {"test": nats_of_test(job.dataset, work.answerer)}
    write_translations(job.dataset, work.answerer.translate, keep / "translate-ours.parquet")
    return told


def seconds_a_step(work: Prepared) -> float:
    """The mean over some steps that nobody keeps."""
    engine = Engine(work)
    steps = np.linspace(0, work.feed.n_steps - 1, N_PROBES + 3).astype(int).tolist()
    for number, step in enumerate(steps):
        if number == 3:
            started = time.perf_counter()
        engine.step(work.feed.batch(step), step, 0.0)
    return (time.perf_counter() - started) / N_PROBES


def nats_of_test(dataset: Artifact, model: Any) -> list[list[float]]:
    texts = load_texts(dataset, "test")
    return [model.nats(texts).tolist(), [len(text) for text in texts]]


def theirs(task: str, seconds: float, keep: Path, rate: float, texts: int | None) -> dict[str, Any]:
    """The model of transformers, by its Trainer."""
    import their_trainer

    job = job_of(task)
    with tempfile.TemporaryDirectory() as folder:
        work = prepared(job, Path(folder))
    feed = work.feed
    n_texts = texts or round(float(np.mean([len(feed.rows(step)) for step in range(feed.n_steps)])))
    config: TrainConfig = work.config
    shared = (config.warmup, config.weight_decay, N_LOOKS[task], job.recipe.seed or 0)
    plan = their_trainer.Plan(seconds, rate, n_texts, *shared)
    if task == "poetry":
        valid = load_texts(job.dataset, "valid")[:N_VALID_TEXTS]
        train = load_texts(job.dataset, "train")
        begun = time.perf_counter()
        gpt2 = their_trainer.Gpt2(work.answerer, train)
        before = time.perf_counter() - begun
        found = their_trainer.train(gpt2.model, gpt2.rows, gpt2.collate, plan, lambda: gpt2.bits(valid))
        return found | {"before": before, "test": nats_of_test(job.dataset, gpt2.as_ours())}
    begun = time.perf_counter()
    marian = their_trainer.Marian(work.answerer, *load_pairs(job.dataset, "train"))
    before = time.perf_counter() - begun
    found = their_trainer.train(marian.model, marian.rows, marian.collate, plan, lambda: math.nan)
    write_translations(job.dataset, marian.translate, keep / "translate-theirs.parquet")
    return found | {"before": before}


def write_translations(dataset: Artifact, translate: Callable[[list[str]], list[str]], path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(dataset.path / "test.parquet", columns=["id", "text", "target"])
    ids, sources, references = (table.column(name).to_pylist() for name in ("id", "text", "target"))
    with TranslationWriter(path) as writer:
        writer.write(ids, sources, references, translate(sources), np.zeros(len(ids), np.float32))


def show_poetry(found: dict[str, Any]) -> None:
    """Bits per character at the end, and when ours came to what theirs came to."""
    sums = {side: np.array(found[side]["test"]).T for side in found}  # nats, characters
    for side, facts in found.items():
        nats_B, chars_B = sums[side].T
        bits = nats_B.sum() / math.log(2) / chars_B.sum()
        seconds = facts["curve"][-1][0]
        print(f"{CALLED[side]:7s} {facts['parameters']:9,} parameters  {facts['steps']:5,} steps  ", end="")
        print(f"{seconds:5.0f} s after {facts['before']:3.0f} s of preparing  ", end="")
        print(f"test {bits:.4f} bits per character (n={len(nats_B):,} poems)")
    rng = np.random.default_rng(1)
    test = swap_test(sums["half"], sums["theirs"], lambda s: {"bits": s[:, 0] / s[:, 1] / math.log(2)}, 4000, rng)
    print(f"ours in half the seconds against theirs: p = {test['bits']:.2g} (permutation)")
    last = min(value for _, value in found["theirs"]["curve"])
    reached = next((seconds for seconds, value in found["half"]["curve"] if value <= last), math.nan)
    print(f"ours has passed their best validation value, {last:.4f}, by {reached:.0f} s")


def show_translations(found: dict[str, Any], keep: Path) -> None:
    for side, facts in found.items():
        seconds = facts["curve"][-1][0]
        print(f"{CALLED[side]:7s} {facts['parameters']:9,} parameters  {facts['steps']:6,} steps  ", end="")
        print(f"{seconds:5.0f} s after {facts['before']:3.0f} s of preparing")
    dataset = job_of("translate").dataset
    memory = TranslationMemory(TranslationMemoryConfig()).fit(*load_pairs(dataset, "train"))
    write_translations(dataset, memory.translate, keep / "translate-memory.parquet")
    paths = {side: keep / f"translate-{side}.parquet" for side in ("ours", "theirs", "memory")}
    for baseline in ("theirs", "memory"):
        some = {side: path for side, path in paths.items() if side in ("ours", baseline)}
        rng = np.random.default_rng(1)
        (model,) = compare_with_baseline(some, baseline, EvaluateConfig(), rng, "translation")["models"]
        for metric, test in model["metrics"].items():
            print(
                f"ours {test['a']:.2f} against {baseline} {test['b']:.2f} {metric}: {test['difference']:+.2f} "
                f"({test['low']:+.2f} to {test['high']:+.2f}), p = {test['p_permutation']:.2g}, n = {model['n']:,}"
            )


if __name__ == "__main__":
    main()
