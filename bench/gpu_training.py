"""Training speed on a GPU: a GPT of 124 million parameters, danlu's step beside transformers', in turn.

    python bench/gpu_training.py [--rounds 6] [--steps 10] [--batch 16]

The weights are drawn by danlu and given to transformers, the tokens are random, precision is bfloat16 by autocast, the
optimizer fused AdamW; the first losses of one style must agree. What is measured: tokens a second, the most memory, and
the share of the best matrix product of this card, counted as in gpt_training.py (of attention the causal half).
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.data.sequences import Windows, collate_windows
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model.base import Signature
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.pretrained.save import save_pretrained
from danlu.train.ahead import Ahead
from danlu.train.config import TrainConfig
from danlu.train.engine import Engine, Training

V, T = 50_304, 1024
SIZE: dict[str, Any] = {"d_model": 768, "n_layers": 12, "n_heads": 12, "max_len": T}
STYLES: dict[str, dict[str, Any]] = {
    "llama": {"d_ff": 2048},
    "gpt2": {"d_ff": 3072, "positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True},
}
CONFIG = TrainConfig(optimizer="adamw", learning_rate=3e-4, clip_norm=1.0, precision="bfloat16")
MOST_APART = 2e-3
"""Relative difference of first losses in bfloat16."""

Step = Callable[[int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--styles", default="llama,gpt2")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here")
    peak = best_product()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; best bfloat16 product {peak / 1e12:.0f} TFLOPS")
    for style in given.styles.split(","):
        compare(style, given, peak)


def compare(style: str, given: argparse.Namespace, peak: float) -> None:
    """Let the ways to train a model of one style take turns."""
    ids = np.random.default_rng(0).integers(5, V, (64 * given.batch, T + 1)).astype(np.int32)
    ways: dict[str, Step] = {}
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        module = make_model(style)
        tokenizer = train_tokenizer(["a b c"], TokenizerConfig(kind="bpe", vocab_size=300))
        save_pretrained(module, tokenizer, Path(folder) / style)
        makers = {
            f"danlu-{style}": lambda: by_danlu(style, ids, given.batch, compiled=False),
            f"danlu-{style}-compiled": lambda: by_danlu(style, ids, given.batch, compiled=True),
            f"transformers-{style}": lambda: by_transformers(Path(folder) / style, ids, given.batch, compiled=False),
            f"transformers-{style}-compiled": lambda: by_transformers(
                Path(folder) / style, ids, given.batch, compiled=True
            ),
        }
        firsts = {}
        for name, make in makers.items():
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            ways[name] = make()
            firsts[name] = ways[name](0)
            memory[name] = torch.cuda.max_memory_allocated() - before
    if not all(math.isclose(loss, next(iter(firsts.values())), rel_tol=MOST_APART) for loss in firsts.values()):
        raise SystemExit(f"not the same model in all ways; the first losses are {firsts}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, step in ways.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for each in range(given.steps):
                step(1 + number * given.steps + each)
            torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - begin) / given.steps)
    size = sum(parameter.numel() for parameter in module.parameters())
    looked_up = T * SIZE["d_model"] if style == "gpt2" else 0
    flops = given.batch * T * (6 * (size - looked_up) + 6 * SIZE["n_layers"] * SIZE["d_model"] * T)
    ours = seconds[f"danlu-{style}"]
    for name, each in seconds.items():
        kept = each[1:]
        ratios = sorted(one / mine for one, mine in zip(kept, ours[1:], strict=True))
        median = statistics.median(kept)
        print(
            f"{name:30s} {size / 1e6:6.1f} million parameters  {given.batch * T / median:10,.0f} tokens/s  "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) times danlu's time  "
            f"{flops / median / peak:.1%} of the best product  {memory[name] / 2**30:.1f} GiB"
        )


def make_model(style: str) -> Gpt:
    module = Gpt(
        GptConfig(family="gpt", **SIZE, **STYLES[style]),
        Signature(task="language-modelling", vocab_size=V, mask_token=4, begin_token=2, end_token=3),
    )
    initialise(module, Seeds.new("training"))
    return module


class Feed:
    """Batches as the language task cuts them."""

    n_steps = 10**9
    evaluate_after: frozenset[int] = frozenset()

    def __init__(self, ids: np.ndarray, batch: int) -> None:
        n = len(ids)
        self._batch, self._n = batch, n
        starts, lengths = np.arange(n) * (T + 1), np.full(n, T)
        self._windows = Windows(ids.ravel(), starts, lengths, np.zeros(n, np.int64), texts=np.arange(n))

    def batch(self, step: int) -> Batch:
        """The windows of a step."""
        return collate_windows(self._windows, np.arange(step * self._batch, (step + 1) * self._batch) % self._n)


def by_danlu(style: str, ids: np.ndarray, batch: int, compiled: bool) -> Step:
    """A step as the training loop takes it."""
    feed = Feed(ids, batch)
    config = CONFIG.model_copy(update={"compile_blocks": compiled})
    module = make_model(style).to("cuda")
    engine = Engine(Training(module=module, feed=feed, seeds=Seeds.new("1"), config=config, evaluate=lambda _: {}))
    ahead = Ahead(feed, torch.device("cuda"))
    return lambda step: engine.step(ahead.batch(step), step, CONFIG.learning_rate)[0]


def by_transformers(folder: Path, ids: np.ndarray, batch: int, compiled: bool) -> Step:
    """Its model with its own loss in a plain loop."""
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    model.to("cuda").train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=CONFIG.learning_rate, betas=CONFIG.betas, weight_decay=CONFIG.weight_decay, fused=True
    )
    rows = torch.from_numpy(ids.astype(np.int64))

    def loss_of(read_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=read_BT, labels=next_BT, shift_labels=next_BT, use_cache=False).loss
        return loss

    asked = torch.compile(loss_of) if compiled else loss_of

    def step(number: int) -> float:
        which = torch.arange(number * batch, (number + 1) * batch) % len(rows)
        mine = rows[which].pin_memory().to("cuda", non_blocking=True)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = asked(mine[:, :-1].contiguous(), mine[:, 1:].contiguous())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip_norm)
        optimizer.step()
        return float(loss.detach())

    return step


def best_product(n: int = 8192) -> float:
    """Operations a second of the best of ten bfloat16 products of n x n."""
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(a, b)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * n**3 / min(times[3:])


if __name__ == "__main__":
    main()
