"""Training speed of an encoder that names the classes of short texts: danlu's recipe beside transformers' Trainer.

Both train on the training split of ``zh-reviews``, an epoch a turn, with the recipe's tokenizer, sizes and dropout.
Ours are the batches of the recipe: texts of like length up to a budget of tokens. The Trainer's are its own: texts in
random order, padded to the longest by DataCollatorWithPadding, as many in a batch as ours have on average.

The recipe makes two passes of every text, which should agree (R-Drop); the way beside the Trainer makes one, as the
Trainer does, and the recipe as it is comes third. Only what hides tokens (``token_dropout``) has no counterpart there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.stage import class_names
from danlu.data.tokenizer import PAD, SPECIAL, encode
from danlu.evaluate.stage import validation_scores
from danlu.pipeline import Job
from danlu.train.engine import Engine
from danlu.train.examples import load_examples
from danlu.train.optimizer import learning_rate
from danlu.train.prepare import Material, Prepared, TrainingSpec
from danlu.train.tasks import TRAINING
from turns import Turn, Way, describe, keep, machine, rounds, spread

__all__ = ["add_arguments", "measure", "show"]

RECIPE = Path(__file__).parents[1] / "recipes" / "reviews.yaml"
WAYS = ("danlu", "transformers", "danlu, two passes")
RATE = 1e-3
"""The Trainer's learning rate, at its highest."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="only the texts of our first steps, not the whole epoch")


def measure(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Let the ways take turns; what came out is kept after every round."""
    job_of()[0].dataset  # noqa: B018  (made here, so that no two processes make it at once)
    found: dict[str, Any] = {"machine": machine(given.threads, ["torch", "transformers"]), "rounds": []}
    make = {"danlu": by_danlu, "transformers": by_trainer, "danlu, two passes": by_danlu_twice}
    ways = {name: Way(make[name], given.steps, n_threads=given.threads) for name in WAYS}
    found["ways"] = {name: way.facts for name, way in ways.items()}
    for number, said in enumerate(rounds(ways, given.rounds)):
        found["rounds"].append(said)
        keep(path, found)
        print(f"round {number} of {given.rounds}, load {said['machine']['load']:.1f}", flush=True)
    for way in ways.values():
        way.end()
    return found


def job_of(*words: str) -> tuple[Job, Prepared]:
    """The recipe and its run, ready to take the first step; the same in every process."""
    job = Job.load(RECIPE, ["seed=1", *words], Workspace(None), Silent())
    recipe = job.recipe
    spec = TrainingSpec(
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=None,
        train=recipe.train,
        seed=recipe.seed,
    )
    material = Material(dataset=job.dataset, spec=spec, folder=None, start=None, score=validation_scores)
    return job, TRAINING[spec.task].prepare(material)


def batches_of(work: Prepared, n_steps: int | None) -> list[np.ndarray]:
    """The texts of each of our batches of an epoch, or of its first ones."""
    n_of_epoch = work.feed.n_steps // work.config.epochs
    return [work.feed.rows(step) for step in range(min(n_steps or n_of_epoch, n_of_epoch))]


def by_danlu(n_steps: int | None) -> tuple[dict[str, Any], Turn]:
    """The recipe, one pass of a text."""
    return take_epochs(job_of("train.consistency=0")[1], n_steps)


def by_danlu_twice(n_steps: int | None) -> tuple[dict[str, Any], Turn]:
    """The recipe as it is."""
    return take_epochs(job_of()[1], n_steps)


def take_epochs(work: Prepared, n_steps: int | None) -> tuple[dict[str, Any], Turn]:
    batches = batches_of(work, n_steps)
    engine = Engine(work)
    n_texts = sum(map(len, batches))
    places = sum(work.feed.size(step) for step in range(len(batches)))

    def turn(number: int) -> dict[str, Any]:
        losses = []
        begin = time.perf_counter()
        for step in range(len(batches)):
            rate = learning_rate(step, len(batches), work.config)
            losses.append(engine.step(work.feed.batch(step), number * len(batches) + step, rate)[0])
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "n_texts": n_texts, "loss": float(np.mean(losses)), "places": places}

    return {"parameters": work.module.n_parameters(), "batch": n_texts / len(batches)}, turn


def by_trainer(n_steps: int | None) -> tuple[dict[str, Any], Turn]:
    """The same texts by transformers' Trainer, with its own batches."""
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")
    import transformers

    job, work = job_of()
    batches = batches_of(work, n_steps)
    size = round(float(np.mean([len(rows) for rows in batches])))
    examples = load_examples(job.dataset, "train", class_names(job.dataset))
    config: Any = work.module.config
    tokens = encode(work.answerer.tokenizer, examples.texts, config.max_len)
    rows = [
        {"input_ids": tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist(), "label": int(label)}
        for row in np.concatenate(batches).tolist()
        for label in [examples.labels[row]]
    ]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=work.answerer.tokenizer, pad_token=SPECIAL[PAD])
    transformers.set_seed(1)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=work.module.signature.vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            intermediate_size=config.d_ff,
            max_position_embeddings=config.max_len,
            hidden_dropout_prob=config.block_dropout,
            attention_probs_dropout_prob=config.block_dropout,
            classifier_dropout=config.dropout,
            pad_token_id=PAD,
            num_labels=work.module.signature.n_classes,
            attn_implementation="sdpa",
        )
    )
    model.bert.embeddings.dropout.p = config.dropout

    def turn(number: int) -> dict[str, Any]:
        return train_epoch(model, tokenizer, rows, size, number)

    return {"parameters": model.num_parameters(), "batch": size}, turn


def train_epoch(model: Any, tokenizer: Any, rows: list[dict[str, Any]], size: int, number: int) -> dict[str, Any]:
    """An epoch of the Trainer, timed from its first step's beginning to its last step's end."""
    import transformers

    class Watch(transformers.TrainerCallback):
        begin = end = 0.0

        def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step == 0:
                self.begin = time.perf_counter()

        def on_step_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            self.end = time.perf_counter()

    class Collator(transformers.DataCollatorWithPadding):
        places = 0

        def __call__(self, features: list[dict[str, Any]]) -> Any:
            batch = super().__call__(features)
            self.places += batch["input_ids"].numel()
            return batch

    watch, collator = Watch(), Collator(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=size,
            learning_rate=RATE,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=number,
        )
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[watch]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        loss = trainer.train().training_loss
    return {"seconds": watch.end - watch.begin, "n_texts": len(rows), "loss": loss, "places": collator.places}


def show(found: dict[str, Any], _given: argparse.Namespace) -> None:
    """Texts a second of every way, beside ours with one pass of a text."""
    kept = found["rounds"][1:]
    print(f"{len(kept)} rounds in turn, {kept[0]['danlu']['n_texts']:,} texts each; {describe(found['machine'])}")
    for name, facts in found["ways"].items():
        seconds = [said[name]["seconds"] for said in kept]
        ratios = [each / said["danlu"]["seconds"] for each, said in zip(seconds, kept, strict=True)]
        speeds = [said[name]["n_texts"] / each for each, said in zip(seconds, kept, strict=True)]
        places = statistics.fmean(said[name]["places"] / said[name]["n_texts"] for said in kept)
        losses = [said[name]["loss"] for said in found["rounds"]]
        print(
            f"{name:18s} {facts['parameters']:9,} parameters  {facts['batch']:5.1f} texts a batch, {places:5.1f} places"
            f" a text  {spread(speeds):,.0f} texts/s  {spread(ratios):.2f} times danlu's time"
            f"  loss {losses[0]:.3f} to {losses[-1]:.3f}"
        )
