"""Decoding speed: danlu beside transformers' generate and CTranslate2, greedy, on the same weights.

    python bench/decoding.py [--rounds 5] [--threads 2] [--new 200] [--batches 1,8,32] [--styles llama,gpt2]

A GPT of about 10 million random weights (d_model 320, 8 layers, 6,000 tokens) continues prompts of 16 tokens; nothing
ends a text early. Every way lives in a process of its own, for their thread pools get in each other's way in one; it
has its model ready before the clock starts and gets the same prompts. They take turns, a run each, so that a busy
machine slows all; a ratio is that of two runs of one round. transformers and ctranslate2 are left out where they are
not installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from danlu.core.seeds import Seeds
from danlu.model.base import Signature
from danlu.model.decode import DecodeConfig, generate, prompt_batch
from danlu.model.decoding.engine import quick
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.pretrained.save import save_pretrained

V, PROMPT = 6000, 16
SPECIAL = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>"]
SIZE: dict[str, Any] = {"d_model": 320, "n_layers": 8, "n_heads": 5, "max_len": 512}
STYLES: dict[str, dict[str, Any]] = {
    "llama": {"d_ff": 864},
    "gpt2": {"d_ff": 1280, "positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True},
}

Tokens = list[list[int]]
Write = Callable[[Tokens], Tokens]
CONTEXT = multiprocessing.get_context("spawn")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--new", type=int, default=200)
    arguments.add_argument("--batches", default="1,8,32")
    arguments.add_argument("--styles", default="llama,gpt2")
    given = arguments.parse_args()
    versions = [f"torch {torch.__version__}"]
    names = ["danlu"]
    for package, of_it in THEIRS.items():
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
            names += of_it
        except importlib.metadata.PackageNotFoundError:
            print(f"{package} is not installed: left out", file=sys.stderr)
    print(f"{', '.join(versions)}; {given.threads} threads, {given.new} new tokens, {given.rounds} rounds in turn")
    for style in given.styles.split(","):
        with tempfile.TemporaryDirectory() as folder:
            module = make_model(STYLES[style])
            save_pretrained(module, make_tokenizer(), Path(folder) / "model")
            print(f"{style} style, {module.n_parameters():,} parameters")
            asked = Asked(Path(folder), style, given.new, given.threads)
            ways = {name: Way(name, asked) for name in names}
            for n_texts in map(int, given.batches.split(",")):
                compare(ways, n_texts, given.new, given.rounds)
            for way in ways.values():
                way.end()


@dataclass(frozen=True)
class Asked:
    """What every way is asked.

    Attributes:
        folder: Has the model in Hugging Face layout.
        style: Which make of model it is.
        n_new: Tokens to write.
        n_threads: Threads to write with.
    """

    folder: Path
    style: str
    n_new: int
    n_threads: int


class Way:
    """One way of writing, in a process of its own."""

    def __init__(self, name: str, asked: Asked) -> None:
        self._here, there = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=answer, args=(there, name, asked), daemon=True)
        self._process.start()
        self._here.recv()  # it is ready

    def __call__(self, prompts: Tokens) -> tuple[Tokens, float]:
        """What it writes, and the seconds that it took."""
        self._here.send(prompts)
        found: tuple[Tokens, float] = self._here.recv()
        return found

    def end(self) -> None:
        """Let it go."""
        self._here.send(None)
        self._process.join()


def answer(pipe: Any, name: str, asked: Asked) -> None:
    """What runs in the process of a way."""
    torch.set_num_threads(asked.n_threads)
    write = WAYS[name](asked)
    pipe.send(None)
    while (prompts := pipe.recv()) is not None:
        begin = time.perf_counter()
        tokens = write(prompts)
        pipe.send((tokens, time.perf_counter() - begin))


def compare(ways: dict[str, Way], n_texts: int, n_new: int, n_rounds: int) -> None:
    prompts = torch.randint(len(SPECIAL), V, (n_texts, PROMPT), generator=torch.manual_seed(n_texts)).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tokens] = {}
    for number in range(n_rounds + 1):  # the first is to warm up
        for name, way in ways.items():
            found[name], taken = way(prompts)
            if number:
                seconds[name].append(taken)
    for name, times in seconds.items():
        ratios = [other / ours for other, ours in zip(times, seconds["danlu"], strict=True)]
        same = sum(a == b for a, b in zip(found[name], found["danlu"], strict=True))
        rate = n_texts * n_new / statistics.median(times)
        ratio = f"{statistics.median(ratios):5.2f} times danlu's time ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  batch {n_texts:2d}  {name:20s} {rate:8,.0f} tokens/s  {ratio}  {same} of {n_texts} texts as danlu's")


def make_model(style: dict[str, Any]) -> Gpt:
    module = Gpt(
        GptConfig(family="gpt", **SIZE, **style),
        Signature(task="language-modelling", vocab_size=V, mask_token=4, begin_token=2, end_token=3),
    )
    initialise(module, Seeds.new("decoding"))
    return module.eval()


def make_tokenizer() -> Tokenizer:
    words = {name: token for token, name in enumerate([*SPECIAL, *(f"t{token}" for token in range(5, V))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def by_danlu(asked: Asked) -> Write:
    model, tokenizer = quick(make_model(STYLES[asked.style])), make_tokenizer()
    config = DecodeConfig(max_new_tokens=asked.n_new)
    return lambda prompts: [
        text.tokens for text in generate(model, tokenizer, prompt_batch(prompts, 2), config, ends=())
    ]


def by_transformers(asked: Asked) -> Write:
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(asked.folder / "model").eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0

    def write(prompts: Tokens) -> Tokens:
        tokens_BT = torch.tensor(prompts)
        with torch.inference_mode():
            written_BT = model.generate(
                tokens_BT, attention_mask=torch.ones_like(tokens_BT), max_new_tokens=asked.n_new, do_sample=False
            )
        return written_BT[:, PROMPT:].tolist()

    return write


def by_ctranslate2(asked: Asked, kind: str) -> Write:
    import ctranslate2

    folder = asked.folder / f"ct2-{kind}"
    ctranslate2.converters.TransformersConverter(str(asked.folder / "model")).convert(str(folder))
    generator = ctranslate2.Generator(str(folder), compute_type=kind, intra_threads=asked.n_threads)

    def write(prompts: Tokens) -> Tokens:
        found = generator.generate_batch(
            [[f"t{token}" for token in prompt] for prompt in prompts],
            max_length=asked.n_new,
            min_length=asked.n_new,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in found]

    return write


WAYS: dict[str, Callable[[Asked], Write]] = {
    "danlu": by_danlu,
    "transformers": by_transformers,
    "ctranslate2 float32": partial(by_ctranslate2, kind="float32"),
    "ctranslate2 int8": partial(by_ctranslate2, kind="int8"),
}
THEIRS = {"transformers": ["transformers"], "ctranslate2": ["ctranslate2 float32", "ctranslate2 int8"]}


if __name__ == "__main__":
    main()
