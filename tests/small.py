"""A small world for tests: made-up texts of two kinds, the dataset that the data stage makes of them, tiny recipes."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.cli import main
from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.batches import collate
from danlu.data.stage import DataConfig, build_dataset
from danlu.data.tokenizer import PAD, TokenizerConfig, encode, train_tokenizer
from danlu.evaluate.stage import validation_scores
from danlu.model.base import Model
from danlu.model.bert import BertConfig
from danlu.model.classifier import NeuralClassifier, build_module
from danlu.model.init import initialise
from danlu.recipe import Recipe, load
from danlu.train.feed import PlannedFeed
from danlu.train.loop import TrainConfig, Training
from danlu.train.prepare import TrainingSpec

__all__ = [
    "SCORE",
    "SIZES",
    "Listener",
    "danlu_in_child",
    "made_up",
    "make_dataset",
    "make_training",
    "recipe_of",
    "recipe_text",
    "spec_of",
    "write_csv",
]

SCORE = validation_scores

SIZES: dict[str, dict[str, Any]] = {
    "bert": {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_len": 32},
    "gru": {"d_model": 16, "n_layers": 1, "d_hidden": 8, "max_len": 32},
}
"""The tiny size of every family."""

_WORDS = {"good": "好棒赞喜爱美快优", "bad": "差烂坏假脏慢贵退"}
_BOTH = "的了我这个买很就是在到有和也不人都一上说"


class Listener(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def made_up(n: int = 240, seed: int = 1, n_chars: tuple[int, int] = (8, 28)) -> list[tuple[str, str]]:
    """Texts and labels; a few characters of a text tell its label, the others are drawn from what both share."""
    draw = random.Random(seed)
    rows = []
    for number in range(n):
        label = "good" if number % 2 else "bad"
        letters = draw.choices(_WORDS[label], k=3) + draw.choices(_BOTH, k=draw.randint(*n_chars))
        draw.shuffle(letters)
        rows.append(("".join(letters), label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """Texts and labels as a csv file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def recipe_text(family: str = "bert", **sections: Any) -> str:
    """A tiny recipe of ``texts.csv``; JSON, which is YAML too. A section given is laid over the tiny one."""
    values: dict[str, Any] = {
        "danlu": 1,
        "name": "tiny",
        "task": "text-classification",
        "seed": 1,
        "data": {"source": "texts.csv", "split": {"valid": 0.2, "test": 0.2}},
        "tokenizer": {"kind": "char", "vocab_size": 300},
        "model": {"family": family, **SIZES[family]},
        "pretrain": {"epochs": 0},
        "train": {"epochs": 2, "batch_tokens": 512},
        "evaluate": {"bootstrap": 100},
    }
    for name, given in sections.items():
        under = values.get(name)
        values[name] = under | given if isinstance(under, dict) else given
    return json.dumps(values, ensure_ascii=False, indent=1)


def recipe_of(folder: Path, family: str = "bert", **sections: Any) -> Recipe:
    """The recipe of :func:`recipe_text`, read."""
    path = folder / f"{family}.yaml"
    path.write_text(recipe_text(family, **sections), encoding="utf-8")
    return load(path).recipe


def spec_of(folder: Path, family: str = "bert", **sections: Any) -> TrainingSpec:
    """What to train, from such a recipe."""
    recipe = recipe_of(folder, family, **sections)
    return TrainingSpec(
        model=recipe.model, tokenizer=recipe.tokenizer, pretrain=recipe.pretrain, train=recipe.train, seed=recipe.seed
    )


def make_dataset(folder: Path, rows: list[tuple[str, str]] | None = None) -> tuple[Workspace, Artifact]:
    """A workspace in a folder and in it the dataset of made-up texts, through the real data stage."""
    write_csv(folder / "texts.csv", made_up() if rows is None else rows)
    workspace = Workspace(folder / "workspace")
    config = DataConfig(source="texts.csv", split={"valid": 0.2, "test": 0.2})
    return workspace, build_dataset(workspace, "tiny", config, folder, Silent())


def make_training(evaluate: Callable[[Model], dict[str, float]] | None = None, **train: Any) -> Training:
    """A tiny BERT with its initial weights, 40 made-up texts and how to train it: two epochs of five steps or so."""
    rows = made_up(40)
    tokenizer = train_tokenizer([text for text, _ in rows], TokenizerConfig(kind="char", vocab_size=300))
    config = TrainConfig(**{"epochs": 2, "batch_tokens": 256, "learning_rate": 3e-3} | train)
    seeds = Seeds.new("1")
    module = build_module(BertConfig(family="bert", **SIZES["bert"]), tokenizer, 2)
    initialise(module, seeds)
    tokens = encode(tokenizer, [text for text, _ in rows], 32)
    labels = np.array([label == "good" for _, label in rows], np.int64)

    def score(model: Model) -> dict[str, float]:
        classifier = NeuralClassifier(model, tokenizer, 2)
        return validation_scores(labels, classifier.probabilities(tokens))

    feed = PlannedFeed(tokens.lengths, lambda batch, _: collate(tokens, batch, PAD, labels), config, seeds)
    return Training(
        module=module,
        feed=feed,
        seeds=seeds,
        config=config,
        loss=lambda module, batch: module.loss(module(batch), batch),
        evaluate=evaluate or score,
    )


def danlu_in_child(words: list[str], log: Path) -> None:
    """Run a command in a process that was made for it; what it prints goes to the end of a file."""
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        torch.set_num_threads(1)
        main(words)
