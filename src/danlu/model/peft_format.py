"""Adapters on disk as PEFT keeps them: ``adapter_config.json`` and ``adapter_model.safetensors``.

Their tensors are named by the layers of transformers, so both ways need a function from the path of a module of ours to
that of its counterpart there; it raises KeyError for a module that has none.

Where one layer of theirs is several of ours (GPT-2's ``c_attn`` is our ``q``, ``k`` and ``v``: linear layers of ours
that are renamed to one path are its rows, in the order in which they stand in the module), n adapters of rank R are
written as one of rank n R, exactly: its A is theirs stacked, its B block-diagonal, and a layer without an adapter is a
block of zeros. Such a file is read back into what it was written from. Any other adapter of a fused layer is read as
one on each of its parts, with the same A and that part's rows of B.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
from pydantic import ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from danlu.core.config import Config
from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import read_json, write_json
from danlu.model.adapters import adapters, add_adapters, linear_layers, short_names
from danlu.model.base import Task
from danlu.model.layers.lora import LoraConfig, LoraLinear
from danlu.model.weights import save_tensors

__all__ = ["Rename", "load_adapters", "save_adapters"]

Rename = Callable[[str], str]
"""The path of a module of ours -> that of its counterpart in transformers; KeyError where there is none."""

_Rank = Annotated[int, Field(gt=0)]
_Alpha = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]
_Number = TypeVar("_Number", bound=float)

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_TASKS: dict[Task, str] = {
    "text-classification": "SEQ_CLS",
    "language-modelling": "CAUSAL_LM",
    "translation": "SEQ_2_SEQ_LM",
}
_IDLE = {
    *("auto_mapping", "base_model_name_or_path", "loftq_config", "megatron_core", "peft_version"),
    *("qalora_group_size", "revision", "runtime_config"),
}
"""What PEFT writes besides, and what changes no adapter as long as no other key asks for it."""
_SAVE_AGAIN = "save the adapter again as safetensors, or copy the whole folder again"
_ITS_MODEL = "load it into the model that it was trained on, with the adapter_config.json that was saved with it"
_MERGE_HERE = "merge the adapters and export the whole model instead"
_MERGE_THERE = "merge it into its model with PEFT (merge_and_unload), and load the merged model"


class _Pair(NamedTuple):
    """An adapter's matrices: A [R, D] and B [D', R]."""

    a: torch.Tensor
    b: torch.Tensor


class _Stored(Config):
    """The part of ``adapter_config.json`` that danlu understands; other keys are kept, to be looked at."""

    model_config = ConfigDict(extra="allow")

    peft_type: Literal["LORA"]
    task_type: str | None = None
    inference_mode: bool = True
    r: _Rank
    lora_alpha: _Alpha
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    use_rslora: bool = False
    target_modules: list[str] | str | None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, _Rank] = {}
    alpha_pattern: dict[str, _Alpha] = {}
    bias: Literal["none"] = "none"
    fan_in_fan_out: bool = False
    init_lora_weights: bool | Literal["gaussian"] = True

    @field_validator("target_modules")
    @classmethod
    def _is_a_pattern(cls, value: list[str] | str | None) -> list[str] | str | None:
        """A single string is a regular expression."""
        try:
            re.compile(value if isinstance(value, str) else "")
        except (re.error, OverflowError) as error:
            raise ValueError(f"not a pattern: {error}") from error
        return value

    def of(self, path: str) -> LoraConfig:
        """A layer's rank and strength in our words."""
        return LoraConfig(
            rank=_pattern(self.rank_pattern, path, self.r),
            alpha=_pattern(self.alpha_pattern, path, self.lora_alpha),
            dropout=self.lora_dropout,
            use_rslora=self.use_rslora,
        )

    def saves(self, path: str) -> bool:
        """Whether a module, or one that it is in, was trained in full."""
        return any(f".{name}." in f".{path}." for name in self.modules_to_save or ())

    def aims_at(self, path: str) -> bool:
        """Whether a layer is to have an adapter."""
        if self.saves(path) or self.target_modules is None:
            return False
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, path) is not None
        return any(f".{path}".endswith(f".{target}") for target in self.target_modules)


def save_adapters(
    module: nn.Module,
    folder: Path,
    config: LoraConfig,
    rename: Rename,
    *,
    task: Task | None = None,
    fan_in_fan_out: bool = False,
) -> None:
    """Write the adapters of a module, and its head where that is trained.

    Args:
        module: A module with adapters.
        folder: A folder that exists.
        config: What the adapters were made with.
        rename: Our paths -> those of transformers.
        task: What the model does; PEFT chooses its wrapper by it.
        fan_in_fan_out: Whether transformers keeps the adapted matrices transposed, as it does GPT-2's.

    Raises:
        UsageError: There are no adapters, or PEFT has no place for an adapted layer or for the trained head.
        DanluError: The disk is full or may not be written to.
    """
    adapted = adapters(module).keys()
    if not adapted:
        raise UsageError("the model has no adapters to save", advice="save the model whole")
    places = {path: parts for path, parts in _places(module, rename).items() if adapted & parts.keys()}
    head = {name: path for name, path in _head(module, rename).items() if module.get_parameter(name).requires_grad}
    lost = adapted - {name for parts in places.values() for name in parts} | {name for name in head if not head[name]}
    if lost:
        raise UsageError(f"{min(lost)} has no counterpart in transformers", advice=_MERGE_HERE)
    saved = sorted({path.rpartition(".")[0] for path in head.values()})
    if nested := [path for path in saved if any(other.startswith(f"{path}.") for other in saved)]:
        # PEFT would ask for all that transformers keeps in there, shared token vectors too.
        raise UsageError(f"PEFT has no place for a head trained in parts ({nested[0]})", advice=_MERGE_HERE)
    tensors: dict[str, torch.Tensor] = {}
    for path, parts in places.items():
        tensors[path + _A], tensors[path + _B] = _join(list(parts.values()), config.rank)
    tensors |= {path: module.get_parameter(name) for name, path in head.items()}
    n_parts = {path: len(parts) for path, parts in places.items() if len(parts) > 1}
    stored = _Stored(
        peft_type="LORA",
        # PEFT's classifier insists on a head in the file.
        task_type=_TASKS.get(task) if task and (head or task != "text-classification") else None,
        r=config.rank,
        lora_alpha=_whole(config.alpha),
        lora_dropout=config.dropout,
        use_rslora=config.use_rslora,
        target_modules=list(places),
        modules_to_save=saved or None,
        rank_pattern={path: n * config.rank for path, n in n_parts.items()},
        # n times the rank, at the same scale.
        alpha_pattern={
            path: _whole(config.alpha * (math.sqrt(n) if config.use_rslora else n)) for path, n in n_parts.items()
        },
        fan_in_fan_out=fan_in_fan_out,
    )
    save_tensors({_PREFIX + name: tensor for name, tensor in tensors.items()}, folder / _TENSORS)
    write_json(folder / _CONFIG, stored.plain())


def load_adapters(module: nn.Module, folder: Path, rename: Rename) -> LoraConfig:
    """Put adapters from a file on a module, and the head that was trained with them in the place of its own.

    Args:
        module: The model that the adapters were trained on, without adapters; it stays as it is if anything is wrong.
        folder: What :func:`save_adapters` or PEFT wrote.
        rename: Our paths -> those of transformers.

    Returns:
        What the adapters are; they can be used, merged or trained on.

    Raises:
        CorruptError: A file is missing, is not what its name says, or lacks a tensor.
        UsageError: The adapter is not of this model, or is of a kind that danlu does not have.
    """
    stored, file = _read_config(folder / _CONFIG), folder / _TENSORS
    tensors = _read_tensors(file)
    places = _places(module, rename)
    paths = [path for path in places if stored.aims_at(path) or not tensors.keys().isdisjoint((path + _A, path + _B))]
    head = {
        path: module.get_parameter(name)
        for name, path in _head(module, rename).items()
        if path and (path in tensors or stored.saves(path.rpartition(".")[0]))
    }
    _check_names(tensors, [*(path + end for path in paths for end in (_A, _B)), *head], file)
    found: dict[str, _Pair] = {}
    for path in paths:
        found |= _split(path, places[path], stored, tensors, file)
    for path, parameter in head.items():
        _check_shape(path, tensors[path], list(parameter.shape), file)
    if not found:
        raise CorruptError("the file holds no adapter", where=str(file), advice=_SAVE_AGAIN)
    targets = short_names(found, linear_layers(module))
    config = stored.of("").model_copy(update={"targets": targets, "train_head": bool(head)})
    add_adapters(module, config)
    with torch.no_grad():
        for name, layer in adapters(module).items():
            layer.lora_A.weight.copy_(found[name].a)
            layer.lora_B.weight.copy_(found[name].b)
        for path, parameter in head.items():
            parameter.copy_(tensors[path])
    return config


def _places(module: nn.Module, rename: Rename) -> dict[str, dict[str, nn.Linear | LoraLinear]]:
    """The linear layers of transformers, and those of ours that each is made of, in order."""
    found: dict[str, dict[str, nn.Linear | LoraLinear]] = defaultdict(dict)
    for name, layer in linear_layers(module).items():
        if path := _counterpart(rename, name):
            found[path][name] = layer
    return found


def _head(module: nn.Module, rename: Rename) -> dict[str, str]:
    """The head's parameters and their counterparts: nothing where there is none."""
    head = getattr(module, "head", None)
    names = dict(head.named_parameters(prefix="head")) if isinstance(head, nn.Module) else {}
    found = {}
    for name in names:
        owner, _, leaf = name.rpartition(".")
        path = _counterpart(rename, owner)
        found[name] = f"{path}.{leaf}" if path else ""
    return found


def _counterpart(rename: Rename, name: str) -> str:
    try:
        return rename(name)
    except KeyError:
        return ""


def _join(parts: Sequence[nn.Linear | LoraLinear], rank: int) -> _Pair:
    """The adapter of a layer made of parts."""
    pairs = []
    for part in parts:
        if isinstance(part, LoraLinear):
            pairs.append(_Pair(part.lora_A.weight, part.lora_B.weight))
        else:
            a, b = part.weight.new_zeros(rank, part.in_features), part.weight.new_zeros(part.out_features, rank)
            pairs.append(_Pair(a, b))
    return _Pair(torch.cat([pair.a for pair in pairs]), _diagonal([pair.b for pair in pairs]))


def _diagonal(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Matrices of one width along the diagonal of a larger one."""
    rank, n = blocks[0].shape[1], len(blocks)
    return torch.cat([F.pad(block, (i * rank, (n - 1 - i) * rank)) for i, block in enumerate(blocks)])


def _split(
    path: str,
    parts: Mapping[str, nn.Linear | LoraLinear],
    stored: _Stored,
    tensors: Mapping[str, torch.Tensor],
    file: Path,
) -> dict[str, _Pair]:
    """The adapters of the parts of a layer."""
    here, all_over, n = stored.of(path), stored.of(""), len(parts)
    bases = [part.base if isinstance(part, LoraLinear) else part for part in parts.values()]
    rows = [base.out_features for base in bases]
    a, b = tensors[path + _A], tensors[path + _B]
    _check_shape(path + _A, a, [here.rank, bases[0].in_features], file)
    _check_shape(path + _B, b, [sum(rows), here.rank], file)
    if math.isclose(here.scale, all_over.scale):
        if here.rank == all_over.rank:
            return {name: _Pair(a, b_part) for name, b_part in zip(parts, torch.split(b, rows), strict=True)}
        if here.rank == n * all_over.rank:
            blocks = [row.chunk(n, dim=1)[i] for i, row in enumerate(torch.split(b, rows))]
            if torch.equal(_diagonal(blocks), b):
                pairs = zip(parts, a.chunk(n), blocks, strict=True)
                return {name: _Pair(a_part, b_part) for name, a_part, b_part in pairs if a_part.any()}
    what = f"the adapter of {path} has a rank or a strength of its own (rank_pattern, alpha_pattern)"
    raise UsageError(what, where=str(file.with_name(_CONFIG)), advice=_MERGE_THERE)


def _pattern(values: Mapping[str, _Number], path: str, default: _Number) -> _Number:
    return next((value for key, value in values.items() if f".{path}".endswith(f".{key}")), default)


def _whole(value: float) -> float:
    """An int where it is one, as PEFT writes alpha."""
    return int(value) if value.is_integer() else value


def _read_config(path: Path) -> _Stored:
    values = read_json(path)
    try:
        stored = _Stored.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = first["msg"].removeprefix("Value error, ")
        what = f"not an adapter that danlu can read: {key}: {problem}"
        raise UsageError(what, where=str(path), advice=_MERGE_THERE) from error
    for key, value in (stored.model_extra or {}).items():
        if value and key not in _IDLE:
            raise UsageError(f"the adapter uses {key}, which danlu does not have", where=str(path), advice=_MERGE_THERE)
    return stored


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(path).items()}
    except FileNotFoundError as error:
        raise CorruptError("the file is missing", where=str(path), advice=_SAVE_AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"not a safetensors file: {error}", where=str(path), advice=_SAVE_AGAIN) from error


def _check_names(tensors: Mapping[str, torch.Tensor], due: Sequence[str], file: Path) -> None:
    if missing := [name for name in due if name not in tensors]:
        what = f"{_PREFIX}{missing[0]} is missing ({len(missing)} of {len(due)} tensors are)"
        raise CorruptError(what, where=str(file), advice=_SAVE_AGAIN)
    if extra := sorted(tensors.keys() - set(due)):
        what = f"this model has no place for {_PREFIX}{extra[0]} ({len(extra)} of {len(tensors)} tensors have none)"
        raise UsageError(what, where=str(file), advice=_ITS_MODEL)


def _check_shape(name: str, tensor: torch.Tensor, due: list[int], file: Path) -> None:
    if list(tensor.shape) != due or not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        what = f"{_PREFIX}{name} is {kind} {list(tensor.shape)} where floating-point numbers {due} are due"
        raise UsageError(what, where=str(file), advice=_ITS_MODEL)
