"""The small models that the stories are told with: trained for seconds, derived as the accusations have it.

DIR/bases/<base>/      a workspace each, as in the benchmark
DIR/artifacts/model/   what was made of them
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from danlu.core.files import digest_of, write_json
from danlu.model.gpt import Gpt
from danlu.model.layers.feedforward import FeedForward
from danlu.model.pretrained.save import save_pretrained
from danlu.model.weights import save_tensors
from derive import DERIVED, Made, remade, tensors_of
from disguise import DISGUISES
from learn import TRAINED, train_base, train_further
from plan import Item, Scale
from shop import Shop

__all__ = ["CONTROLS", "MODELS", "SIBLINGS", "StoryShop", "publish", "with_run"]

SIBLINGS = ("sibling-1", "sibling-2", "sibling-3")
"""Of the reference's recipe and data, each of another seed."""
CONTROLS = ("unrelated-1", "unrelated-2", "unrelated-3", "unrelated-4")
"""Of the reference's sizes, of other data and with a tokenizer of their own."""
_SCALE = Scale(
    sizes={"d_model": 64, "n_layers": 6, "n_heads": 4, "d_ff": 96},
    vocab_size=1000,
    steps=150,
    batch_tokens=2048,
    n_siblings=len(SIBLINGS),
    references=("reference",),
    n_asked=64,
)
_N_EXPERTS = 4
_N_CHOSEN = 2
"""Experts that see a token."""


def _base(name: str, data: str = "tang", tokenizer: str = "char", **values: Any) -> Item:
    told = {"data": data, "tokenizer": tokenizer, **values}
    return Item(name=name, group="base", label=name, how="base", values=told, base=name)


def _made(name: str, how: str, on: str = "reference", **values: Any) -> Item:
    return Item(name=name, group="derivation", label=name, how=how, values=values, base="reference", on=on)


MODELS = {
    item.name: item
    for item in (
        _base("reference"),
        *(_base(name) for name in SIBLINGS),
        *(
            _base(name, data, "char-bpe")
            for name, data in zip(CONTROLS, ("song", "song-2", "song-3", "song"), strict=True)
        ),
        _base("independent", "song", "char-bpe"),
        _base("body"),
        _made("spread", "spread", "independent", like="reference", r=0.927),
        _made("fine-tuned", "tuned", length=0.2, data="song", rate=3e-4),
        _made("noised", "noised", amount=0.2),
        _made("transplanted", "transplanted", part="ff", donor="body"),
        _made("transplanted-tuned", "tuned", "transplanted", length=0.2, data="song", rate=3e-4),
        _made("experts", "upcycled-tuned", length=0.3, data="song"),
        _made("quantised", "quantised", "fine-tuned", kind="int4"),
    )
}
"""Name -> how it is made."""


class StoryShop(Shop):
    """A benchmark's folder with the models of the stories.

    Args:
        folder: Where everything is.
        data: The folder of its datasets.
        steps: Steps that a base is trained for; None: as many as the pages were made with.
    """

    def __init__(self, folder: Path, data: Path, steps: int | None = None) -> None:
        super().__init__(folder, "small", data, steps or _SCALE.steps)
        self.scale, self.items = _SCALE, dict(MODELS)

    def path(self, name: str) -> Path:
        """The folder of a model, which is made if it is not there."""
        if self.find(name) is None:
            self._make(self.items[name])
        return super().path(name)

    def _make(self, item: Item) -> None:
        if item.how == "base":
            train_base(self, item)
            return
        made = _HOW[item.how](self, item)  # asks for what it is made of, which is made before
        needs = sorted({item.on} | {item.values[role] for role in ("donor", "like") if role in item.values})
        parents = {need: found.digest for need in needs if (found := self.find(need)) is not None}
        config = {"how": item.how, "values": dict(item.values), "steps": self.steps}
        key = digest_of({"config": config, "parents": parents})
        with self.workspace.create("model", item.name, key=key, config=config, parents=parents) as draft:
            made.module.cpu()
            made.save(draft.folder)


def publish(
    module: Gpt,
    tokenizer: Tokenizer,
    folder: Path,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a vendor publishes it, in Hugging Face layout.

    Args:
        module: The model.
        tokenizer: Its tokenizer.
        folder: Where; it may be there, empty.
        names: Part of a tensor's name -> what the vendor calls it.
        about: Values of ``config.json`` that the vendor changes.
    """
    if folder.exists():
        folder.rmdir()
    save_pretrained(module, tokenizer, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, **(about or {})})
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for theirs, other in (names or {}).items():
            name = name.replace(theirs, other)
        tensors[name] = tensor
    save_tensors(tensors, folder / "model.safetensors")


class _Experts(nn.Module):
    """Copies of a feed-forward part behind a drawn router (sparse upcycling: Komatsuzaki et al., 2023)."""

    def __init__(self, part: FeedForward, d_model: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList(copy.deepcopy(part) for _ in range(_N_EXPERTS))
        self.router = nn.Linear(d_model, _N_EXPERTS, bias=False)
        nn.init.normal_(self.router.weight, std=0.02)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the chosen experts; ``[B, T, D]`` in and out. All are computed: they are tiny."""
        best, chosen = self.router(x_BTD).topk(_N_CHOSEN, dim=-1)
        shares = torch.zeros(*x_BTD.shape[:2], _N_EXPERTS, device=x_BTD.device)
        shares = shares.scatter(-1, chosen, F.softmax(best, dim=-1))
        out: torch.Tensor = sum(shares[..., number, None] * expert(x_BTD) for number, expert in enumerate(self.experts))
        return out


def _upcycled_tuned(shop: Shop, item: Item) -> Made:
    """Experts made of a dense model and trained, so that they differ; in the layout of Mixtral."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    dense = copy.deepcopy(module)
    for block in module.blocks:
        block.feedforward = _Experts(block.feedforward, module.config.d_model)
    train_further(shop, module, tokenizer, item)
    trained = tensors_of(module)
    plain = {name: trained.get(name, tensor) for name, tensor in tensors_of(dense).items()}

    def write(folder: Path) -> None:
        inner = folder / "model"
        about = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        sizes = {"num_local_experts": _N_EXPERTS, "num_experts_per_tok": _N_CHOSEN}
        publish(remade(dense, plain), tokenizer, inner, about={**about, **sizes})
        kept = {name: each for name, each in load_file(inner / "model.safetensors").items() if ".mlp." not in name}
        save_tensors(kept | _as_mixtral(trained), inner / "model.safetensors")
        for path in inner.iterdir():
            path.rename(folder / path.name)
        inner.rmdir()

    return Made(module=dense, tokenizer=tokenizer, write=write)


def _as_mixtral(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Experts and routers under the names that Mixtral has for them."""
    names, found = {"gate": "w1", "down": "w2", "up": "w3"}, {}
    for name, tensor in trained.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.feedforward\.experts\.(\d+)\.(\w+)\.weight", name):
            layer, expert, part = match.groups()
            found[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{names[part]}.weight"] = tensor
        elif match := re.fullmatch(r"blocks\.(\d+)\.feedforward\.router\.weight", name):
            found[f"model.layers.{match[1]}.block_sparse_moe.gate.weight"] = tensor
    return found


def _spread(shop: Shop, item: Item) -> Made:
    """Attention matrices scaled, so that their spreads over the blocks correlate with those of another model."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    tensors, theirs, r = tensors_of(module), tensors_of(shop.module(item.values["like"])), item.values["r"]
    for part in ("q", "k", "v", "out"):
        names = [f"blocks.{block}.attention.{part}.weight" for block in range(module.config.n_layers)]
        own, goal = (torch.stack([each[name].std() for name in names]) for each in (tensors, theirs))
        own_away, goal_away = own - own.mean(), goal - goal.mean()
        along = goal_away / goal_away.norm()
        across = own_away - (own_away @ along) * along
        away = (r * along + (1 - r**2) ** 0.5 * across / across.norm()) * goal_away.norm()
        for name, spread, before in zip(names, own.mean() + away, own, strict=True):
            tensors[name] = tensors[name] * (spread / before)
    return Made(module=remade(module, tensors), tokenizer=tokenizer)


_HOW: dict[str, Callable[[Shop, Item], Made]] = {
    **DERIVED,
    **DISGUISES,
    **TRAINED,
    "spread": _spread,
    "upcycled-tuned": _upcycled_tuned,
}
"""What :class:`plan.Item` calls ``how`` -> what does it."""


def with_run(shop: StoryShop, base: str, folder: Path, workspace: Path, data: bool) -> None:
    """A base as its owner has it: the model, and the seeds of its run; with its dataset or without."""
    shutil.copytree(shop.path(base), folder)
    theirs = shop.workspace_of(base)
    for path in theirs.runs.iterdir():
        shutil.copytree(path, workspace / "runs" / path.name)
    if data:
        dataset = shop.datasets[shop.items[base].values["data"]]
        shutil.copytree(dataset.path, workspace / "artifacts" / "dataset" / dataset.path.name)
