"""A model of ours in Hugging Face layout: transformers, and whatever else reads such folders, loads it unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer
from torch import nn

from danlu.core.errors import UsageError
from danlu.core.files import publish, scratch_folder, write_json
from danlu.model.base import Model
from danlu.model.pretrained.config import architecture_of, their_config
from danlu.model.pretrained.files import INDEX, WEIGHTS
from danlu.model.pretrained.names import Place
from danlu.model.pretrained.tokenizers import is_like_qwen, save_tokenizer_files, special_names
from danlu.model.weights import save_tensors

__all__ = ["renamer", "save_pretrained"]

_IN_CONFIG = ("bos_token", "eos_token", "pad_token")
"""The special tokens that the model's own files name too, by number."""


def save_pretrained(
    module: Model,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    classes: Sequence[str] = (),
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a model and its tokenizer as transformers does, whole or not at all.

    Args:
        module: A model whose make transformers has: a gpt like GPT-2, Llama, Qwen2 or Qwen3, or a bert like BERT.
        tokenizer: Its tokenizer.
        folder: Where; it must not be there yet.
        classes: Names of the classes, where the model names any.
        max_shard_bytes: The most bytes of tensors in one file; a tensor is never cut.

    Raises:
        UsageError: The folder is there already, or transformers has no counterpart of the model.
        DanluError: The disk is full or may not be written to.
        ValueError: There are not as many names as classes.
    """
    if classes and len(classes) != module.signature.n_classes:
        raise ValueError(f"{len(classes)} names for {module.signature.n_classes} classes")
    architecture = architecture_of(module.config)
    places, lost = architecture.names.places(module, module.signature.task)
    if lost:
        advice = "merge the adapters first: this exports whole models"
        raise UsageError(f"transformers has no counterpart of {lost[0]}", advice=advice)
    if folder.exists():
        raise UsageError("the folder is there already", where=str(folder), advice="choose another, or remove it")
    if architecture.name == "qwen2" and not is_like_qwen(tokenizer):
        what = "transformers reads every tokenizer beside a qwen2 as if it were Qwen's own, and this one is another"
        raise UsageError(what, advice="a gpt without qkv_bias is exported as a llama, whose tokenizer may be any")
    special = special_names(module, tokenizer)
    ids = {f"{role}_id": tokenizer.token_to_id(special[role]) if role in special else None for role in _IN_CONFIG}
    with scratch_folder(folder.parent) as scratch:
        write_json(scratch / "config.json", {**their_config(module, architecture, classes), **ids})
        if module.signature.task == "language-modelling":
            write_json(scratch / "generation_config.json", ids)
        save_tokenizer_files(scratch, module, tokenizer)
        _save_weights(scratch, module, places, max_shard_bytes)
        publish(scratch, folder)


def renamer(module: Model) -> Callable[[str], str]:
    """A function from the path of a module of ours to that of its counterpart in transformers.

    It raises KeyError for a path that has none. For ``danlu.model.peft_format``, whose ``fan_in_fan_out`` is true where
    the architecture is ``gpt2``.

    Args:
        module: The model, with or without adapters.

    Raises:
        UsageError: Transformers has no counterpart of the model.
    """
    return partial(architecture_of(module.config).names.rename, task=module.signature.task)


def _save_weights(folder: Path, module: nn.Module, places: Mapping[str, Place], max_shard_bytes: int) -> None:
    shards: list[dict[str, Place]] = [{}]
    total = filled = 0
    for name, place in places.items():
        n_bytes = sum(module.get_parameter(ours).nbytes for ours in place.ours)
        if shards[-1] and filled + n_bytes > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = place
        filled, total = filled + n_bytes, total + n_bytes
    n, stem = len(shards), WEIGHTS.removesuffix(".safetensors")
    files = [WEIGHTS] if n == 1 else [f"{stem}-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    for file, shard in zip(files, shards, strict=True):
        tensors = {
            name: place.join([module.get_parameter(ours) for ours in place.ours]) for name, place in shard.items()
        }
        save_tensors(tensors, folder / file, about={"format": "pt"})
    if n > 1:
        weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
