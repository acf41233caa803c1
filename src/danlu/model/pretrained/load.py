"""Weights of a checkpoint into a module of ours, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from danlu.core.errors import CorruptError, UsageError
from danlu.model.base import FamilyConfig, Model
from danlu.model.module import load_backbone
from danlu.model.pretrained.architectures import Architecture, effective
from danlu.model.pretrained.config import architecture_in, is_ours, read_config
from danlu.model.pretrained.files import COPY_AGAIN, INDEX, WEIGHTS, StoredTensor, TensorFiles
from danlu.model.pretrained.names import NameMap, Place

__all__ = ["Loaded", "load_weights"]

_FLOATS = ("BF16", "F16", "F32", "F64")

Found = dict[str, StoredTensor]
"""The tensors of a checkpoint by their canonical names."""


@dataclass(frozen=True)
class Loaded:
    """What did not come from a checkpoint, and what of it was not taken.

    Attributes:
        new: Parameters of ours that it has nothing for; they are as they were.
        left_out: Tensors of it that belong to another task.
    """

    new: tuple[str, ...]
    left_out: tuple[str, ...]


def load_weights(module: Model, folder: Path) -> Loaded:
    """Set the weights of a module from a checkpoint; numbers become of the module's type.

    The module stays as it is if anything is wrong.

    Args:
        module: A module of the config that :func:`danlu.model.pretrained.config.read_config` gives, or of one that sees
            shorter texts or is trained with other dropout. Its weights are drawn, for what the checkpoint lacks.
        folder: A checkpoint in Hugging Face layout, or a model that danlu saved.

    Raises:
        UsageError: The weights are not safetensors, or the module is of another make or vocabulary.
        CorruptError: A file is damaged, or a tensor missing, not due or of the wrong shape; it is named.
    """
    if is_ours(folder):
        return Loaded(load_backbone(module, folder), ())
    architecture = architecture_in(folder)
    stored = _checked_config(module, architecture, folder)
    names = architecture.names
    places, lost = names.places(module, module.signature.task)
    assert not lost, f"a {architecture.name} has no {lost}"
    with TensorFiles(folder) as files:
        found = _by_canonical_name(files, names)
        dropped = _parts_dropped(module, places, found, names)
        due = {name: place for name, place in places.items() if names.part(name) not in dropped}
        offered = {name: tensor for name, tensor in found.items() if names.part(name) not in dropped}
        sources = _sources(due, offered, names, folder)
        for name, place in due.items():
            shape = place.shape([module.get_parameter(ours) for ours in place.ours])
            if name == names.positions:
                shape[0] = effective(stored)["max_len"]
            _check(sources[name], shape, is_vocabulary=name == names.tokens)
        for name, place in due.items():
            _copy(module, place, sources[name].read(), cut=name == names.positions)
    return Loaded(
        new=tuple(name for key, place in places.items() if key not in due for name in place.ours),
        left_out=tuple(tensor.name for name, tensor in found.items() if name not in offered),
    )


def _checked_config(module: Model, architecture: Architecture, folder: Path) -> FamilyConfig:
    """The config of a checkpoint, if that of the module is the same: with another it would answer nonsense."""
    if architecture.family != module.config.family:
        what = f"the checkpoint is a {architecture.family}, the model a {module.config.family}"
        raise UsageError(what, where=str(folder), advice=f"set model.family to {architecture.family}")
    config = read_config(folder, module.signature.task)
    theirs, ours = effective(config), effective(module.config)
    for key, value in ours.items():
        if key not in architecture.free and value != theirs[key]:
            what = f"{key} is {theirs[key]} in the checkpoint and {value} in the model"
            raise UsageError(what, where=str(folder), advice=f"leave model.{key} out: the checkpoint decides it")
    if architecture.names.positions and ours["max_len"] > theirs["max_len"]:
        what = f"the checkpoint has {theirs['max_len']} positions, max_len is {ours['max_len']}"
        raise UsageError(what, where=str(folder), advice=f"set model.max_len to {theirs['max_len']} or less")
    return config


def _by_canonical_name(files: TensorFiles, names: NameMap) -> Found:
    found: Found = {}
    for tensor in files.found:
        name = names.canonical(tensor.name)
        if name in found:
            raise tensor.wrong(f"is there twice, also as {found[name].name}")
        if not names.is_ignored(name):
            found[name] = tensor
    return found


def _parts_dropped(module: Model, places: Mapping[str, Place], found: Found, names: NameMap) -> set[str | None]:
    """Which optional parts the checkpoint or the module lacks, or that mean something else to each."""
    dropped: set[str | None] = set()
    for part, needed in names.optional.items():
        here, there = ({name for name in side if name.startswith(part)} for side in (places, found))
        other_classes = part == names.by_class and any(
            found[name].shape[:1] != [module.signature.n_classes] for name in there
        )
        if not here or not there or needed in dropped or other_classes:
            dropped.add(part)
    return dropped


def _sources(due: Iterable[str], offered: Found, names: NameMap, folder: Path) -> Found:
    """Which tensor each of ours is read from: that of its name, or a copy of it."""
    copies = {copy: original for copy, original in names.copies.items() if copy in offered and copy not in due}
    for copy, original in copies.items():
        if original in offered and not torch.equal(offered[copy].read(), offered[original].read()):
            raise offered[copy].wrong(f"is not the same as {original}, although config.json says that they are one")
    sources = {**{original: offered[copy] for copy, original in copies.items()}, **offered}
    if missing := [name for name in due if name not in sources]:
        what = f"{missing[0]} is missing ({len(missing)} tensors are)"
        where = folder / (WEIGHTS if (folder / WEIGHTS).exists() else INDEX)
        raise CorruptError(what, where=str(where), advice=COPY_AGAIN)
    if extra := [name for name in offered if name not in due and name not in copies]:
        raise offered[extra[0]].wrong(f"has no place in this model ({len(extra)} tensors have none)")
    return sources


def _check(tensor: StoredTensor, due: list[int], is_vocabulary: bool) -> None:
    if tensor.kind not in _FLOATS:
        raise tensor.wrong(f"holds {tensor.kind}, which danlu does not read, only {', '.join(_FLOATS)}")
    if is_vocabulary and tensor.shape[1:] == due[1:] and tensor.shape != due:
        what = f"{tensor.name} has vectors for {tensor.shape[0]} tokens, the model for {due[0]}"
        raise UsageError(what, where=str(tensor.path), advice="use the tokenizer of this checkpoint")
    if tensor.shape != due:
        raise tensor.wrong(f"is {tensor.shape} where {due} is due")


def _copy(module: Model, place: Place, theirs: torch.Tensor, cut: bool) -> None:
    parameters = [module.get_parameter(name) for name in place.ours]
    if cut:  # a model that sees shorter texts has the first of the positions
        theirs = theirs[: len(parameters[0])]
    with torch.no_grad():
        for parameter, part in zip(parameters, place.split(theirs, [len(each) for each in parameters]), strict=True):
            parameter.copy_(part)
