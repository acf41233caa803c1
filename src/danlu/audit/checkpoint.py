"""A model on disk as the audit reads it: parameters under our names, one at a time, whatever the files call them."""

from __future__ import annotations

import contextlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from danlu.core.errors import CorruptError
from danlu.model.base import FamilyConfig, Model, Signature, Task
from danlu.model.families import FAMILIES
from danlu.model.module import build_module
from danlu.model.pretrained.config import architecture_in, is_ours, read_config, read_stored
from danlu.model.pretrained.files import COPY_AGAIN, StoredTensor, TensorFiles
from danlu.model.pretrained.names import Place

__all__ = ["Checkpoint"]

_TASKS: dict[str, Task] = {"bert": "masked-language-modelling", "gpt": "language-modelling"}
"""The task by which the tensors of an architecture of transformers are named."""


@dataclass(frozen=True)
class _Part:
    """A parameter of ours: some rows of a stored tensor."""

    stored: StoredTensor
    place: Place
    n_rows: tuple[int, ...]
    number: int


class Checkpoint(contextlib.ExitStack):
    """The parameters of a model, opened but not read; a context, at whose end the files are closed.

    Tensors whose names are not known are taken for parameters that are still missing, by the number of their layer,
    their shape and their order. A wrong guess makes a test weaker, never wrong: it looks at no other model.

    Args:
        folder: A model that danlu saved, or a checkpoint in Hugging Face layout.

    Attributes:
        folder: Where it is.
        config: Its config, as that of a family of ours.
        stored: Every tensor as the files have it.
        guessed: Parameters that were found by their shape: what the file calls the tensor -> what it is taken for.

    Raises:
        UsageError: There is no model in the folder, or its architecture is none that danlu has.
        CorruptError: A file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.stored = self.enter_context(TensorFiles(folder)).found
        self.guessed: dict[str, str] = {}
        if is_ours(folder):
            self.config = _our_config(folder)
            self._parts = {tensor.name: _Part(tensor, Place((tensor.name,)), (), 0) for tensor in self.stored}
        else:
            self._read_theirs()

    def _read_theirs(self) -> None:
        architecture = architecture_in(self.folder)
        task, names = _TASKS[architecture.family], architecture.names
        self.config = read_config(self.folder, task)
        signature = Signature(task=task, vocab_size=int(read_stored(self.folder).get("vocab_size") or 1))
        with torch.device("meta"):
            module = build_module(self.config, signature)
        places, _ = names.places(module, task)
        known = {names.canonical(tensor.name): tensor for tensor in self.stored}
        found = {name: known[name] for name in places if name in known}
        strangers = [tensor for name, tensor in known.items() if name not in places and not names.is_ignored(name)]
        missing = {
            name: _shape(module, place)
            for name, place in places.items()
            if name not in found and names.part(name) is None
        }
        for name, tensor in _guess(missing, strangers).items():
            found[name] = tensor
            self.guessed[tensor.name] = name
        self._parts = {}
        for name, tensor in found.items():
            n_rows = tuple(len(module.get_parameter(ours)) for ours in places[name].ours)
            for number, ours in enumerate(places[name].ours):
                self._parts[ours] = _Part(tensor, places[name], n_rows, number)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    @property
    def where(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    @property
    def kind(self) -> str:
        """In what precision most numbers are stored: ``F32``, ``BF16``, ..."""
        sizes: defaultdict[str, int] = defaultdict(int)
        for tensor in self.stored:
            sizes[tensor.kind] += math.prod(tensor.shape)
        return max(sizes, key=lambda kind: sizes[kind])

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter, without a look at its numbers."""
        part = self._parts[name]
        shape = tuple(part.stored.shape)
        if not part.n_rows:
            return shape
        rest = shape[:-1] if part.place.layout == "transposed" and len(shape) == 2 else shape[1:]
        return (part.n_rows[part.number], *rest)

    @property
    def names(self) -> Iterable[str]:
        """The parameters that it has, under our names."""
        return self._parts.keys()

    @property
    def n_blocks(self) -> int:
        """Transformer blocks."""
        found = (re.match(r"blocks\.(\d+)\.", name) for name in self._parts)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def read(self, name: str) -> torch.Tensor:
        """A parameter in float32, shaped as ours.

        Raises:
            CorruptError: The checkpoint has none of this name.
        """
        if name not in self._parts:
            raise CorruptError(f"there is no {name}", where=str(self.folder), advice=COPY_AGAIN)
        part = self._parts[name]
        tensor = part.stored.read()
        if part.n_rows:
            tensor = part.place.split(tensor, part.n_rows)[part.number]
        return tensor.float()

    def tokens(self) -> dict[str, int] | None:
        """Token -> id, if there is a tokenizer that says so."""
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            return None
        try:
            found: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab()
        except Exception as error:  # the library raises no class of its own
            raise CorruptError(f"not a tokenizer: {error}", where=str(path), advice=COPY_AGAIN) from error
        return found


def _our_config(folder: Path) -> FamilyConfig:
    stored, where = read_stored(folder), str(folder / "config.json")
    try:
        config: FamilyConfig = FAMILIES[str(stored["family"])].Config(**stored)
    except (KeyError, TypeError, ValidationError) as error:
        raise CorruptError(f"not the config of a model: {error}", where=where, advice=COPY_AGAIN) from error
    return config


def _shape(module: Model, place: Place) -> tuple[int, ...]:
    return tuple(place.shape([module.get_parameter(name) for name in place.ours]))


def _guess(missing: Mapping[str, tuple[int, ...]], strangers: Iterable[StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors of unknown names for the places that are empty: of the same layer and shape, in order."""
    waiting: defaultdict[tuple[str, tuple[int, ...]], list[StoredTensor]] = defaultdict(list)
    for tensor in sorted(strangers, key=lambda tensor: _natural(tensor.name)):
        waiting[_layer(tensor.name), tuple(tensor.shape)].append(tensor)
    found = {}
    for name, shape in missing.items():
        for key in ((_layer(name), shape), ("", shape)):
            if waiting[key]:
                found[name] = waiting[key].pop(0)
                break
    return found


def _layer(name: str) -> str:
    match = re.search(r"(?<![a-zA-Z\d])\d+(?![a-zA-Z\d])", name)
    return match[0] if match else ""


def _natural(name: str) -> list[str | int]:
    """Sorts ``layer.10`` after ``layer.9``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
