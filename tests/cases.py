"""Every model family at every task that it can do, in every make that has layers of its own, at a tiny size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.data.batches import collate
from danlu.data.sequences import collate_pairs, collate_windows, windows
from danlu.data.tokenizer import PAD, TokenizerConfig, encode, special_tokens, train_tokenizer
from danlu.model.base import Model, Signature, Task
from danlu.model.families import FAMILIES
from danlu.train.masking import hide_tokens
from small import made_up, make_module, signature_of

__all__ = ["CASES", "MAX_LEN", "N_CLASSES", "TEXTS", "TOKENIZER", "Case", "alone", "answers"]

N_CLASSES = 3
MAX_LEN = 32
IMAGE_SIZE = (1, 28, 28)
TEXTS = [text for text, _ in made_up(10)] + ["好", ""]
TOKENIZER: Tokenizer = train_tokenizer([text for text, _ in made_up()], TokenizerConfig(kind="char", vocab_size=300))

MAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "first": ("bert", {"positions": "learned", "n_segments": 2, "norm_first": False, "pooling": "first"}),
    "gpt-2": ("gpt", {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True}),
    "qwen": (
        "gpt",
        {"n_kv_heads": 1, "d_head": 6, "qkv_bias": True, "qk_norm": True, "tie_embeddings": False},
    ),
    "post-norm": ("transformer", {"norm_first": False, "positions": "rotary", "activation": "gelu"}),
}
"""Other makes of a family than its own: their name -> the family, and what is different."""


@dataclass(frozen=True)
class Case:
    """A family, what it is to do, and what is changed of its tiny size."""

    family: str
    task: Task
    make: str = "own"
    changes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family}-{self.task}" + (f"-{self.make}" if self.make != "own" else "")

    @property
    def has_text(self) -> bool:
        """Whether it takes texts, which come in different lengths."""
        return self.task != "image-classification"

    @property
    def names_classes(self) -> bool:
        """Whether it answers with one class a record, and not with tokens."""
        return self.task.endswith("classification")

    @property
    def signature(self) -> Signature:
        """What the module takes and answers."""
        if not self.has_text:
            return Signature(task=self.task, n_classes=N_CLASSES, image_size=IMAGE_SIZE)
        return signature_of(self.task, TOKENIZER, N_CLASSES if self.names_classes else 0)

    def module(self, seed: str = "1", **changes: Any) -> Model:
        """The module with the weights that a seed gives."""
        return make_module(self.family, self.signature, seed, **self.changes, **changes)

    def batch(self, texts: list[str] = TEXTS) -> Batch:
        """All that a module is trained on: one record a text, or as many pictures."""
        rows = np.arange(len(texts))
        labels = rows % (N_CLASSES if self.names_classes else 2)  # pre-training asks whether texts follow each other
        if not self.has_text:
            images = np.random.default_rng(0).random((len(rows), *IMAGE_SIZE), np.float32)
            parts = {"images_BCYX": torch.from_numpy(images), "labels_B": torch.from_numpy(labels)}
            return Batch(rows_B=torch.from_numpy(rows), **parts)
        special = special_tokens(TOKENIZER)
        if self.task in ("language-modelling", "translation"):
            tokens = encode(TOKENIZER, texts, MAX_LEN - 1, special=False)
            found = windows(tokens, special, MAX_LEN, 0)
            if self.task == "language-modelling":
                return collate_windows(found, rows)
            sources = encode(TOKENIZER, texts[::-1], MAX_LEN - 1, special=False)
            return collate_pairs(sources, found, rows, special)
        batch = collate(encode(TOKENIZER, texts, MAX_LEN), rows, PAD, labels)
        batch = replace(batch, segments_BT=(batch.text[2] > 4).long())
        return (
            batch if self.names_classes else hide_tokens(batch, 0.5, special.mask, Seeds.new("1").generator("augment"))
        )


def _cases() -> Iterator[Case]:
    for family in FAMILIES.names():
        for task in sorted(FAMILIES[family].tasks):
            yield Case(family, task)
            for name, (made, changes) in MAKES.items():
                if made == family:
                    yield Case(family, task, name, changes)


CASES = list(_cases())


def answers(module: Model, batch: Batch) -> list[torch.Tensor]:
    """What a module says of each record: the logits of the classes, or those of the tokens at every token of it."""
    logits = module(replace(batch, targets_BT=None)).logits
    if logits.ndim == 2:
        return list(logits)
    return [logits_TV[mask_T] for logits_TV, mask_T in zip(logits, batch.text[1], strict=True)]


def alone(batch: Batch, row: int) -> Batch:
    """A batch of one of its records, without padding."""
    parts = {item.name: getattr(batch, item.name) for item in fields(batch)}
    kept: dict[str, Any] = {name: value[row : row + 1] for name, value in parts.items() if value is not None}
    for mask in ("mask_BT", "source_mask_BS"):
        if mask in kept:
            width = max(1, int(kept[mask].sum()))
            kept |= {name: value[:, :width] for name, value in kept.items() if name.endswith(mask[-3:])}
    return Batch(**kept)
