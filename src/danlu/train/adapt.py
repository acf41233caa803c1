"""What of a pretrained model is trained: all of it, low-rank adapters beside it, or its head alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from danlu.core.batch import Batch
from danlu.core.config import Config
from danlu.core.errors import UsageError
from danlu.core.seeds import Seeds
from danlu.model.adapters import add_adapters, freeze_all_but_head, initialise_adapters, merge_and_replay
from danlu.model.base import Model
from danlu.model.layers.lora import LoraConfig
from danlu.model.peft_format import save_adapters
from danlu.model.pretrained.config import architecture_of
from danlu.model.pretrained.save import renamer

__all__ = ["AdaptConfig", "adapt", "fold_adapters"]


class AdaptConfig(Config):
    """What is trained of a model that starts from a checkpoint."""

    mode: Literal["full", "lora", "head"] = "full"
    """All weights; low-rank adapters, which are merged into the weights at the end; or the head alone."""
    lora: LoraConfig = LoraConfig()
    """The make of the adapters."""


def adapt(module: Model, config: AdaptConfig, seeds: Seeds) -> None:
    """Freeze what is not to be trained, and put adapters on what is to be adapted.

    Raises:
        UsageError: There is no such layer, or no head with weights of its own.
    """
    if config.mode == "lora":
        add_adapters(module, config.lora)
        initialise_adapters(module, seeds)
    elif config.mode == "head":
        freeze_all_but_head(module)


def fold_adapters(folder: Path, module: Model, batches: Sequence[Batch], config: AdaptConfig) -> dict[str, Any]:
    """Keep the adapters in PEFT's format, fold them into the weights, and say what that changed.

    Args:
        folder: Where the folder ``adapter`` is made.
        module: A trained model with adapters; it has none afterwards.
        batches: Fixed inputs, answered before and after.
        config: What the adapters are.

    Returns:
        ``merge_difference``: the largest absolute difference of a logit.
    """
    (folder / "adapter").mkdir()
    try:
        rename, transposed = renamer(module), architecture_of(module.config).name == "gpt2"
    except UsageError:  # a make of our own, which transformers does not have: the names stay ours
        rename, transposed = str, False
    task = module.signature.task
    save_adapters(module, folder / "adapter", config.lora, rename, task=task, fan_in_fan_out=transposed)
    return {"merge_difference": merge_and_replay(module, batches)}
