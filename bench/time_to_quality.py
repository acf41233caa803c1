"""Seconds to a validation loss: danlu's training beside a plain loop with AdamW, on poems by the character.

The plain loop trains a small GPT-2 for 2,000 steps; what it comes to is the target. Ours has as many layers, heads and
channels, and the recipe settings that were found best on other seeds (``OURS``; words such as
``train.learning_rate=4e-3`` lie over them); it stops as soon as it is at the target. Both read the same text and are
judged on the same windows, with the clock standing still; token vectors from company are on ours.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.core.config import Config, read_overrides, resolve
from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens
from danlu.data.sequences import Windows, collate_windows
from danlu.model.base import Signature
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import EMBEDDING_STD, initialise
from danlu.train.config import TrainConfig
from danlu.train.cooccurrence import cooccurrence_vectors
from danlu.train.engine import Engine, Training, plain_loss
from danlu.train.feed import PlannedFeed
from danlu.train.optimizer import learning_rate
from poems import read_poems
from stopwatch import Stopwatch
from turns import Turn, Way, describe, keep, machine

__all__ = ["add_arguments", "measure", "show"]

N_LAYERS, D, N_HEADS, T, V = 4, 128, 4, 64, 4000
PLAIN = {"batch": 12, "steps": 2000, "rate": 1e-3, "last_rate": 1e-4, "warmup": 100}
PLAIN_LOOKS = 20
OURS = (
    f"model={{family: gpt, d_model: {D}, n_layers: {N_LAYERS}, n_heads: {N_HEADS}, max_len: {T}, d_ff: 344}}",
    "model.embedding_from=cooccurrence",
    "train={optimizer: muon, learning_rate: 4e-3, batch_tokens: 512, max_steps: 800, warmup: 0.05, weight_decay: 0.1}",
)
"""Our settings: chosen on seeds 11 and 12."""
OURS_LOOK = 20
"""Steps from one look at the validation loss to the next."""
UNKNOWN = 0
N_WINDOWS = 512
"""Validation windows."""
HELD_OUT = 20
"""Every how manyth poem is for validation."""


class Ours(Config):
    """Our side's settings: those of a recipe."""

    model: GptConfig
    """The model."""
    train: TrainConfig
    """Its training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--plain-steps", type=int, default=PLAIN["steps"], help="steps of the plain loop")
    parser.add_argument("--plot", type=Path, help="where the picture goes; the keep folder")
    parser.add_argument("words", nargs="*", help="our settings, as key=value")


def measure(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    """A plain run, then ours to its loss, seed by seed; what came out is kept after every seed."""
    words = (*OURS, *given.words)
    settings = resolve(Ours, [read_overrides(words)]).config
    found: dict[str, Any] = {"machine": machine(given.threads, ["torch"]), "settings": settings.plain(), "seeds": []}
    with tempfile.TemporaryDirectory() as name:
        found["text"] = prepare(Path(name))
        plain = Way(by_plain_loop, Path(name), given.plain_steps, n_threads=given.threads)
        ours = Way(by_danlu, Path(name), words, n_threads=given.threads)
        for seed in given.seeds.split(","):
            theirs = plain(seed)
            said = ours((seed, theirs["curve"][-1][1]))
            found["seeds"].append({"seed": seed, "plain": theirs, "ours": said})
            keep(path, found)
            print(f"seed {seed}: {theirs['curve'][-1]}, ours {said['curve'][-1]}", flush=True)
        plain.end()
        ours.end()
    return found


def prepare(folder: Path) -> dict[str, int]:
    """The text as tokens: the most frequent characters of its training part, and one for all others."""
    poems = [text for text, dynasty in read_poems() if dynasty == "tang"]
    train = "\n".join(poem for number, poem in enumerate(poems) if number % HELD_OUT)
    valid = "\n".join(poems[::HELD_OUT])
    known = {character: UNKNOWN + 1 + rank for rank, (character, _) in enumerate(Counter(train).most_common(V - 1))}
    for name, text in (("train", train), ("valid", valid)):
        tokens = np.fromiter((known.get(character, UNKNOWN) for character in text), np.int32, len(text))
        np.save(folder / f"{name}.npy", tokens)
    return {"train": len(train), "valid": len(valid), "known": len(known)}


def windows_of(folder: Path) -> Windows:
    """Fixed windows of the validation text, far from each other."""
    tokens = np.load(folder / "valid.npy")
    starts = np.linspace(0, len(tokens) - T - 1, N_WINDOWS).astype(np.int64)
    return cut(tokens, starts)


def cut(tokens: np.ndarray, starts: np.ndarray) -> Windows:
    n = len(starts)
    return Windows(tokens, starts, np.full(n, T), np.zeros(n, np.int64), texts=np.zeros(n, np.int64))


class PlainBlock(nn.Module):
    """Attention and feed-forward of GPT-2, each after a norm and added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.attention_norm(x_BTD)).unflatten(-1, (3, N_HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHTK = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        added: torch.Tensor = self.down(F.gelu(self.up(self.feedforward_norm(x_BTD))))
        return x_BTD + added


class PlainGpt(nn.Module):
    """GPT-2 without biases: learnt positions, LayerNorm, GELU, tied token vectors, drawn as GPT-2 is."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(N_LAYERS))
        self.norm = nn.LayerNorm(D, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                into_the_sum = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * N_LAYERS) if into_the_sum else 0.02)

    def forward(self, read_BT: torch.Tensor, next_BT: torch.Tensor) -> torch.Tensor:
        """The mean loss in nats."""
        x_BTD = self.tokens(read_BT) + self.positions.weight[: read_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.cross_entropy(F.linear(self.norm(x_BTD), self.tokens.weight).flatten(0, 1), next_BT.flatten())


def by_plain_loop(folder: Path, n_steps: int) -> tuple[dict[str, Any], Turn]:
    """AdamW over windows from anywhere in the text."""
    tokens = torch.from_numpy(np.load(folder / "train.npy").astype(np.int64))
    held_out = windows_of(folder)

    def turn(seed: str) -> dict[str, Any]:
        torch.manual_seed(int(seed))
        watch = Stopwatch()
        model = PlainGpt()
        decayed = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
        others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=PLAIN["rate"], betas=(0.9, 0.99), fused=True)
        curve: list[list[float]] = []
        for step in range(n_steps):
            for group in optimizer.param_groups:
                group["lr"] = plain_rate(step, n_steps)
            starts = torch.randint(len(tokens) - T, (int(PLAIN["batch"]), 1))
            batch = tokens[starts + torch.arange(T + 1)]
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(model(batch[:, :-1], batch[:, 1:]))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if (step + 1) % max(1, n_steps // PLAIN_LOOKS) == 0 or step + 1 == n_steps:
                look(watch, curve, held_out, lambda batch: model(batch.text[0], batch.targets).item())
        return {"parameters": sum(map(torch.numel, model.parameters())), "steps": n_steps, "curve": curve}

    return {}, turn


def plain_rate(step: int, n_steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    if step < PLAIN["warmup"]:
        return PLAIN["rate"] * (step + 1) / (PLAIN["warmup"] + 1)
    share = (step - PLAIN["warmup"]) / max(1, n_steps - PLAIN["warmup"])
    return PLAIN["last_rate"] + 0.5 * (1 + math.cos(math.pi * share)) * (PLAIN["rate"] - PLAIN["last_rate"])


def look(watch: Stopwatch, curve: list[list[float]], held_out: Windows, loss_of: Callable[[Batch], float]) -> float:
    """The validation loss, looked at while the clock stands still."""
    with watch.still(), torch.no_grad():
        parts = np.array_split(np.arange(N_WINDOWS), N_WINDOWS // 64)
        losses = [loss_of(collate_windows(held_out, rows)) for rows in parts]
        curve.append([watch.seconds, statistics.fmean(losses)])
    return curve[-1][1]


def by_danlu(folder: Path, words: tuple[str, ...]) -> tuple[dict[str, Any], Turn]:
    """Our model, feed, optimizer and step, from the token vectors on."""
    tokens, held_out = np.load(folder / "train.npy"), windows_of(folder)
    settings = resolve(Ours, [read_overrides(words)]).config
    config = settings.train

    def turn(asked: tuple[str, float]) -> dict[str, Any]:
        seeds = Seeds.new(asked[0])
        watch = Stopwatch()
        module = Gpt(settings.model, Signature(task="language-modelling", vocab_size=V))
        initialise(module, seeds)
        if settings.model.embedding_from == "cooccurrence":
            text = Tokens(tokens, np.array([0, len(tokens)]))
            vectors = cooccurrence_vectors(text, V, D, std=EMBEDDING_STD, seed=seeds.at("init", "cooccurrence"))
            module.embedding.tokens.weight.data.copy_(torch.from_numpy(vectors))
        found = cut(tokens, np.arange(0, len(tokens) - T, T))
        feed = PlannedFeed(found.lengths, lambda rows, _: collate_windows(found, rows), config, seeds)
        work = Training(module=module, feed=feed, seeds=seeds, config=config, evaluate=lambda _: {})
        engine = Engine(work)
        with watch.still():
            before = watch.seconds
        curve: list[list[float]] = []
        for step in range(feed.n_steps):
            engine.step(feed.batch(step), step, learning_rate(step, feed.n_steps, config))
            if (step + 1) % OURS_LOOK == 0 or step + 1 == feed.n_steps:
                module.eval()
                if look(watch, curve, held_out, lambda batch: plain_loss(module, batch).item()) <= asked[1]:
                    break
        return {"parameters": module.n_parameters(), "before": before, "steps": step + 1, "curve": curve}

    return {}, turn


def show_seed(said: dict[str, Any]) -> None:
    plain, ours = said["plain"], said["ours"]
    (seconds, target), (our_seconds, loss) = plain["curve"][-1], ours["curve"][-1]
    there = f"{seconds / our_seconds:.2f} times" if loss <= target else "not reached, at"
    print(
        f"seed {said['seed']}: plain {plain['steps']:,} steps, {seconds:.1f} s to {target:.4f} nats a character; ours "
        f"{ours['steps']:,} steps, {our_seconds:.1f} s ({ours['before']:.1f} before the first) to {loss:.4f}: {there}"
    )


def show(found: dict[str, Any], given: argparse.Namespace) -> None:
    """Seconds of both to the plain loop's loss, and a picture of the way there."""
    print(f"{describe(found['machine'])}; {found['text']['train']:,} characters, {found['text']['known']:,} known")
    for said in found["seeds"]:
        show_seed(said)
    pairs = [(said["plain"], said["ours"]) for said in found["seeds"]]
    if all(ours["curve"][-1][1] <= plain["curve"][-1][1] for plain, ours in pairs):
        ratios = [plain["curve"][-1][0] / ours["curve"][-1][0] for plain, ours in pairs]
        print(
            f"ours is there {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}, "
            f"{len(ratios)} seeds); {pairs[0][0]['parameters']:,} parameters, ours {pairs[0][1]['parameters']:,}"
        )
    draw(found, given.plot or given.keep / "training-quality.png")


def draw(found: dict[str, Any], path: Path) -> None:
    """Validation loss against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for side, colour, label in (("plain", "tab:gray", "plain loop, AdamW"), ("ours", "tab:red", "danlu")):
        for number, said in enumerate(found["seeds"]):
            seconds, losses = zip(*said[side]["curve"], strict=True)
            axes.plot(seconds, losses, color=colour, alpha=0.8, label=None if number else label)
    for said in found["seeds"]:
        axes.axhline(said["plain"]["curve"][-1][1], color="tab:gray", linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"seconds of training on {found['machine']['n_threads']} threads")
    axes.set_ylabel("validation loss, nats a character")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"picture: {path}")
