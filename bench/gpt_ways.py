"""The ways to train a GPT that gpt_training.py lets take turns: danlu, transformers, LitGPT, and matrix products."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.data.sequences import Windows, collate_windows
from danlu.model.base import Signature
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.train.config import TrainConfig
from danlu.train.engine import Engine, Training
from turns import Turn

__all__ = ["SIZE", "SQUARES", "STYLES", "WAYS", "Asked", "B", "Named", "T", "V", "make_model"]

V, B, T = 4096, 8, 256
SIZE: dict[str, Any] = {"d_model": 384, "n_layers": 6, "n_heads": 6, "max_len": T}
STYLES: dict[str, dict[str, Any]] = {
    "llama": {"d_ff": 1024},
    "gpt2": {"d_ff": 1536, "positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True},
}
"""As many weights in both: what SwiGLU has in three matrices GPT-2 has in two."""
CONFIG = TrainConfig(optimizer="adamw", learning_rate=3e-4, clip_norm=1.0)
SQUARES = (512, 1024, 2048)
N_REPEATS = 8
"""Times that a product is taken in a turn."""


@dataclass(frozen=True)
class Asked:
    """What every way is asked.

    Attributes:
        folder: Has the tokens, and the model of each style in Hugging Face layout.
        n_steps: Steps of a turn.
    """

    folder: Path
    n_steps: int

    def windows(self) -> np.ndarray:
        """int64 ``[n, T + 1]``."""
        return np.load(self.folder / "tokens.npy").astype(np.int64)

    def rows(self, number: int, n_windows: int) -> list[np.ndarray]:
        """Which windows make the batches of a turn."""
        steps = range(number * self.n_steps, (number + 1) * self.n_steps)
        return [np.arange(step * B, (step + 1) * B) % n_windows for step in steps]


def make_model(style: str) -> Gpt:
    module = Gpt(
        GptConfig(family="gpt", **SIZE, **STYLES[style]),
        Signature(task="language-modelling", vocab_size=V, mask_token=4, begin_token=2, end_token=3),
    )
    initialise(module, Seeds.new("training"))
    return module


class Feed:
    """Batches as the language task cuts them."""

    n_steps = 0
    evaluate_after: frozenset[int] = frozenset()

    def __init__(self, windows: np.ndarray) -> None:
        n = len(windows)
        starts, lengths = np.arange(n) * (T + 1), np.full(n, T)
        self._windows = Windows(
            windows.astype(np.int32).ravel(), starts, lengths, np.zeros(n, np.int64), texts=np.arange(n)
        )

    def batch(self, step: int) -> Batch:
        """The windows of a step."""
        return collate_windows(self._windows, np.arange(step * B, (step + 1) * B) % len(self._windows.starts))


def by_danlu(asked: Asked, style: str, compiled: bool = False) -> tuple[dict[str, Any], Turn]:
    """A step as the training loop takes it."""
    module, config = make_model(style), CONFIG.model_copy(update={"compile_blocks": compiled})
    if compiled:
        keep_no_code(asked)
    feed = Feed(asked.windows())
    work = Training(module=module, feed=feed, seeds=Seeds.new("1"), config=config, evaluate=lambda _: {})
    engine = Engine(work)

    def turn(number: int) -> dict[str, Any]:
        losses, seconds = [], []
        for step in range(number * asked.n_steps, (number + 1) * asked.n_steps):
            begin = time.perf_counter()
            losses.append(engine.step(feed.batch(step), step, CONFIG.learning_rate)[0])
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds, "losses": losses}

    return facts_of(module, "embedding.positions.vectors.weight"), turn


def by_transformers(asked: Asked, style: str, compiled: bool = False) -> tuple[dict[str, Any], Turn]:
    """Its model with its own loss."""
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(asked.folder / style, attn_implementation="sdpa").train()

    def loss_of(read_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=read_BT, labels=next_BT, shift_labels=next_BT, use_cache=False).loss
        return loss

    if compiled:
        keep_no_code(asked)
    turn = plain_loop(asked, model, torch.compile(loss_of) if compiled else loss_of)
    return facts_of(model, "transformer.wpe.weight"), turn


def by_litgpt(asked: Asked) -> tuple[dict[str, Any], Turn]:
    """Its model in the make of Llama, with the token vectors tied, as its pre-training can."""
    import litgpt

    ours = make_model("llama")
    config = litgpt.Config(
        block_size=T,
        n_layer=SIZE["n_layers"],
        n_embd=SIZE["d_model"],
        n_head=SIZE["n_heads"],
        padded_vocab_size=V,
        norm_class_name="RMSNorm",
        parallel_residual=False,
        rotary_percentage=1.0,
        bias=False,
        mlp_class_name="LLaMAMLP",
        intermediate_size=STYLES["llama"]["d_ff"],
    )
    model = litgpt.GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    with torch.no_grad():
        model.transformer.wte.weight.copy_(ours.embedding.tokens.weight)
        for block, of_ours in zip(model.transformer.h, ours.blocks, strict=True):
            mine: Any = of_ours
            block.attn.qkv.weight.copy_(torch.cat([getattr(mine.attention, name).weight for name in "qkv"]))
            block.attn.proj.weight.copy_(mine.attention.out.weight)
            block.mlp.fc_1.weight.copy_(mine.feedforward.gate.weight)
            block.mlp.fc_2.weight.copy_(mine.feedforward.up.weight)
            block.mlp.proj.weight.copy_(mine.feedforward.down.weight)

    def loss_of(read_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(read_BT).flatten(0, 1), next_BT.flatten())

    return facts_of(model), plain_loop(asked, model, loss_of)


def plain_loop(asked: Asked, model: nn.Module, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Turn:
    """Steps with nothing in them that a step does not need."""
    windows = torch.from_numpy(asked.windows())
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=CONFIG.learning_rate,
        betas=CONFIG.betas,
        eps=CONFIG.eps,
        weight_decay=CONFIG.weight_decay,
        fused=True,
    )

    def turn(number: int) -> dict[str, Any]:
        losses, seconds = [], []
        for rows in asked.rows(number, len(windows)):
            begin = time.perf_counter()
            batch = windows[torch.from_numpy(rows)]
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)
            optimizer.step()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - begin)
        return {"seconds": seconds, "losses": losses}

    return turn


def keep_no_code(asked: Asked) -> None:
    """Compile anew, whatever an earlier run compiled."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=asked.folder)


def facts_of(model: nn.Module, looked_up: str = "") -> dict[str, Any]:
    """Parameters in all, and without those that are only looked up; token vectors score the tokens too."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {"parameters": sum(sizes.values()), "multiplied": sum(sizes.values()) - sizes.get(looked_up, 0)}


def products(_asked: Asked) -> tuple[dict[str, Any], Turn]:
    """Matrix products of float32: squares, and those of a step of the Llama style, forward and backward."""
    d, f = SIZE["d_model"], STYLES["llama"]["d_ff"]
    n_layers = SIZE["n_layers"]
    linears = {(d, d): 4 * n_layers, (d, f): 2 * n_layers, (f, d): n_layers, (d, V): 1}
    squares = {n: [torch.randn(n, n) for _ in range(3)] for n in SQUARES}
    of_step = []
    for (n_in, n_out), count in linears.items():
        x, y, w = torch.randn(B * T, n_in), torch.randn(B * T, n_out), torch.randn(n_out, n_in)
        of_step += [(count, (x, w.T, torch.empty_like(y))), (count, (y, w, torch.empty_like(x)))]
        of_step += [(count, (y.T, x, torch.empty_like(w)))]

    def turn(_number: int) -> dict[str, Any]:
        rates = {str(n): 2e-9 * n**3 / min(seconds_of(*matrices)) for n, matrices in squares.items()}
        seconds = sum(count * statistics.median(seconds_of(*matrices)) for count, matrices in of_step)
        return {"gflops": rates, "products_of_a_step": seconds}

    return {}, turn


def seconds_of(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> list[float]:
    times = []
    for _ in range(N_REPEATS):
        begin = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - begin)
    return times


@dataclass(frozen=True)
class Named:
    """A way by its name.

    Attributes:
        make: Gets it ready.
        style: Which model it trains.
        needs: The package that it is of.
    """

    make: Callable[[Asked], tuple[dict[str, Any], Turn]]
    style: str = ""
    needs: str = ""


WAYS = {
    "danlu-llama": Named(partial(by_danlu, style="llama"), "llama"),
    "transformers-llama": Named(partial(by_transformers, style="llama"), "llama", "transformers"),
    "litgpt-llama": Named(by_litgpt, "llama", "litgpt"),
    "danlu-llama-compiled": Named(partial(by_danlu, style="llama", compiled=True), "llama"),
    "transformers-llama-compiled": Named(
        partial(by_transformers, style="llama", compiled=True), "llama", "transformers"
    ),
    "danlu-gpt2": Named(partial(by_danlu, style="gpt2"), "gpt2"),
    "transformers-gpt2": Named(partial(by_transformers, style="gpt2"), "gpt2", "transformers"),
    "products": Named(products),
}
