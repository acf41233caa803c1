"""Models for audits: drawn, as good as trained by noise of their own, and derived from each other in every way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers import models as kinds
from tokenizers.pre_tokenizers import Whitespace

from danlu.core.seeds import Seeds
from danlu.model.base import Model, Signature
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.module import save_module

__all__ = ["SIGNATURE", "D", "L", "derive", "drawn", "folder_of", "permuted", "rotated", "trained"]

D, V, F, H, L = 64, 400, 96, 4, 3
SIGNATURE = Signature(task="language-modelling", vocab_size=V)


def drawn(seed: str, **changes: object) -> Gpt:
    """A model as a seed draws it."""
    sizes = {"d_model": D, "n_layers": L, "n_heads": H, "d_ff": F, "max_len": 32}
    model = Gpt(GptConfig(family="gpt", **(sizes | changes)), SIGNATURE)
    initialise(model, Seeds.new(seed))
    return model


def trained(model: Model, amount: float, seed: int) -> Model:
    """Noise on every matrix, so many times its spread, and gains that are no longer 1: what a training leaves."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.add_(noise * (amount * parameter.std() if parameter.ndim > 1 else 0.1))
    return model


def derive(change: Callable[[dict[str, torch.Tensor]], None], model: Model) -> Model:
    """A copy of which the tensors are changed."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(tensors)
    copy = Gpt(model.config, model.signature)  # type: ignore[arg-type]  # they are all of this family
    copy.load_state_dict(tensors)
    return copy


def permuted(tensors: dict[str, torch.Tensor]) -> None:
    """Hidden units in another order; the model computes the same."""
    for block in range(L):
        order = torch.randperm(F, generator=torch.Generator().manual_seed(block))
        prefix = f"blocks.{block}.feedforward."
        for name in ("gate", "up"):
            tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"][order]
        tensors[f"{prefix}down.weight"] = tensors[f"{prefix}down.weight"][:, order]


def rotated(tensors: dict[str, torch.Tensor], n_layers: int = L) -> None:
    """The sequence turned, gains folded into what reads it, units scaled; the model computes the same."""
    turn, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5)))
    for block in range(n_layers):
        prefix = f"blocks.{block}."
        reads = {"attention_norm": ("attention.q", "attention.k", "attention.v")}
        reads["feedforward_norm"] = ("feedforward.gate", "feedforward.up")
        for norm, names in reads.items():
            gain = tensors[f"{prefix}{norm}.weight"]
            for name in names:
                tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"] * gain @ turn
            tensors[f"{prefix}{norm}.weight"] = torch.ones(D)
        for name in ("attention.out", "feedforward.down"):
            tensors[f"{prefix}{name}.weight"] = turn.T @ tensors[f"{prefix}{name}.weight"]
    tensors["embedding.tokens.weight"] = tensors["embedding.tokens.weight"] @ turn


def folder_of(path: Path, model: Model, words: int = V) -> Path:
    """A folder with a model and a tokenizer."""
    path.mkdir(parents=True)
    save_module(path, model)
    tokenizer = Tokenizer(kinds.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    return path
