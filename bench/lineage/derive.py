"""Models derived without training: copied, rounded, pruned, restacked, merged, or taken over in part."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from danlu.core.files import write_json
from danlu.data.tokenizer import save_tokenizer
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.module import save_module
from danlu.model.pretrained.save import save_pretrained
from danlu.model.weights import save_tensors
from plan import Item
from shop import Shop

__all__ = ["DERIVED", "Made", "Tensors", "remade", "tensors_of"]

Tensors = dict[str, torch.Tensor]
_GROUP = 32
"""Numbers that share a scale, in four bits."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A model that was made.

    Attributes:
        module: It.
        tokenizer: Its tokenizer.
        write: Writes it into an empty folder, once the module is on the CPU; None: as danlu does.
        facts: What was measured.
    """

    module: Gpt
    tokenizer: Tokenizer
    write: Callable[[Path], None] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it."""
        if self.write is not None:
            self.write(folder)
            return
        save_module(folder, self.module)
        save_tokenizer(folder / "tokenizer.json", self.tokenizer)


def tensors_of(module: Gpt) -> Tensors:
    """A copy of a model's tensors, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def remade(like: Gpt, tensors: Tensors, **changes: Any) -> Gpt:
    """A model of a changed make with these tensors, on the device of another."""
    config = GptConfig(**{**like.config.plain(), **changes})
    module = Gpt(config, like.signature)
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return module.to(next(like.parameters()).device).eval()


def _changed(shop: Shop, item: Item, change: Callable[[torch.Tensor], torch.Tensor]) -> Made:
    """Every matrix changed."""
    module = shop.module(item.on)
    tensors = {name: change(each) if each.ndim == 2 else each for name, each in tensors_of(module).items()}
    return Made(module=remade(module, tensors), tokenizer=shop.tokenizer(item.on))


def copied(shop: Shop, item: Item) -> Made:
    """The same once more."""
    return Made(module=shop.module(item.on), tokenizer=shop.tokenizer(item.on))


def renamed(shop: Shop, item: Item) -> Made:
    """In Hugging Face layout, in several files, and tensors not called as there: the names that some vendor chose."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)

    def write(folder: Path) -> None:
        inner = folder / "model"
        save_pretrained(module, tokenizer, inner, max_shard_bytes=sum(p.nbytes for p in module.parameters()) // 3)
        index = json.loads((inner / "model.safetensors.index.json").read_text(encoding="utf-8"))
        index["weight_map"] = {_alias(name): file for name, file in index["weight_map"].items()}
        for path in inner.glob("*.safetensors"):
            save_tensors({_alias(name): tensor for name, tensor in load_file(path).items()}, path)
        write_json(inner / "model.safetensors.index.json", index)
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()

    return Made(module=module, tokenizer=tokenizer, write=write)


_ALIASES = (
    ("input_layernorm", "ln1"),
    ("post_attention_layernorm", "ln2"),
    ("model.layers", "decoder.stack"),
    ("self_attn", "mixer"),
    ("mlp", "expander"),
)


def _alias(name: str) -> str:
    for theirs, other in _ALIASES:
        name = name.replace(theirs, other)
    return name


def cast(shop: Shop, item: Item) -> Made:
    """In half the precision."""
    kind = {"bfloat16": torch.bfloat16}[item.values["kind"]]
    made = _changed(shop, item, lambda tensor: tensor.to(kind).float())
    tensors = {name: tensor.to(kind) for name, tensor in tensors_of(made.module).items()}
    module = remade(made.module, tensors)

    def write(folder: Path) -> None:
        save_module(folder, module)
        save_tensors(tensors, folder / "model.safetensors")
        save_tokenizer(folder / "tokenizer.json", made.tokenizer)

    return Made(module=module, tokenizer=made.tokenizer, write=write)


def quantised(shop: Shop, item: Item) -> Made:
    """Rounded to a grid, and written out again."""
    return _changed(shop, item, {"int8": _int8, "int4": _int4, "fp8": _fp8}[item.values["kind"]])


def _int8(matrix: torch.Tensor) -> torch.Tensor:
    step = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    return (matrix / step).round() * step


def _int4(matrix: torch.Tensor) -> torch.Tensor:
    groups = matrix.reshape(-1, _GROUP)
    step = groups.abs().amax(1, keepdim=True).clamp(min=1e-12) / 7
    return ((groups / step).round() * step).reshape(matrix.shape)


def _fp8(matrix: torch.Tensor) -> torch.Tensor:
    scale = matrix.abs().amax(1, keepdim=True).clamp(min=1e-12) / 448
    return (matrix / scale).to(torch.float8_e4m3fn).float() * scale


def pruned(shop: Shop, item: Item) -> Made:
    """The smallest numbers of every matrix set to zero."""
    share = item.values["share"]

    def prune(matrix: torch.Tensor) -> torch.Tensor:
        least = matrix.abs().flatten().kthvalue(int(share * matrix.numel())).values
        return matrix * (matrix.abs() > least)

    return _changed(shop, item, prune)


def narrowed(shop: Shop, item: Item) -> Made:
    """The hidden units with the smallest vectors left out."""
    module = shop.module(item.on)
    tensors, n = tensors_of(module), round(module.config.d_ff * (1 - item.values["share"]))
    for block in range(module.config.n_layers):
        gate, up, down = (f"blocks.{block}.feedforward.{name}.weight" for name in ("gate", "up", "down"))
        size = tensors[gate].norm(dim=1) * tensors[up].norm(dim=1) * tensors[down].norm(dim=0)
        kept = size.topk(n).indices.sort().values
        tensors |= {gate: tensors[gate][kept], up: tensors[up][kept], down: tensors[down][:, kept]}
    return Made(module=remade(module, tensors, d_ff=n), tokenizer=shop.tokenizer(item.on))


def restacked(shop: Shop, item: Item) -> Made:
    """Blocks left out or repeated."""
    module, blocks = shop.module(item.on), item.values["blocks"]
    old = tensors_of(module)
    tensors = {name: tensor for name, tensor in old.items() if not name.startswith("blocks.")}
    for number, origin in enumerate(blocks):
        prefix = f"blocks.{origin}."
        mine = {name.removeprefix(prefix): tensor for name, tensor in old.items() if name.startswith(prefix)}
        tensors |= {f"blocks.{number}.{name}": tensor for name, tensor in mine.items()}
    return Made(module=remade(module, tensors, n_layers=len(blocks)), tokenizer=shop.tokenizer(item.on))


def upcycled(shop: Shop, item: Item) -> Made:
    """Every feed-forward part several times over behind a drawn router, in the layout of Mixtral."""
    module, tokenizer, n = shop.module(item.on), shop.tokenizer(item.on), item.values["n_experts"]

    def write(folder: Path) -> None:
        inner = folder / "model"
        save_pretrained(module, tokenizer, inner)
        config = json.loads((inner / "config.json").read_text(encoding="utf-8"))
        about = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        write_json(inner / "config.json", config | about | {"num_local_experts": n, "num_experts_per_tok": 2})
        tensors, made = load_file(inner / "model.safetensors"), Tensors()
        names = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
        for name, tensor in tensors.items():
            match = re.fullmatch(r"(model\.layers\.\d+)\.mlp\.(\w+)\.weight", name)
            if match is None:
                made[name] = tensor
                continue
            place = f"{match[1]}.block_sparse_moe"
            for expert in range(n):
                made[f"{place}.experts.{expert}.{names[match[2]]}.weight"] = tensor.clone()
            made[f"{place}.gate.weight"] = torch.randn(n, module.config.d_model) * 0.02
        save_tensors(made, inner / "model.safetensors")
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()

    return Made(module=module, tokenizer=tokenizer, write=write)


def merged(shop: Shop, item: Item) -> Made:
    """Several descendants of one base as one: linear, on the sphere (SLERP), or by agreement of signs (TIES)."""
    parents, weights = tuple(item.truth.weights), item.values["weights"]
    module = shop.module(item.base)
    base = tensors_of(module)
    each = [tensors_of(shop.module(parent)) for parent in parents]
    way = {"linear": _linear, "slerp": _slerp, "ties": _ties}[item.values["way"]]
    tensors = {name: way(base[name], [tensors[name] for tensors in each], weights) for name in base}
    return Made(module=remade(module, tensors), tokenizer=shop.tokenizer(item.base))


def _linear(_base: torch.Tensor, each: list[torch.Tensor], weights: tuple[float, ...]) -> torch.Tensor:
    return sum((weight * tensor for weight, tensor in zip(weights, each, strict=True)), torch.zeros_like(each[0]))


def _slerp(_base: torch.Tensor, each: list[torch.Tensor], weights: tuple[float, ...]) -> torch.Tensor:
    """Along the great circle between two tensors (Shoemake, 1985), lengths interpolated with them."""
    first, second = each
    cosine = (first * second).sum() / (first.norm() * second.norm())
    angle = cosine.clamp(-1, 1).acos()
    if float(angle) < 1e-4:
        return _linear(first, each, weights)
    return ((weights[0] * angle).sin() * first + (weights[1] * angle).sin() * second) / angle.sin()


def _ties(base: torch.Tensor, each: list[torch.Tensor], weights: tuple[float, ...]) -> torch.Tensor:
    """Trim, elect a sign, merge what agrees (Yadav et al., 2023); half of every difference is kept."""
    trimmed = []
    for tensor in each:
        change = tensor - base
        least = change.abs().flatten().kthvalue(max(1, change.numel() // 2)).values
        trimmed.append(change * (change.abs() >= least))
    changes = torch.stack(trimmed)
    shares = torch.tensor(weights).reshape(-1, *[1] * base.ndim)
    sign = (shares * changes).sum(0).sign()
    agrees = (changes.sign() == sign) & (changes != 0)
    total = (agrees * shares).sum(0)
    return base + (agrees * shares * changes).sum(0) / total.clamp(min=1e-12)


_PARTS = {"ff": ".feedforward", "attention": ".attention", "embeddings": "embedding."}


def transplanted(shop: Shop, item: Item) -> Made:
    """One kind of part of the base in the body of another model."""
    donor = shop.module(item.values["donor"])
    tensors, theirs, part = tensors_of(donor), tensors_of(shop.module(item.on)), _PARTS[item.values["part"]]
    tensors |= {name: tensor for name, tensor in theirs.items() if part in name}
    return Made(module=remade(donor, tensors), tokenizer=shop.tokenizer(item.on))


DERIVED: dict[str, Callable[[Shop, Item], Made]] = {
    "copy": copied,
    "renamed": renamed,
    "cast": cast,
    "quantised": quantised,
    "pruned": pruned,
    "narrowed": narrowed,
    "restacked": restacked,
    "upcycled": upcycled,
    "merged": merged,
    "transplanted": transplanted,
}
"""What :class:`plan.Item` calls ``how`` -> what does it."""
