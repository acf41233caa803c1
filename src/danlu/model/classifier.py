"""A neural text classifier: a family's module and the tokenizer that feeds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer

from danlu.core.batch import Batch
from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_atomic, write_json
from danlu.data.batches import Tokens, collate, in_order
from danlu.data.tokenizer import MASK, PAD, encode, load_tokenizer
from danlu.model.base import FamilyConfig, Model
from danlu.model.families import FAMILIES
from danlu.model.weights import save_tensors

__all__ = ["NeuralClassifier", "build_module", "load_backbone", "save_module"]

_BATCH_TOKENS = 8192


def build_module(config: FamilyConfig, tokenizer: Tokenizer, n_classes: int | None) -> Model:
    """A family's module, sized for a tokenizer and a number of classes (None: hidden tokens); weights not set yet.

    Raises:
        ValueError: The sizes do not fit each other, or the family does not do that task.
    """
    family: type[Model] = FAMILIES[config.family]
    return family(config, vocab_size=tokenizer.get_vocab_size(), n_classes=n_classes, mask_token=MASK)


def save_module(folder: Path, module: Model, tokenizer: Tokenizer) -> None:
    """Write ``config.json``, ``tokenizer.json`` and ``model.safetensors`` into a folder."""
    write_json(folder / "config.json", module.config.plain())
    write_atomic(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    save_tensors(module.state_dict(), folder / "model.safetensors")


def load_backbone(module: Model, folder: Path) -> None:
    """Set every weight of a module, its head's aside, from a saved module of the same config.

    Raises:
        CorruptError: The file is damaged, or its tensors do not fit.
    """
    path = folder / "model.safetensors"
    try:
        tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("head.")}
        missing, unexpected = module.load_state_dict(tensors, strict=False)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise CorruptError(f"cannot start from these weights: {error}", where=str(path)) from error
    if wrong := [*unexpected, *(name for name in missing if not name.startswith("head."))]:
        raise CorruptError(f"cannot start from these weights: {wrong[0]} does not fit", where=str(path))


class NeuralClassifier:
    """Texts in, class probabilities out.

    Args:
        module: The trained module; it is put into evaluation mode.
        tokenizer: The tokenizer that it was trained with.
        n_classes: Classes N.
    """

    def __init__(self, module: Model, tokenizer: Tokenizer, n_classes: int) -> None:
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.n_classes = n_classes

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return self.module.n_parameters()

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Token ids of texts, cut to what the module can see."""
        return encode(self.tokenizer, texts, self.module.config.max_len)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        return self.probabilities(self.encode(texts))

    def probabilities(self, tokens: Tokens) -> np.ndarray:
        """Probabilities of texts that are tokens already; float32 ``[n, N]``."""
        found = np.zeros((len(tokens), self.n_classes), np.float32)
        with torch.inference_mode():
            for rows, batch in self._batches(tokens):
                found[rows] = self.module(batch).logits.float().softmax(-1).numpy(force=True)
        return found

    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs into a folder."""
        save_module(folder, self.module, self.tokenizer)
        write_json(folder / "head.json", {"n_classes": self.n_classes})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is missing or not what was written.
        """
        tokenizer = load_tokenizer(folder / "tokenizer.json")
        try:
            stored = read_json(folder / "config.json")
            n_classes = int(read_json(folder / "head.json")["n_classes"])
            config = FAMILIES[stored["family"]].Config(**stored)
            module = build_module(config, tokenizer, n_classes)
            module.load_state_dict(load_file(folder / "model.safetensors"))
        except (KeyError, TypeError, ValueError, RuntimeError, OSError, ValidationError, SafetensorError) as error:
            raise CorruptError(f"not a saved model: {error}", where=str(folder)) from error
        return cls(module, tokenizer, n_classes)

    def _batches(self, tokens: Tokens) -> Iterator[tuple[np.ndarray, Batch]]:
        device = next(self.module.parameters()).device
        for rows in in_order(tokens.lengths, _BATCH_TOKENS):
            yield rows, collate(tokens, rows, PAD).to(device)
