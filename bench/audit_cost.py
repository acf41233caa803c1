"""What an audit of two models costs: seconds and peak memory, at real shapes with random weights.

    python bench/audit_cost.py --sizes 1M 30M 1B --folder DIR

Each pair is written as sharded bf16 checkpoints in Llama's layout. The suspect is the reference plus noise
(``derived``), or drawn from another seed (``unrelated``). The audit runs in a process of its own, whose peak resident
memory is what the system counted, the pages of the files that it looked at among them. Seconds are those that passed
and those that the processor worked: on a busy machine the first are more.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from danlu.audit.examine import Question, examine
from danlu.core.progress import Silent

NOISE = 0.2
"""Standard deviation of the suspect's noise, as a share of the weights' own."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    d_head: int


SIZES = {
    "1M": Shape(128, 352, 4, 4, 4, 4096, 32),
    "30M": Shape(512, 1376, 6, 8, 8, 16384, 64),
    "1B": Shape(2048, 8192, 16, 32, 8, 128256, 64),
    "7B": Shape(4096, 11008, 32, 32, 32, 32000, 128),
}


def matrices(shape: Shape, layer: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a layer."""
    d, inner, shared = shape.d_model, shape.n_heads * shape.d_head, shape.n_kv_heads * shape.d_head
    prefix = f"model.layers.{layer}."
    return {
        f"{prefix}input_layernorm.weight": (d,),
        f"{prefix}self_attn.q_proj.weight": (inner, d),
        f"{prefix}self_attn.k_proj.weight": (shared, d),
        f"{prefix}self_attn.v_proj.weight": (shared, d),
        f"{prefix}self_attn.o_proj.weight": (d, inner),
        f"{prefix}post_attention_layernorm.weight": (d,),
        f"{prefix}mlp.gate_proj.weight": (shape.d_ff, d),
        f"{prefix}mlp.up_proj.weight": (shape.d_ff, d),
        f"{prefix}mlp.down_proj.weight": (d, shape.d_ff),
    }


def drawn(name: str, size: tuple[int, ...], seed: int, noise_seed: int | None) -> torch.Tensor:
    """A tensor of a seed's numbers, and noise of another seed's."""
    own = numbers(name, size, seed)
    if noise_seed is not None:
        own = own + NOISE * numbers(name, size, noise_seed)
    return (1 + 0.1 * own if len(size) == 1 else 0.02 * own).bfloat16()


def numbers(name: str, size: tuple[int, ...], seed: int) -> torch.Tensor:
    """Normal numbers: a part of a seed's, that begins at another place for every tensor.

    Drawing them all anew would take longer than the audit. As many as there are fit no width of a matrix, so that where
    they come round again no row is one that was there.
    """
    pool, n = pool_of(seed), math.prod(size)
    start = hash_of(name) % len(pool)
    rounds = torch.cat([pool[start:], *[pool] * (n // len(pool)), pool[:start]])
    return rounds[:n].reshape(size)


@functools.lru_cache(maxsize=2)
def pool_of(seed: int) -> torch.Tensor:
    """So many numbers that a seed draws."""
    return torch.randn(2**25 - 39, generator=torch.Generator().manual_seed(seed))


def hash_of(name: str) -> int:
    """The same number for the same name in every process."""
    value = 0
    for letter in name.encode():
        value = (value * 257 + letter) % (2**31 - 1)
    return value


def write(folder: Path, shape: Shape, seed: int, noise_seed: int | None) -> None:
    """A checkpoint, one file a layer."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shards = {f"layer-{n}.safetensors": matrices(shape, n) for n in range(shape.n_layers)}
    table = (shape.vocab_size, shape.d_model)
    shards["outside.safetensors"] = {
        "model.embed_tokens.weight": table,
        "model.norm.weight": (shape.d_model,),
        "lm_head.weight": table,
    }
    for file, tensors in shards.items():
        save_file({name: drawn(name, size, seed, noise_seed) for name, size in tensors.items()}, folder / file)
    index = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config = {
        "model_type": "llama",
        "hidden_size": shape.d_model,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "rms_norm_eps": 1e-6,
    }
    (folder / "config.json").write_text(json.dumps(config))


def audit(suspect: Path, reference: Path, answer: multiprocessing.connection.Connection) -> None:
    """Audits, and sends what it took."""
    start, worked = time.perf_counter(), time.process_time()
    found = examine(Question(suspect=suspect, reference=reference), Silent())
    seconds = (time.perf_counter() - start, time.process_time() - worked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer.send((*seconds, peak, found.verdict, dict(found.p)))


def measure(suspect: Path, reference: Path) -> tuple[float, float, float, str, dict[str, float]]:
    """Seconds passed and worked, GB at the peak, the verdict and the p-values."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=audit, args=(suspect, reference, send))
    process.start()
    send.close()
    try:
        found: tuple[float, float, float, str, dict[str, float]] = receive.recv()
    finally:
        process.join()
    return found


def main() -> None:
    """Measures the sizes that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1M", "30M"])
    parser.add_argument("--pairs", nargs="+", choices=["derived", "unrelated"], default=["derived", "unrelated"])
    parser.add_argument("--folder", type=Path, required=True, help="where the models are written, and kept")
    options = parser.parse_args()
    print("size  pair       seconds   worked  peak GB  verdict", flush=True)
    for size in options.sizes:
        reference = options.folder / size / "reference"
        write(reference, SIZES[size], 1, None)
        for pair in options.pairs:
            suspect = options.folder / size / pair
            write(suspect, SIZES[size], *((1, 2) if pair == "derived" else (3, None)))
            seconds, worked, peak, verdict, p = measure(suspect, reference)
            print(f"{size:<5} {pair:<10} {seconds:7.1f}  {worked:7.1f}  {peak:7.2f}  {verdict}  {p}", flush=True)


if __name__ == "__main__":
    main()
