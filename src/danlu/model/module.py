"""A family's module on disk: ``config.json``, ``signature.json`` and ``model.safetensors``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json
from danlu.model.base import FamilyConfig, Model, Signature
from danlu.model.families import FAMILIES
from danlu.model.weights import save_tensors

__all__ = ["build_module", "load_backbone", "load_module", "save_module"]


def build_module(config: FamilyConfig, signature: Signature) -> Model:
    """A family's module; its weights are not set yet.

    Raises:
        ValueError: The sizes do not fit each other, or the family does not do that task.
    """
    family: type[Model] = FAMILIES[config.family]
    return family(config, signature)


def save_module(folder: Path, module: Model) -> None:
    """Write a module into a folder."""
    write_json(folder / "config.json", module.config.plain())
    write_json(folder / "signature.json", asdict(module.signature))
    save_tensors(module.state_dict(), folder / "model.safetensors")


def load_module(folder: Path) -> Model:
    """Read what :func:`save_module` wrote.

    Raises:
        CorruptError: A file is missing or not what was written.
    """
    try:
        stored = read_json(folder / "config.json")
        signature = TypeAdapter(Signature).validate_python(read_json(folder / "signature.json"))
        module = build_module(FAMILIES[stored["family"]].Config(**stored), signature)
        module.load_state_dict(load_file(folder / "model.safetensors"))
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, ValidationError, SafetensorError) as error:
        raise CorruptError(f"not a saved model: {error}", where=str(folder)) from error
    return module


def load_backbone(module: Model, folder: Path) -> tuple[str, ...]:
    """Set every weight of a module from a saved module of the same config, its head's only if it did the same task.

    Returns:
        The parameters that were not set.

    Raises:
        CorruptError: The file is damaged, or its tensors do not fit.
    """
    path = folder / "model.safetensors"
    try:
        signature = TypeAdapter(Signature).validate_python(read_json(folder / "signature.json"))
        other = () if signature == module.signature else ("head.",)
        tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(other)}
        missing, unexpected = module.load_state_dict(tensors, strict=False)
    except (RuntimeError, OSError, ValidationError, SafetensorError) as error:
        raise CorruptError(f"cannot start from these weights: {error}", where=str(path)) from error
    if wrong := [*unexpected, *(name for name in missing if not name.startswith(other))]:
        raise CorruptError(f"cannot start from these weights: {wrong[0]} does not fit", where=str(path))
    return tuple(missing)
