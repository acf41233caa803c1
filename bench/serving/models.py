"""The two models that rivals.py has served: small, of makes that transformers has too, and trained for a moment.

They are made once in a folder: a workspace with ``reviews`` and ``poems``, both also as folders in Hugging Face layout.
What is asked are texts that they were not trained on. How fast a model answers does not depend on how good it is; it is
trained so that its answers differ from text to text, and comparing those of two servers says something.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace
from danlu.data.samples import find_sample, sample_folder

__all__ = ["Made", "make"]

_TEXTS, _POEMS = 6000, 6000
"""Reviews and poems that are read."""
_CHARS = 100
"""A review that is asked is no longer: both sides then see the whole of it."""
_PROMPT, _NEW = 8, 64
"""Characters of a poem that is to be continued, and tokens that are asked."""
_BERT = {
    "family": "bert", "size": "tiny", "positions": "learned", "norm_first": False, "pooling": "first",
    "n_segments": 2, "norm_eps": 1e-12, "embedding_from": "random", "token_dropout": 0.0,
}  # fmt: skip
_CHARACTERS = {"kind": "char", "vocab_size": 5000}
"""Of the model that writes: what it has written can be counted in characters, whoever served it."""
_GPT = {"family": "gpt", "size": "tiny", "embedding_from": "random"}


@dataclass(frozen=True)
class Made:
    """What is in the folder.

    Attributes:
        workspace: Where danlu serves from.
        reviews: The classifier for transformers.
        poems: The model that writes, for transformers.
        texts: Reviews that it was not trained on.
        prompts: Beginnings of poems that it was not trained on.
        sizes: Parameters of the two.
    """

    workspace: Path
    reviews: Path
    poems: Path
    texts: list[str]
    prompts: list[str]
    sizes: dict[str, int]


def make(folder: Path, samples: Path, steps: int) -> Made:
    """Make what is not there yet.

    Args:
        folder: Where.
        samples: The folder of fetched samples.
        steps: Steps of training.
    """
    workspace = Workspace(folder / "workspace")
    data = {"split": {"valid": 0.1, "test": 0.2}, "clean": {"dedup": "exact"}}
    texts = {"columns": {"text": "text", "label": "label"}, **data}
    poems = {"columns": {"text": "text"}, **data}
    train = {"train": {"max_steps": steps}}
    short = {"pretrain": {"max_steps": 1}}
    reviews_recipe = {"task": "text-classification", "data": texts, "model": _BERT, **short, **train}
    poems_recipe = {"task": "language-modelling", "data": poems, "model": _GPT, "tokenizer": _CHARACTERS, **train}
    _trained(folder, "reviews", reviews_recipe, _reviews(samples))
    _trained(folder, "poems", poems_recipe, _poems(samples))
    held = {name: _held_out(workspace, name) for name in ("reviews", "poems")}
    return Made(
        workspace.root,
        folder / "reviews",
        folder / "poems",
        [text for text in held["reviews"] if len(text) <= _CHARS],
        [text[:_PROMPT] for text in held["poems"] if len(text) > _PROMPT],
        {name: _size(workspace, name) for name in held},
    )


def _trained(folder: Path, name: str, recipe: dict[str, Any], records: Iterator[Any]) -> None:
    if (folder / name).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    whole = {"danlu": 1, "name": name, "seed": 1, **recipe}
    whole["data"] = {"source": f"{name}.jsonl", **recipe["data"]}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    danlu = [sys.executable, "-m", "danlu"]
    where = ["-w", str(folder / "workspace")]
    subprocess.run([*danlu, "train", str(folder / f"{name}.yaml"), *where], check=True)
    subprocess.run([*danlu, "export", f"{name}@latest", str(folder / name), *where], check=True)


def _reviews(samples: Path) -> Iterator[dict[str, str]]:
    sample = find_sample("zh-reviews")
    assert sample.read is not None
    every = list(sample.read(sample_folder("zh-reviews", samples)))
    for _, record in every[:: max(1, len(every) // _TEXTS)]:
        yield dict(zip(sample.columns, record, strict=True))


def _poems(samples: Path) -> Iterator[dict[str, str]]:
    sample = find_sample("zh-poetry")
    assert sample.read is not None
    for _, record in islice(sample.read(sample_folder("zh-poetry", samples)), _POEMS):
        yield dict(zip(sample.columns, record, strict=True))


def _held_out(workspace: Workspace, name: str) -> list[str]:
    from danlu.train.examples import load_texts

    (dataset,) = [each for each in workspace.all("dataset") if each.manifest["name"] == name]
    return load_texts(dataset, "test")


def _size(workspace: Workspace, name: str) -> int:
    from danlu.model.predictor import load_predictor

    model: Artifact = workspace.target(f"{name}@latest", "model")
    return load_predictor(model).answerer.n_parameters
