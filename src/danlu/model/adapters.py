"""Fine-tune a few weights of a model: adapters on its linear layers, or its head alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.errors import UsageError, nearest
from danlu.core.seeds import Seeds
from danlu.model.layers.heads import ClassificationHead
from danlu.model.layers.lora import LoraConfig, LoraLinear

__all__ = [
    "adapters",
    "add_adapters",
    "freeze_all_but_head",
    "initialise_adapters",
    "linear_layers",
    "merge_adapters",
    "merge_and_replay",
    "short_names",
]


def add_adapters(module: nn.Module, config: LoraConfig) -> list[str]:
    """Put a :class:`LoraLinear` in the place of every linear layer aimed at, and freeze all but adapters and head.

    ``targets: all`` aims at every linear layer in a numbered block, such as ``blocks.0.attention.q``.

    Args:
        module: A model, or any module; it is changed in place. Call :func:`initialise_adapters` next.
        config: Which layers, and how.

    Returns:
        The names of the adapted layers.

    Raises:
        UsageError: A target matches no linear layer, the module has adapters already, or the head is to be trained and
            there is none.
    """
    if adapters(module):
        raise UsageError("the model has adapters already", advice="merge them first (merge_adapters)")
    layers = linear_layers(module)
    names = _targeted(layers, config)
    names_classes = isinstance(getattr(module, "head", None), ClassificationHead)
    head = _head(module) if config.train_head or (config.train_head is None and names_classes) else None
    module.requires_grad_(False)
    if head is not None:
        head.requires_grad_(True)
    for name in names:
        layer = layers[name]
        assert isinstance(layer, nn.Linear)
        module.set_submodule(name, LoraLinear(layer, config))
    return names


def initialise_adapters(module: nn.Module, seeds: Seeds) -> None:
    """Set A of every adapter, and B to zero; like :func:`danlu.model.init.initialise`, from the seed and the name.

    A is uniform within 1/sqrt(fan-in) of 0: what PEFT draws (He et al., 2015, with a slope of sqrt(5)).

    Args:
        module: A module with adapters; their matrices are changed in place, and nothing else.
        seeds: The run's seeds.
    """
    with torch.no_grad():
        for name, layer in adapters(module).items():
            weight = layer.lora_A.weight
            bound = 1 / math.sqrt(weight.shape[1])
            drawn = seeds.generator("init", f"{name}.lora_A.weight").uniform(-bound, bound, weight.shape)
            weight.copy_(torch.from_numpy(drawn))
            layer.lora_B.weight.zero_()


def freeze_all_but_head(module: nn.Module) -> None:
    """Train the head alone: a linear probe of what the model has learnt before.

    Raises:
        UsageError: The module has no head with weights of its own.
    """
    head = _head(module)
    module.requires_grad_(False)
    head.requires_grad_(True)


def adapters(module: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers of a module by name, in order."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLinear)}


def linear_layers(module: nn.Module) -> dict[str, nn.Linear | LoraLinear]:
    """The linear layers of a module that can have adapters, by name, in order; one with an adapter counts as one.

    A head is left out: a new one is trained in full, and one that scores tokens is read, not called. So are subclasses
    of a linear layer, for the same reason (torch's own attention).
    """
    left_out = ("head.", *(f"{name}." for name in adapters(module)))
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, LoraLinear) or (type(layer) is nn.Linear and not f"{name}.".startswith(left_out))
    }


def merge_adapters(module: nn.Module) -> list[str]:
    """Fold every adapter into its layer: ordinary linear layers are left, and nothing is frozen any more.

    Returns:
        The names of the layers.
    """
    found = adapters(module)
    for name, layer in found.items():
        module.set_submodule(name, layer.fold())
    module.requires_grad_(True)
    return list(found)


def merge_and_replay(module: nn.Module, batches: Sequence[Batch]) -> float:
    """Fold every adapter into its layer, and measure what that changes.

    Args:
        module: A model with adapters.
        batches: Fixed inputs, answered before and after without dropout.

    Returns:
        The largest absolute difference of a logit. It is rounding: about 1e-6 to 1e-5 of the logits in float32.

    Raises:
        ValueError: There are no batches, or no adapters.
    """
    if not batches or not adapters(module):
        raise ValueError("a replay needs adapters and at least one batch")
    training = module.training
    module.eval()
    before = _logits(module, batches)
    merge_adapters(module)
    after = _logits(module, batches)
    module.train(training)
    return float(torch.stack([(old - new).abs().max() for old, new in zip(before, after, strict=True)]).max())


def short_names(names: Iterable[str], layers: Mapping[str, object]) -> tuple[str, ...]:
    """The shortest targets that aim at these layers and no others: ``attention.q`` where it is of every block."""
    wanted = set(names)
    short = {_in_block(name) for name in wanted}
    aimed = {name for name in layers for target in short if _matches(name, target)}
    return tuple(sorted(short if aimed == wanted else wanted))


def _targeted(layers: Mapping[str, object], config: LoraConfig) -> list[str]:
    if config.targets == "all":
        names = [name for name in layers if re.search(r"\.\d+\.", f".{name}.")]
        if not names:
            what = "this model has no linear layers in blocks to put adapters on"
            raise UsageError(what, where="targets", advice="train it in full, or its head alone")
        return names
    for target in config.targets:
        if not any(_matches(name, target) for name in layers):
            advice = nearest(target, {_in_block(name) for name in layers})
            raise UsageError(f"no linear layer is called {target!r}", where="targets", advice=advice)
    return [name for name in layers if any(_matches(name, target) for target in config.targets)]


def _matches(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _in_block(name: str) -> str:
    """A layer's name within its block: ``blocks.0.attention.q`` -> ``attention.q``."""
    return re.sub(r"^.*\.\d+\.", "", f".{name}").removeprefix(".")


def _head(module: nn.Module) -> nn.Module:
    head = getattr(module, "head", None)
    if not isinstance(head, nn.Module) or next(head.parameters(), None) is None:
        raise UsageError("this model has no head to train", advice="train it in full, or by adapters alone")
    return head


def _logits(module: nn.Module, batches: Sequence[Batch]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [module(batch).logits for batch in batches]
