"""What may be done to a model, and what may be done to hide it, for tests of what the audit makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from audit_models import D, F, H, derive, drawn, rotated, trained
from danlu.model.base import Model

__all__ = ["DISGUISES", "WAYS"]

Tensors = dict[str, torch.Tensor]
Way = Callable[[Model], Model]
K = D // H


def in_blocks(change: Callable[[torch.Tensor], torch.Tensor]) -> Way:
    """A change of every matrix of the blocks."""

    def change_all(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if tensor.ndim == 2 and name.startswith("blocks."):
                tensors[name] = change(tensor)

    return lambda model: derive(change_all, model)


def cast(model: Model) -> Model:
    return derive(lambda t: t.update({name: x.bfloat16().float() for name, x in t.items()}), model)


def to_grid(matrix: torch.Tensor, bits: int, group: int | None = None) -> torch.Tensor:
    groups = matrix.reshape(-1, group or matrix.shape[1])
    step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((groups / step).round() * step).reshape(matrix.shape)


def pruned(share: float) -> Way:
    def small_ones_out(matrix: torch.Tensor) -> torch.Tensor:
        most = matrix.abs().flatten().kthvalue(int(share * matrix.numel())).values
        return torch.where(matrix.abs() > most, matrix, 0.0)

    return in_blocks(small_ones_out)


def low_rank(rank: int) -> Way:
    def add(matrix: torch.Tensor) -> torch.Tensor:
        draw = torch.Generator().manual_seed(len(matrix))
        a, b = (torch.randn(n, rank, generator=draw) for n in matrix.shape)
        return matrix + 0.1 * matrix.std() / rank**0.5 * a @ b.T

    return in_blocks(add)


def tuned(amount: float) -> Way:
    """A difference in every direction, but in some far more than in others: what steps of a training add up to."""

    def add(matrix: torch.Tensor) -> torch.Tensor:
        draw = torch.Generator().manual_seed(len(matrix))
        n = min(matrix.shape)
        a, b = (torch.randn(size, n, generator=draw) for size in matrix.shape)
        change = a / torch.arange(1, n + 1) @ b.T
        return matrix + amount * matrix.std() / change.std() * change

    return in_blocks(add)


def noisy(amount: float) -> Way:
    """Noise on every matrix, so many times its spread."""
    draw = torch.Generator().manual_seed(77)

    def add(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if tensor.ndim == 2:
                tensors[name] = tensor + amount * tensor.std() * torch.randn(tensor.shape, generator=draw)

    return lambda model: derive(add, model)


def of_blocks(origins: tuple[int, ...]) -> Way:
    def build(model: Model) -> Model:
        made = drawn("depth", n_layers=len(origins))
        theirs, tensors = model.state_dict(), {}
        for name in made.state_dict():
            head, number, *rest = name.split(".")
            ours = ".".join(["blocks", str(origins[int(number)]), *rest]) if head == "blocks" else name
            tensors[name] = theirs[ours].clone()
        made.load_state_dict(tensors)
        return made

    return build


def stolen(*parts: str) -> Way:
    """Only what one part holds; all else is another model's."""

    def build(model: Model) -> Model:
        other = trained(drawn("elsewhere"), 1.0, 5)
        own = {name: tensor for name, tensor in model.state_dict().items() if any(part in name for part in parts)}
        return derive(lambda tensors: tensors.update(own), other)

    return build


def merged(model: Model) -> Model:
    one, two = (trained(derive(lambda _: None, model), 0.3, n) for n in (31, 32))
    return derive(lambda t: t.update({n: 0.6 * x + 0.4 * two.state_dict()[n] for n, x in t.items()}), one)


def reordered(model: Model) -> Model:
    """Hidden units, channels of values and heads in another order."""

    def change(tensors: Tensors) -> None:
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
        for block in blocks:
            draw = torch.Generator().manual_seed(block)
            order = torch.randperm(F, generator=draw)
            heads = torch.randperm(H, generator=draw)
            values = torch.cat([head * K + torch.randperm(K, generator=draw) for head in heads])
            queries = (heads[:, None] * K + torch.arange(K)).flatten()
            prefix = f"blocks.{block}."
            for name, rows in (("gate", order), ("up", order), ("v", values), ("q", queries), ("k", queries)):
                key = f"{prefix}{'feedforward' if name in ('gate', 'up') else 'attention'}.{name}.weight"
                tensors[key] = tensors[key][rows]
            for name, columns in (("feedforward.down", order), ("attention.out", values)):
                key = f"{prefix}{name}.weight"
                tensors[key] = tensors[key][:, columns]

    return derive(change, model)


def turned(model: Model) -> Model:
    return derive(lambda tensors: rotated(tensors, model.config.n_layers), model)


def rescaled(model: Model) -> Model:
    def change(tensors: Tensors) -> None:
        for block in range(model.config.n_layers):
            draw = torch.Generator().manual_seed(block)
            for reads, writes in (("feedforward.up", "feedforward.down"), ("attention.v", "attention.out")):
                a, b = (f"blocks.{block}.{name}.weight" for name in (reads, writes))
                by = torch.rand(len(tensors[a]), generator=draw) * 3 + 0.3
                tensors[a], tensors[b] = tensors[a] * by[:, None], tensors[b] / by

    return derive(change, model)


def everything(model: Model) -> Model:
    return rescaled(turned(reordered(model)))


DISGUISES: dict[str, tuple[Way, set[str]]] = {
    "": (lambda model: model, set()),
    "reordered": (reordered, {"reordered"}),
    "rotated": (turned, {"rotated"}),
    "rescaled": (rescaled, {"rescaled"}),
    "everything": (everything, {"reordered", "rotated", "rescaled"}),
}

WAYS: dict[str, tuple[Way, tuple[str, ...]]] = {
    "copy": (lambda model: derive(lambda _: None, model), ("identical",)),
    "cast": (cast, ("repackaged",)),
    "int8 by row": (in_blocks(lambda m: to_grid(m, 8)), ("quantised",)),
    "int4 by row": (in_blocks(lambda m: to_grid(m, 4)), ("quantised",)),
    "int4 in groups": (in_blocks(lambda m: to_grid(m, 4, 32)), ("quantised",)),
    "fp8": (in_blocks(lambda m: m.to(torch.float8_e4m3fn).float()), ("quantised",)),
    "pruned 50%": (pruned(0.5), ("pruned",)),
    "pruned 70%": (pruned(0.7), ("pruned",)),
    "pruned 90%": (pruned(0.9), ("pruned",)),
    "LoRA r=4": (low_rank(4), ("LoRA merged",)),
    "LoRA r=12": (low_rank(12), ("LoRA merged",)),
    "fine-tuned": (tuned(0.05), ("trained further",)),
    "fine-tuned, noise 0.05": (lambda model: noisy(0.05)(tuned(0.05)(model)), ("trained further",)),
    "noise 0.1": (noisy(0.1), ("noise added",)),
    "noise 0.5": (noisy(0.5), ("noise added",)),
    "noise 1": (noisy(1.0), ("noise added",)),
    "merged": (merged, ("merged",)),
    "block taken out": (of_blocks((0, 2)), ("depth changed",)),
    "block repeated": (of_blocks((0, 1, 1, 2)), ("depth changed",)),
    "feed-forward only": (stolen("feedforward"), ("partial",)),
    "attention only": (stolen("attention"), ("partial",)),
    "embeddings only": (stolen("embedding."), ("partial",)),
}
