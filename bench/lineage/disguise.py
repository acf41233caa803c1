"""Models made to look like others without training: the six transforms of Zhu et al. (2025), rotation, noise.

All but the noise leave every answer as it was; that is checked, and the largest difference of a logit kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch
from scipy.linalg import hadamard
from tokenizers import Tokenizer

from danlu.data.sequences import collate_windows
from danlu.data.tokenizer import SPECIAL
from danlu.model.gpt import Gpt, GptConfig
from derive import Made, Tensors, remade, tensors_of
from plan import Item
from shop import Shop

__all__ = ["DISGUISES"]

_N_CHECKED = 32
"""Texts on which the answers are compared."""
_READS = {"attention_norm": ("attention.q", "attention.k", "attention.v")}
_READS["feedforward_norm"] = ("feedforward.gate", "feedforward.up")
_WRITES = ("attention.out", "feedforward.down")
_HEAD = "head.linear.weight"
_TOKENS = "embedding.tokens.weight"


class _Worked:
    """A model's tensors in float64, to be changed in place, and the randomness for it."""

    def __init__(self, module: Gpt) -> None:
        self.config: GptConfig = module.config
        self.of: Tensors = {name: tensor.double() for name, tensor in tensors_of(module).items()}
        self.draw = torch.Generator().manual_seed(torch.seed())
        self.blocks = [f"blocks.{number}." for number in range(module.config.n_layers)]

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.draw, dtype=torch.float64)

    def order(self, n: int) -> torch.Tensor:
        return torch.randperm(n, generator=self.draw)

    def reads(self, gain: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Replace every gain by another and make up for it in what reads from the norm; the head gets its own."""
        self.of.setdefault(_HEAD, self.of[_TOKENS].clone())
        places = [
            (f"{block}{norm}.weight", [f"{block}{name}.weight" for name in names])
            for block in self.blocks
            for norm, names in _READS.items()
        ]
        for norm, names in (*places, ("norm.weight", [_HEAD])):
            old = self.of[norm]
            self.of[norm] = gain(old)
            for name in names:
                self.of[name] = self.of[name] * (old / self.of[norm])

    def turn(self, rotation: torch.Tensor) -> None:
        """The whole sequence turned; gains must be 1."""
        for block in self.blocks:
            for name in (name for names in _READS.values() for name in names):
                self.of[f"{block}{name}.weight"] = self.of[f"{block}{name}.weight"] @ rotation
            for name in _WRITES:
                self.of[f"{block}{name}.weight"] = rotation.T @ self.of[f"{block}{name}.weight"]
        for name in (_TOKENS, _HEAD):
            self.of[name] = self.of[name] @ rotation


def _t1(work: _Worked) -> None:
    order = work.order(work.config.d_model)
    for name, tensor in work.of.items():
        if name.endswith(("norm.weight", *(f"{part}.weight" for part in _WRITES))):
            work.of[name] = tensor[order]
        else:
            work.of[name] = tensor[:, order]


def _t2(work: _Worked) -> None:
    for block in work.blocks:
        order = work.order(work.config.d_ff)
        for name in ("gate", "up"):
            work.of[f"{block}feedforward.{name}.weight"] = work.of[f"{block}feedforward.{name}.weight"][order]
        down = f"{block}feedforward.down.weight"
        work.of[down] = work.of[down][:, order]


def _t3(work: _Worked) -> None:
    work.reads(torch.ones_like)
    rotation, _ = torch.linalg.qr(work.normal(work.config.d_model, work.config.d_model))
    work.turn(rotation)


def _t4(work: _Worked) -> None:
    """Pairs of channels that rotary positions turn together are turned by an angle of their own."""
    heads, half = work.config.n_heads, work.config.head_width // 2
    for block in work.blocks:
        angles = work.normal(heads, half, 1) * 3
        cos, sin = angles.cos(), angles.sin()
        for name in ("q", "k"):
            matrix = work.of[f"{block}attention.{name}.weight"]
            left, right = matrix.reshape(heads, 2, half, -1).unbind(1)
            turned = torch.stack([left * cos - right * sin, left * sin + right * cos], dim=1)
            work.of[f"{block}attention.{name}.weight"] = turned.reshape(matrix.shape)


def _t5(work: _Worked) -> None:
    work.reads(lambda gain: (0.5 * work.normal(len(gain))).exp())


def _t6(work: _Worked) -> None:
    for block in work.blocks:
        for first, second in (("feedforward.up", "feedforward.down"), ("attention.v", "attention.out")):
            by = work.normal(len(work.of[f"{block}{first}.weight"])).exp()
            work.of[f"{block}{first}.weight"] = work.of[f"{block}{first}.weight"] * by[:, None]
            work.of[f"{block}{second}.weight"] = work.of[f"{block}{second}.weight"] / by


def _together(work: _Worked) -> None:
    for transform in (_t3, _t1, _t5, _t2, _t4, _t6):
        transform(work)


def _hadamard_rotated(work: _Worked) -> None:
    """As before quantisation (Ashkboos et al., 2024): the sequence and every head's values by Hadamard matrices."""
    work.reads(torch.ones_like)
    d_model, heads, width = work.config.d_model, work.config.n_heads, work.config.head_width
    work.turn(_random_hadamard(work, d_model))
    for block in work.blocks:
        values, out = f"{block}attention.v.weight", f"{block}attention.out.weight"
        rotation = _random_hadamard(work, width)
        read = work.of[values].reshape(heads, width, -1)
        work.of[values] = (rotation.T @ read).reshape(work.of[values].shape)
        work.of[out] = (work.of[out].reshape(d_model, heads, width) @ rotation).reshape(work.of[out].shape)


def _random_hadamard(work: _Worked, n: int) -> torch.Tensor:
    signs = work.normal(n).sign()
    return torch.from_numpy(hadamard(n)).double() / n**0.5 * signs


_TRANSFORMS: dict[str, Callable[[_Worked], None]] = {
    "t1": _t1,
    "t2": _t2,
    "t3": _t3,
    "t4": _t4,
    "t5": _t5,
    "t6": _t6,
    "t-all": _together,
    "rotated": _hadamard_rotated,
}


def disguised(shop: Shop, item: Item) -> Made:
    """Another way to write down the same function."""
    module, tokenizer = shop.module(item.on), shop.tokenizer(item.on)
    if item.values["way"] == "reindexed":
        return _reindexed(shop, module, tokenizer)
    work = _Worked(module)
    _TRANSFORMS[item.values["way"]](work)
    made = remade(module, work.of, tie_embeddings=module.config.tie_embeddings and _HEAD not in work.of)
    facts = {"logit_difference": _difference(shop, module, made)}
    return Made(module=made, tokenizer=tokenizer, facts=facts)


def _reindexed(shop: Shop, module: Gpt, tokenizer: Tokenizer) -> Made:
    """All tokens but the special ones with other numbers."""
    tensors, first = tensors_of(module), len(SPECIAL)
    n = len(tensors[_TOKENS])
    order = torch.cat([torch.arange(first), first + torch.randperm(n - first)])  # the new number of every token
    made = json.loads(tokenizer.to_str())
    made["model"]["vocab"] = {token: int(order[number]) for token, number in made["model"]["vocab"].items()}
    for name in (_TOKENS, _HEAD):
        if name in tensors:
            tensors[name] = torch.empty_like(tensors[name]).index_copy_(0, order, tensors[name])
    other, theirs = remade(module, tensors), Tokenizer.from_str(json.dumps(made))
    facts = {"logit_difference": _difference(shop, module, other, order)}
    return Made(module=other, tokenizer=theirs, facts=facts)


def _difference(shop: Shop, module: Gpt, other: Gpt, order: torch.Tensor | None = None) -> float:
    """The largest difference of a logit, on some texts; ``order`` is the other's number of every token."""
    _, rows = shop.asked
    batch = collate_windows(shop.cut("tang", "valid", shop.first_tokenizer), rows[:_N_CHECKED])
    device = next(module.parameters()).device
    with torch.inference_mode():
        plain = module(batch.to(device)).logits
        if order is None:
            return float((other(batch.to(device)).logits - plain).abs().max())
        moved = replace(batch, tokens_BT=order[batch.text[0]])
        return float((other(moved.to(device)).logits[:, order.to(device)] - plain).abs().max())


def noised(shop: Shop, item: Item) -> Made:
    """Noise on every matrix, so many times its standard deviation."""
    module = shop.module(item.on)
    tensors = tensors_of(module)
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            tensors[name] = tensor + item.values["amount"] * tensor.std() * torch.randn_like(tensor)
    return Made(module=remade(module, tensors), tokenizer=shop.tokenizer(item.on))


DISGUISES: dict[str, Callable[[Shop, Item], Made]] = {"disguised": disguised, "noised": noised}
"""What :class:`plan.Item` calls ``how`` -> what does it."""
