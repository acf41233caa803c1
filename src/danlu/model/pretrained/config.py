"""The ``config.json`` of a checkpoint and our own configs, one from the other.

What danlu does not do exactly as transformers does is refused by name; keys that change nothing are passed over. No
code of a checkpoint is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from danlu.core.errors import CorruptError, UsageError, nearest
from danlu.core.files import read_json
from danlu.model.base import FamilyConfig, Model, Task
from danlu.model.families import FAMILIES
from danlu.model.layers.positions import RotaryScaling
from danlu.model.pretrained.architectures import ARCHITECTURES, Architecture, effective

__all__ = ["architecture_in", "architecture_of", "is_ours", "read_config", "read_stored", "their_config"]

_CONFIG = "config.json"
_ROPE = {
    "factor": "factor",
    "low_factor": "low_freq_factor",
    "high_factor": "high_freq_factor",
    "original_len": "original_max_position_embeddings",
}
_ANOTHER = "start from another checkpoint, or from scratch"


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a model that danlu saved, not one in Hugging Face layout."""
    return (folder / "signature.json").exists()


def read_stored(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder as it stands.

    Raises:
        UsageError: The folder is none, or holds no model.
        CorruptError: The file is not a JSON object.
    """
    if not (folder / _CONFIG).is_file():
        what = "there is no config.json in this folder" if folder.is_dir() else "there is no such folder"
        advice = "give a folder in Hugging Face layout: config.json, model.safetensors and a tokenizer"
        raise UsageError(f"{what}, so no model to start from", where=str(folder), advice=advice)
    stored = read_json(folder / _CONFIG)
    if not isinstance(stored, dict):
        raise CorruptError("not a JSON object", where=str(folder / _CONFIG))
    return stored


def architecture_in(folder: Path) -> Architecture:
    """The architecture of the checkpoint in a folder.

    Raises:
        UsageError: It is none that danlu has.
        CorruptError: ``config.json`` is damaged.
    """
    where = str(folder / _CONFIG)
    model_type = read_stored(folder).get("model_type")
    if not isinstance(model_type, str):
        raise UsageError("it names no model_type", where=where, advice=nearest("", ARCHITECTURES))
    if model_type not in ARCHITECTURES:
        what = f"danlu has no architecture {model_type!r}; it has {', '.join(sorted(ARCHITECTURES))}"
        raise UsageError(what, where=where, advice=nearest(model_type, ARCHITECTURES))
    return ARCHITECTURES[model_type]


def read_config(folder: Path, task: Task) -> FamilyConfig:
    """The config of a checkpoint, as that of a family of ours.

    Args:
        folder: A checkpoint in Hugging Face layout, or a model that danlu saved.
        task: What it is to be trained for.

    Raises:
        UsageError: The folder holds no model, or one that danlu does not do exactly; the key and its value are named.
        CorruptError: ``config.json`` is damaged.
    """
    stored, where = read_stored(folder), str(folder / _CONFIG)
    values = stored if is_ours(folder) else _values(architecture_in(folder), stored, where)
    try:
        family = FAMILIES[values["family"]]
        config: FamilyConfig = family.Config(**values)
    except (KeyError, TypeError) as error:
        raise CorruptError(f"not the config of a model: {error}", where=where) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{part}: " for part in first["loc"])
        what = f"not the config of a model: {key}{first['msg'].removeprefix('Value error, ')}"
        raise CorruptError(what, where=where) from error
    if task not in family.tasks:
        advice = f"it can be trained for {', '.join(sorted(family.tasks))}"
        raise UsageError(f"this checkpoint, a {config.family}, is not for {task}", where=where, advice=advice)
    return config


def architecture_of(config: FamilyConfig) -> Architecture:
    """The architecture of transformers that a model of ours is a make of.

    Raises:
        UsageError: There is none; the values that fit none are named.
    """
    values = effective(config)
    found = [(_misfits(each, values), each) for each in ARCHITECTURES.values() if each.family == config.family]
    if not found:
        can = ", ".join(sorted({each.family for each in ARCHITECTURES.values()}))
        raise UsageError(f"transformers has no counterpart of a {config.family}", advice=f"these have: {can}")
    misfits, nearest_one = min(found, key=lambda pair: len(pair[0]))
    if misfits:
        what = f"transformers has no counterpart of this {config.family}: {'; '.join(misfits)}"
        raise UsageError(what, advice=f"a model that is to be exported is trained in the make of {nearest_one.name}")
    return nearest_one


def their_config(module: Model, architecture: Architecture, classes: Sequence[str] = ()) -> dict[str, Any]:
    """What ``config.json`` says of a module of ours.

    Args:
        module: The module.
        architecture: What it is a make of.
        classes: Names of its classes, where it names any.
    """
    values, signature = effective(module.config), module.signature
    values["activation"] = next(name for name, ours in architecture.activations.items() if ours == values["activation"])
    stored: dict[str, Any] = {
        "architectures": [architecture.classes[signature.task]],
        "model_type": architecture.name,
        "vocab_size": signature.vocab_size,
    }
    for ours, key in architecture.keys.items():
        stored |= dict.fromkeys(key.names, values[ours])
    if architecture.rotary:
        scaling = values["rope_scaling"]
        stored["rope_theta"] = values["rope_base"]
        stored["rope_scaling"] = scaling and {
            "rope_type": "llama3",
            **{theirs: scaling[ours] for ours, theirs in _ROPE.items()},
        }
    if signature.task == "text-classification":
        names = classes or [f"LABEL_{number}" for number in range(signature.n_classes)]
        stored["id2label"] = {str(number): name for number, name in enumerate(names)}
        stored["label2id"] = {name: number for number, name in enumerate(names)}
    return stored


def _refuse_what_is_not_done(architecture: Architecture, stored: Mapping[str, Any], where: str) -> None:
    if stored.get("auto_map"):
        advice = "danlu runs no code of a checkpoint; if its layers are the standard ones, take auto_map out"
        raise UsageError("the checkpoint brings code of its own (auto_map)", where=where, advice=advice)
    if stored.get("quantization_config"):
        raise UsageError("the checkpoint is quantised (quantization_config)", where=where, advice=_ANOTHER)
    for key, due in architecture.fixed.items():
        if (value := stored.get(key)) is not None and value != due:
            raise _not_done(key, value, due, where)
    kinds = stored.get("layer_types") or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise _not_done("layer_types", kinds, "full_attention", where)


def _values(architecture: Architecture, stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Every value of ours that a ``config.json`` gives."""
    _refuse_what_is_not_done(architecture, stored, where)
    values: dict[str, Any] = {}
    for ours, key in architecture.keys.items():
        found = {name: key.default if stored.get(name) is None else stored[name] for name in key.names}
        first, *others = found
        if found[first] is ...:
            raise CorruptError(f"{first} is missing", where=where)
        if key.default is ... and not (type(found[first]) is int and found[first] > 0):
            raise CorruptError(f"{first} is {found[first]!r}, not a size", where=where)
        for other in () if ours in architecture.free else others:
            if found[other] != found[first]:
                raise _not_done(other, found[other], f"{found[first]!r} as {first}", where)
        values[ours] = found[first]
    activation = str(values["activation"])
    if activation not in architecture.activations:
        (name,) = architecture.keys["activation"].names
        raise _not_done(name, activation, " or ".join(architecture.activations), where)
    values["activation"] = architecture.activations[activation]
    values |= _rotary(stored, where) if architecture.rotary else {}
    return {**values, **architecture.make(values), **architecture.training, "family": architecture.family}


def _rotary(stored: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The base and the stretching of rotary positions: ``rope_parameters`` of today, or the two keys of before."""
    rope = stored.get("rope_parameters") or stored.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CorruptError("rope_scaling is not a JSON object", where=where)
    both = {**stored, **rope}
    if (share := both.get("partial_rotary_factor")) not in (None, 1):
        raise _not_done("partial_rotary_factor", share, 1, where)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3"):
        raise _not_done("rope_type", kind, "default or llama3", where)
    for key in sorted(rope.keys() - {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_ROPE.values()}):
        raise _not_done(f"rope_scaling.{key}", rope[key], "what Llama does", where)
    scaling = None
    if kind == "llama3":
        try:
            scaling = RotaryScaling(**{ours: rope[name] for ours, name in _ROPE.items()})
        except (KeyError, ValidationError) as error:
            raise CorruptError(f"the rope_scaling of llama3 is not whole: {error}", where=where) from error
    base = 10000.0 if both.get("rope_theta") is None else both["rope_theta"]
    return {"rope_base": base, "rope_scaling": scaling and scaling.plain()}


def _not_done(key: str, value: object, due: object, where: str) -> UsageError:
    return UsageError(f"danlu does not do {key} = {value!r}, only {due}", where=where, advice=_ANOTHER)


def _misfits(architecture: Architecture, values: Mapping[str, Any]) -> list[str]:
    """What keeps a config of ours from being of an architecture."""
    due = architecture.make(values)
    name = architecture.name
    found = [f"{key} is {values[key]} where {name} has {due[key]}" for key in due if values[key] != due[key]]
    if values["activation"] not in architecture.activations.values():
        found.append(
            f"activation is {values['activation']} where {name} has {next(iter(architecture.activations.values()))}"
        )
    return found
