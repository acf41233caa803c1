"""Training speed of a GPT: danlu's step beside transformers', LitGPT's and the machine's own matrix products.

The model is the same in every way: ours is drawn, the others get its weights, and the first loss must agree. So are the
tokens (poems by byte-level BPE, windows of 257), the batches, clipping and the optimizer: fused AdamW. Ours takes a
step as the training loop does; the others are given a plain loop with nothing in it that a step does not need.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from danlu.data.tokenizer import TokenizerConfig, encode, special_tokens, train_tokenizer
from danlu.model.pretrained.save import save_pretrained
from gpt_ways import SIZE, SQUARES, STYLES, WAYS, Asked, B, T, V, make_model
from poems import read_poems
from turns import Way, describe, keep, machine, rounds, spread

__all__ = ["add_arguments", "measure", "show"]

N_POEMS = 20_000
MOST_APART = 1e-4
"""Relative difference of two first losses, at the most, if the models are one."""
INSTALL_LITGPT = (
    "litgpt is not installed: left out (it wants another huggingface_hub than transformers; its model does not need it:"
    " pip install -c constraints.txt lightning 'jsonargparse[signatures]<=4.41'; pip install --no-deps litgpt)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    parser.add_argument("--ways", default=",".join(WAYS), help="all: %(default)s")


def measure(given: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Let the ways take turns; what came out is kept after every round."""
    named = given.ways.split(",")
    if unknown := [name for name in named if name not in WAYS]:
        raise SystemExit(f"no way is called {unknown[0]}; there are {', '.join(WAYS)}")
    wanted = [name for name in named if available(name)]
    packages = ["torch", *(package for package in ("transformers", "litgpt") if importlib.util.find_spec(package))]
    found: dict[str, Any] = {"machine": machine(given.threads, packages), "n_steps": given.steps, "rounds": []}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        asked = Asked(Path(name), given.steps)
        ways = {name: Way(WAYS[name].make, asked, n_threads=given.threads) for name in wanted}
        found["ways"] = {name: way.facts for name, way in ways.items()}
        for number, said in enumerate(rounds(ways, given.rounds)):
            if number == 0:
                require_one_model(said)
            found["rounds"].append(said)
            keep(path, found)
            print(f"round {number} of {given.rounds}, load {said['machine']['load']:.1f}", flush=True)
        for way in ways.values():
            way.end()
    return found


def available(name: str) -> bool:
    """Whether a way can be taken here; if not, say why."""
    needs = WAYS[name].needs
    if needs and importlib.util.find_spec(needs) is None:
        print(INSTALL_LITGPT if needs == "litgpt" else f"{name}: {needs} is not installed: left out")
        return False
    if name.endswith("compiled") and shutil.which("g++") is None:
        print(f"{name}: there is no g++ to compile with: left out")
        return False
    return True


def prepare(folder: Path) -> None:
    """Tokens and weights for all ways."""
    poems = [text for text, _ in read_poems()]
    texts = poems[:: max(1, len(poems) // N_POEMS)]
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind="bpe", vocab_size=V))
    tokens = encode(tokenizer, texts, None)
    flat = np.insert(tokens.ids, tokens.offsets[1:], special_tokens(tokenizer).end)
    np.save(folder / "tokens.npy", flat[: len(flat) // (T + 1) * (T + 1)].reshape(-1, T + 1))
    for style in STYLES:
        save_pretrained(make_model(style), tokenizer, folder / style)


def require_one_model(said: dict[str, dict[str, Any]]) -> None:
    """The first step of every way of a style must find the same loss."""
    for style in STYLES:
        firsts = {
            name: facts["losses"][0] for name, facts in said.items() if name in WAYS and WAYS[name].style == style
        }
        if any(not math.isclose(loss, other, rel_tol=MOST_APART) for loss, other in product(firsts.values(), repeat=2)):
            raise SystemExit(f"not the same model in all ways; the first losses are {firsts}")


def show(found: dict[str, Any], _given: argparse.Namespace) -> None:
    """Tokens a second of every way, beside ours of its style and beside the machine's matrix products."""
    warm_up, *kept = found["rounds"]
    n_steps = found["n_steps"]
    print(f"{len(kept)} rounds of {n_steps} steps in turn, {B} sequences of {T} tokens; {describe(found['machine'])}")
    peaks = [max(said["products"]["gflops"].values()) for said in kept if "products" in said]
    for name, facts in found["ways"].items():
        if name == "products":
            continue
        seconds = [statistics.fmean(said[name]["seconds"]) for said in kept]
        ours = f"danlu-{WAYS[name].style}"
        line = f"{name:28s} {facts['parameters'] / 1e6:6.2f} million parameters"
        line += f"  {spread([B * T / each for each in seconds]):,.0f} tokens/s"
        if ours in found["ways"]:
            ratios = [each / statistics.fmean(said[ours]["seconds"]) for each, said in zip(seconds, kept, strict=True)]
            line += f"  {spread(ratios):.3f} times danlu's time"
        if peaks:
            shares = [flops(facts) / each / peak / 1e9 for each, peak in zip(seconds, peaks, strict=True)]
            line += f"  {spread(shares):.1%} of the peak"
        losses = [loss for said in found["rounds"] for loss in said[name]["losses"]]
        print(f"{line}  loss {losses[0]:.3f} to {losses[-1]:.3f}")
        if name.endswith("compiled"):
            extra = sum(warm_up[name]["seconds"]) - n_steps * statistics.median(seconds)
            print(f"{'':28s} {extra:.0f} s of compiling, in its first steps")
    if peaks:
        show_products(kept)


def show_products(kept: Sequence[dict[str, Any]]) -> None:
    for n in SQUARES:
        rates = [said["products"]["gflops"][str(n)] for said in kept]
        print(f"float32 products of {n} x {n}: {spread(rates):,.0f} GFLOPS")
    alone = [said["products"]["products_of_a_step"] * 1e3 for said in kept]
    print(f"the matrix products of a step of the Llama style, alone: {spread(alone):,.0f} ms")
    print(
        "share of the peak: 6 FLOP a token and weight that is multiplied, and 6 x layers x d_model x T a token for "
        "attention (the half that is causal, forward and backward), by the best square product of the round"
    )


def flops(facts: dict[str, Any]) -> float:
    """Of a step; of attention's two products, ``12 T`` a token, layer and channel in all, half is needed."""
    return float(B * T * (6 * facts["multiplied"] + 6 * SIZE["n_layers"] * SIZE["d_model"] * T))
