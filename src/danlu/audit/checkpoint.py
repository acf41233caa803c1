"""A model on disk as the audit reads it: parameters under our names, one at a time, whatever the files call them."""

from __future__ import annotations

import contextlib
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from danlu.audit.packed import unpacked
from danlu.audit.parts import Part, Traits
from danlu.audit.roles import find_roles
from danlu.core.errors import CorruptError
from danlu.model.families import FAMILIES
from danlu.model.pretrained.config import is_ours, read_stored
from danlu.model.pretrained.files import COPY_AGAIN, TensorFiles

__all__ = ["Checkpoint"]


class Checkpoint(contextlib.ExitStack):
    """The parameters of a model, opened but not read; a context, at whose end the files are closed.

    Of any architecture: see :mod:`danlu.audit.roles`. Packed matrices are read as what they stand for: see
    :mod:`danlu.audit.packed`.

    Args:
        folder: A model that danlu saved, or a checkpoint in Hugging Face layout.

    Attributes:
        folder: Where it is.
        traits: What the tests must know of its architecture.
        stored: Every tensor as the files have it.
        guessed: Parameters that were found by their shape: what the file calls the tensor -> what it is taken for.

    Raises:
        UsageError: There is no model in the folder, or its matrices are packed in a way that is not known.
        CorruptError: A file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        settings = read_stored(folder)
        self.stored = self.enter_context(TensorFiles(folder)).found
        matrices = unpacked(self.stored, settings, str(folder))
        self._parts: dict[str, Part]
        if is_ours(folder):
            self._parts = {matrix.name: Part(matrix) for matrix in matrices}
            self.traits = _our_traits(folder)
        else:
            self._parts, self.traits = find_roles(matrices, settings)
        self.guessed = {part.source.name: name for name, part in self._parts.items() if not part.sure}

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
        """The shape of a parameter, without a look at its numbers.

        Raises:
            CorruptError: The checkpoint has none of this name.
        """
        return self._part(name).shape

    def is_sure(self, name: str) -> bool:
        """Whether a parameter was found by its name, not by its shape alone."""
        return self._part(name).sure

    @property
    def names(self) -> Iterable[str]:
        """The parameters that it has, under our names."""
        return self._parts.keys()

    @property
    def n_blocks(self) -> int:
        """Transformer blocks."""
        found = (re.match(r"blocks\.(\d+)\.", name) for name in self._parts)
        return max((int(match[1]) + 1 for match in found if match), default=0)

    def read(self, name: str, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> torch.Tensor:
        """A parameter in float32, shaped as ours.

        Args:
            name: Its name.
            rows: The numbers of the rows to read; None: all of them.
            columns: The same of columns.

        Raises:
            CorruptError: The checkpoint has none of this name.
        """
        tensor = self._part(name).read()
        if rows is not None:
            tensor = tensor[rows]
        if columns is not None:
            tensor = tensor[:, columns]
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

    def _part(self, name: str) -> Part:
        if name not in self._parts:
            raise CorruptError(f"there is no {name}", where=str(self.folder), advice=COPY_AGAIN)
        return self._parts[name]


def _our_traits(folder: Path) -> Traits:
    stored, where = read_stored(folder), str(folder / "config.json")
    try:
        config = FAMILIES[str(stored["family"])].Config(**stored)
    except (KeyError, TypeError, ValidationError) as error:
        raise CorruptError(f"not the config of a model: {error}", where=where, advice=COPY_AGAIN) from error
    values = config.plain()
    n_heads = values.get("n_heads")
    return Traits(
        d_value=values.get("d_head") or (values["d_model"] // n_heads if n_heads else None),
        rms=values.get("norm", "layer") == "rms",
        norm_first=bool(values.get("norm_first", True)),
    )
