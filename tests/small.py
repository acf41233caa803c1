"""A small world for tests: made-up texts, the dataset that the data stage makes of them, tiny models and recipes."""

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
from tokenizers import Tokenizer

from danlu.cli import main
from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.batches import collate
from danlu.data.stage import DataConfig, build_dataset
from danlu.data.tokenizer import PAD, TokenizerConfig, encode, special_tokens, train_tokenizer
from danlu.evaluate.stage import validation_scores
from danlu.model.base import Model, Signature, Task
from danlu.model.classifier import NeuralClassifier
from danlu.model.families import FAMILIES
from danlu.model.init import initialise
from danlu.model.module import build_module
from danlu.recipe import Recipe, load
from danlu.train.config import TrainConfig
from danlu.train.engine import Training
from danlu.train.feed import PlannedFeed
from danlu.train.prepare import Material, TrainingSpec

__all__ = [
    "DATA",
    "FAMILY",
    "SCORE",
    "SIZES",
    "Listener",
    "danlu_in_child",
    "made_up",
    "make_dataset",
    "make_module",
    "make_training",
    "material_of",
    "recipe_of",
    "recipe_text",
    "signature_of",
    "spec_of",
    "translated",
    "write_csv",
    "write_pictures",
    "write_source",
]

SCORE = validation_scores

SIZES: dict[str, dict[str, Any]] = {
    "bert": {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_len": 32},
    "cnn": {"channels": [4, 6], "n_blocks": 1},
    "gpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "max_len": 32},
    "gru": {"d_model": 16, "n_layers": 1, "d_hidden": 8, "max_len": 32},
    "mlp": {"d_model": 16, "n_layers": 2},
    "transformer": {"d_model": 16, "n_layers": 1, "n_decoder_layers": 2, "n_heads": 2, "d_ff": 32, "max_len": 32},
    "vit": {"patch_size": 7, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32},
}
"""The tiny size of every family."""

FAMILY: dict[Task, str] = {
    "text-classification": "bert",
    "image-classification": "cnn",
    "language-modelling": "gpt",
    "translation": "transformer",
}
"""A family that does each task."""

DATA: dict[Task, dict[str, Any]] = {
    "text-classification": {"source": "texts.csv"},
    "image-classification": {"source": "pictures-*", "columns": {"image": "image", "label": "label"}},
    "language-modelling": {"source": "texts.csv", "columns": {"text": "text"}},
    "translation": {"source": "texts.csv", "columns": {"text": "text", "target": "label"}},
}
"""What each task is trained on: the files of :func:`write_source`."""

_WORDS = {"good": "好棒赞喜爱美快优", "bad": "差烂坏假脏慢贵退"}
_BOTH = "的了我这个买很就是在到有和也不人都一上说"


_SEEDS = Seeds.new("1")
"""Drawn once, with what blinds them, so that a run that is prepared again is the same run."""


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


def write_pictures(folder: Path, n: int = 240) -> None:
    """IDX files of noisy pictures, 14 by 14, that are bright on the left (0) or on the right (1)."""
    draw = np.random.default_rng(1)
    labels = np.arange(n, dtype=np.uint8) % 2
    images = draw.integers(0, 100, (n, 14, 14), dtype=np.uint8)
    images[labels == 0, :, :7] += 120
    images[labels == 1, :, 7:] += 120
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        sizes = np.array(array.shape, ">u4").tobytes()
        (folder / f"pictures-{kind}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def write_source(folder: Path, task: Task, rows: list[tuple[str, str]] | None = None) -> None:
    """The files that a task is trained on; a translation writes every character as a letter."""
    if task == "image-classification":
        write_pictures(folder)
    elif task == "translation":
        write_csv(folder / "texts.csv", [(text, translated(text)) for text, _ in rows or made_up()])
    else:
        write_csv(folder / "texts.csv", made_up() if rows is None else rows)


def translated(text: str) -> str:
    """Every character as a letter of its own."""
    return text.translate({ord(c): chr(ord("A") + n) for n, c in enumerate(_BOTH + "".join(_WORDS.values()))})


def recipe_text(family: str = "bert", task: Task = "text-classification", **sections: Any) -> str:
    """A tiny recipe of a written source; JSON, which is YAML too. A section given is laid over the tiny one."""
    values: dict[str, Any] = {
        "danlu": 1,
        "name": "tiny",
        "task": task,
        "seed": 1,
        "data": {**DATA[task], "split": {"valid": 0.2, "test": 0.2}},
        "tokenizer": {"kind": "char", "vocab_size": 340},
        "model": {"family": family, **SIZES[family]},
        **({"pretrain": {"epochs": 0}} if task == "text-classification" else {}),
        "train": {"epochs": 2, "batch_tokens": 32 if task == "image-classification" else 512},
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
        task=recipe.task,
        model=recipe.model,
        tokenizer=recipe.tokenizer,
        pretrain=recipe.pretrain,
        train=recipe.train,
        seed=recipe.seed,
    )


def material_of(dataset: Artifact, spec: TrainingSpec, folder: Path | None = None) -> Material:
    """What a run from scratch is prepared from."""
    return Material(dataset=dataset, spec=spec, folder=folder, start=None, score=SCORE)


def make_dataset(
    folder: Path, rows: list[tuple[str, str]] | None = None, task: Task = "text-classification"
) -> tuple[Workspace, Artifact]:
    """A workspace in a folder and in it a dataset of made-up records, through the real data stage."""
    write_source(folder, task, rows)
    workspace = Workspace(folder / "workspace")
    config = DataConfig(**DATA[task], split={"valid": 0.2, "test": 0.2})
    return workspace, build_dataset(workspace, "tiny", config, folder, Silent())


def signature_of(task: Task, tokenizer: Tokenizer, n_classes: int = 0) -> Signature:
    """What a model that reads the tokens of a tokenizer takes and answers."""
    special = special_tokens(tokenizer)
    tokens = {"mask_token": special.mask, "begin_token": special.begin, "end_token": special.end}
    return Signature(task=task, vocab_size=tokenizer.get_vocab_size(), n_classes=n_classes, **tokens)


def make_module(family: str, signature: Signature, seed: str = "1", **changes: Any) -> Model:
    """A family's module at its tiny size, some values changed, with the weights that a seed gives."""
    module = build_module(FAMILIES[family].Config(family=family, **(SIZES[family] | changes)), signature)
    initialise(module, Seeds.new(seed))
    return module


def make_training(evaluate: Callable[[Model], dict[str, float]] | None = None, **train: Any) -> Training:
    """A tiny BERT with its initial weights, 40 made-up texts and how to train it: two epochs of five steps or so."""
    rows = made_up(40)
    tokenizer = train_tokenizer([text for text, _ in rows], TokenizerConfig(kind="char", vocab_size=300))
    config = TrainConfig(**{"epochs": 2, "batch_tokens": 256, "learning_rate": 3e-3} | train)
    module = make_module("bert", signature_of("text-classification", tokenizer, 2))
    tokens = encode(tokenizer, [text for text, _ in rows], 32)
    labels = np.array([label == "good" for _, label in rows], np.int64)

    def score(model: Model) -> dict[str, float]:
        classifier = NeuralClassifier(model, tokenizer)
        return validation_scores(labels, classifier.probabilities(tokens))

    feed = PlannedFeed(tokens.lengths, lambda batch, _: collate(tokens, batch, PAD, labels), config, _SEEDS)
    return Training(
        module=module,
        feed=feed,
        seeds=_SEEDS,
        config=config,
        evaluate=evaluate or score,
    )


def danlu_in_child(words: list[str], log: Path) -> None:
    """Run a command in a process that was made for it; what it prints goes to the end of a file."""
    with log.open("a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        torch.set_num_threads(1)
        main(words)
