"""What a seed means, held for ever: initial weights, data order, a vocabulary, a training curve.

After a change that is meant to alter one of them, write the new values and say so in the changelog:

    PYTHONPATH=src:tests python tests/golden/test_golden.py
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.data.tokenizer import TokenizerConfig, encode, train_tokenizer
from danlu.model.base import Signature
from danlu.model.families import FAMILIES
from danlu.train.checkpoint import Run
from danlu.train.config import TrainConfig
from danlu.train.feed import PlannedFeed
from danlu.train.loop import fit
from danlu.train.tasks import TRAINING
from small import FAMILY, made_up, make_dataset, make_module, material_of, spec_of

GOLDEN = Path(__file__).with_name("golden.json")


def weights() -> dict[str, str]:
    """SHA-256 over every parameter, by name, as little-endian float32.

    It is the same on every processor: NumPy's PCG64 is integer arithmetic, its normal numbers (ziggurat) are a product
    with a number from a table save in a thousandth or so of the cases, and what a library's logarithm may differ by in
    the last bit of a float64 is rounded away in the float32 that is kept. (torch.randn is not: its last bits were found
    to differ between processors with and without AVX2.)
    """
    found = {}
    for family in FAMILIES.names():
        for task in sorted(FAMILIES[family].tasks):
            signature = Signature(task=task, vocab_size=300, mask_token=4, n_classes=2, image_size=(1, 14, 14))
            digest = hashlib.sha256()
            for name, parameter in sorted(make_module(family, signature).named_parameters()):
                digest.update(name.encode() + parameter.detach().numpy().astype("<f4").tobytes())
            found[f"{family} {task}"] = digest.hexdigest()
    return found


def order() -> dict[str, Any]:
    """The rows of each step of two epochs over 500 texts of 1 to 97 tokens."""
    lengths = np.arange(500) * 37 % 97 + 1
    feed = PlannedFeed(lengths, lambda rows, _: rows, TrainConfig(epochs=2, batch_tokens=512), Seeds.new("1"))
    rows = [feed.rows(step) for step in range(feed.n_steps)]
    whole = np.concatenate([np.append(each, -1) for each in rows]).astype("<i8")
    return {"n_steps": feed.n_steps, "first": rows[0].tolist(), "sha256": hashlib.sha256(whole.tobytes()).hexdigest()}


def vocabulary() -> dict[str, list[int]]:
    """A text as every kind of tokenizer cuts it, trained on the same 240 made-up texts."""
    texts = [text for text, _ in made_up()]
    return {
        kind: encode(train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=400)), [texts[0]], 100).ids.tolist()
        for kind in ("char-bpe", "bpe", "char")
    }


_OPTIMIZERS = {"language-modelling": "muon"}


def curves() -> dict[str, list[dict[str, Any]]]:
    """Every line of the metrics of a tiny run of three epochs of each task, from its source on, on one thread."""
    found = {}
    for task in sorted(TRAINING):
        with tempfile.TemporaryDirectory() as folder:
            _, dataset = make_dataset(Path(folder), task=task)
            # Said here, so that a better size dial leaves the record alone; matrices by Muon in one of them.
            train = {"epochs": 3, "learning_rate": 2e-3, "optimizer": _OPTIMIZERS.get(task, "adamw")}
            if task == "image-classification":
                train["augment"] = {"shift": 0.1}
            spec = spec_of(Path(folder), FAMILY[task], task=task, train=train)
            run = Run(Path(folder), Silent())
            fit(TRAINING[task].prepare(material_of(dataset, spec)), run, Silent())
            found[task] = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return found


def machine() -> dict[str, str]:
    """What decides the last digits of a sum."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability(), "processor": model}


MADE: dict[str, Callable[[], Any]] = {"weights": weights, "order": order, "vocabulary": vocabulary}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("what", MADE)
def test_the_seed_means_what_it_always_meant(what: str) -> None:
    assert MADE[what]() == json.loads(GOLDEN.read_text())[what]


@pytest.fixture(scope="module")
def trained() -> dict[str, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    return curves()


@pytest.mark.parametrize("task", sorted(TRAINING))
def test_the_curve_is_what_it_was(trained: dict[str, list[dict[str, Any]]], task: str) -> None:
    """To the last digit where torch and processor are those of the record; elsewhere to 1e-4.

    Other versions and processors add in another order: that is 1e-7 a step at first, and grows over these steps.
    """
    record = json.loads(GOLDEN.read_text())
    found, stored = trained[task], record["curves"][task]
    if machine() == record["machine"]:
        assert found == stored
    assert [flat(line).keys() for line in found] == [flat(line).keys() for line in stored]
    for line, expected in zip(found, stored, strict=True):
        assert flat(line) == pytest.approx(flat(expected), abs=1e-4, rel=1e-4)


def flat(line: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if key != "valid"} | line.get("valid", {})


def write() -> None:
    """Write the values of this machine as the golden ones."""
    torch.set_num_threads(1)
    values = {what: make() for what, make in MADE.items()}
    values |= {"machine": machine(), "curves": curves()}
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    write()
