"""MNIST from scratch: our CNN, MLP and ViT, and the same CNN by a textbook loop in plain PyTorch.

    python bench/mnist.py [FOLDER] [--models cnn mlp vit textbook] [--seeds 1 2 3] [--holdout]

FOLDER has the four IDX files (default: the sample `mnist` of the workspace). Ours are the tiny size of the dial and
trained as its train section says, by our own loop; the weights that answer are the best on 5,000 training pictures held
out.
The textbook loop: weights as torch draws them, SGD with learning rate 0.001 and momentum 0.9, 10 epochs, batches of
100, no augmentation, no schedule, the last weights. The models take turns, seed by seed, so that a busy machine slows
all. Time is that of the steps alone, checkpoints included and evaluations left out. While it trains, a model is looked
at twice an epoch to see when it first passes 99%; nothing is chosen by that.

With --holdout the test pictures stay closed, and all figures are of the 5,000: for finding a recipe.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.idx import read_idx
from danlu.model.base import Model, Signature
from danlu.model.families import FAMILIES
from danlu.model.init import initialise
from danlu.train.augment import AugmentConfig, augment
from danlu.train.checkpoint import Run
from danlu.train.config import TrainConfig
from danlu.train.engine import Training
from danlu.train.feed import PlannedFeed
from danlu.train.loop import fit
from stopwatch import Stopwatch

SIGNATURE = Signature(task="image-classification", n_classes=10, image_size=(1, 28, 28))
N_HELD_OUT = 5000
LOOKS_PER_EPOCH = 2
GOAL = 0.99


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures and their classes."""

    images_BCYX: torch.Tensor
    labels_B: torch.Tensor

    @classmethod
    def read(cls, folder: Path, part: str) -> Pictures:
        """The pictures of a part: `train` or `t10k`."""
        images, labels = (read_idx(folder / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        return cls(torch.from_numpy(images.copy())[:, None], torch.from_numpy(labels.astype(np.int64)))

    def __getitem__(self, rows: np.ndarray | slice) -> Pictures:
        return Pictures(self.images_BCYX[rows], self.labels_B[rows])

    def batch(self) -> Batch:
        """All of them."""
        n = len(self.labels_B)
        return Batch(rows_B=torch.arange(n), images_BCYX=self.images_BCYX.float() / 255, labels_B=self.labels_B)

    def accuracy(self, model: Model) -> float:
        """Share of the pictures that the model names; it is left in the mode that it was in."""
        was_training = model.training
        model.eval()
        with torch.inference_mode():
            parts = [self[slice(at, at + 500)] for at in range(0, len(self.labels_B), 500)]
            n_right = sum(int((model(part.batch()).logits.argmax(1) == part.labels_B).sum()) for part in parts)
        model.train(was_training)
        return n_right / len(self.labels_B)


class Watch(Stopwatch):
    """Remembers when the model first passed the goal.

    Args:
        judged: The pictures that it is looked at with, while the watch stands still.
    """

    def __init__(self, judged: Pictures) -> None:
        super().__init__()
        self.judged = judged
        self.to_goal: float | None = None

    def look(self, model: Model) -> None:
        """Ask the model, if it has not passed yet."""
        if self.to_goal is None and self.judged.accuracy(model) >= GOAL:
            self.to_goal = self.seconds


@dataclass(frozen=True)
class Result:
    """How one run ended."""

    accuracy: float
    held_out_accuracy: float
    seconds: float
    to_goal: float | None
    n_parameters: int


def ours(family: str, seed: int, train: Pictures, held_out: Pictures, judged: Pictures) -> Result:
    """The family's tiny size, by our own loop."""
    dial = FAMILIES[family].Config.sizes["tiny"]
    values = {key: value for key, value in dial["train"].items() if key != "augment"}
    moves = AugmentConfig(**dial["train"].get("augment", {}))
    config = TrainConfig(evaluations_per_epoch=LOOKS_PER_EPOCH, patience=10**6, **values)
    seeds = Seeds.new(str(seed))
    model: Model = FAMILIES[family](FAMILIES[family].Config(family=family, **dial["model"]), SIGNATURE)
    initialise(model, seeds)

    def make(rows: np.ndarray, step: int) -> Batch:
        part = train[rows]
        images_BCYX = augment(part.images_BCYX.float() / 255, moves, seeds.generator("augment", step))
        return Batch(rows_B=torch.from_numpy(rows), images_BCYX=images_BCYX, labels_B=part.labels_B)

    def evaluate(trained: Model) -> dict[str, float]:
        with watch.still():
            watch.look(trained)
            accuracy = held_out.accuracy(trained)
        return {"score": accuracy}

    feed = PlannedFeed(np.ones(len(train.labels_B), np.int64), make, config, seeds)
    work = Training(module=model, feed=feed, seeds=seeds, config=config, evaluate=evaluate)
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(judged)
        fitted = fit(work, Run(Path(folder), Silent()), Silent())
        with watch.still():
            accuracy = judged.accuracy(model)
    return Result(accuracy, fitted.best_score, watch.seconds, watch.to_goal, model.n_parameters())


def textbook(seed: int, train: Pictures, held_out: Pictures, judged: Pictures) -> Result:
    """The CNN of the tiny size by the loop that every introduction shows."""
    torch.manual_seed(seed)
    config = FAMILIES["cnn"].Config(family="cnn", **FAMILIES["cnn"].Config.sizes["tiny"]["model"])
    model: Model = FAMILIES["cnn"](config, SIGNATURE)  # its layers were drawn by torch as they were made
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()
    dataset = torch.utils.data.TensorDataset(train.images_BCYX.float() / 255, train.labels_B)
    loader = torch.utils.data.DataLoader(dataset, batch_size=100, shuffle=True)
    watch = Watch(judged)
    for _epoch in range(10):
        model.train()
        for number, (images_BCYX, labels_B) in enumerate(loader, start=1):
            optimizer.zero_grad()
            batch = Batch(rows_B=labels_B, images_BCYX=images_BCYX)
            loss_of(model(batch).logits, labels_B).backward()
            optimizer.step()
            if number % (len(loader) // LOOKS_PER_EPOCH) == 0:
                with watch.still():
                    watch.look(model)
    with watch.still():
        accuracy, held_out_accuracy = judged.accuracy(model), held_out.accuracy(model)
    return Result(accuracy, held_out_accuracy, watch.seconds, watch.to_goal, model.n_parameters())


def show(name: str, results: list[Result]) -> None:
    accuracies = [100 * result.accuracy for result in results]
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    reached = [result.to_goal for result in results if result.to_goal is not None]
    to_goal = f"{statistics.mean(reached):5.0f} s ({len(reached)} of {len(results)})" if reached else "never"
    print(
        f"{name:10s} {results[0].n_parameters:9,} parameters   accuracy {statistics.mean(accuracies):.2f}% "
        f"± {spread:.2f} ({min(accuracies):.2f} to {max(accuracies):.2f}, n={len(results)})   "
        f"training {statistics.mean(result.seconds for result in results):4.0f} s   to {GOAL:.0%}: {to_goal}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Workspace(None).samples / "mnist")
    parser.add_argument("--models", nargs="+", default=["cnn", "textbook", "mlp", "vit"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--holdout", action="store_true", help="leave the test pictures alone")
    given = parser.parse_args()
    every = Pictures.read(given.folder, "train")
    order = np.random.default_rng(0).permutation(len(every.labels_B))
    train, held_out = every[order[N_HELD_OUT:]], every[order[:N_HELD_OUT]]
    judged = held_out if given.holdout else Pictures.read(given.folder, "t10k")
    what = "held-out training" if given.holdout else "test"
    print(f"{len(train.labels_B):,} pictures to train on, {len(judged.labels_B):,} {what} pictures, ", end="")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    results: dict[str, list[Result]] = {name: [] for name in given.models}
    for seed in given.seeds:
        for name in given.models:
            run: Callable[..., Result] = textbook if name == "textbook" else lambda *a, name=name: ours(name, *a)
            results[name].append(run(seed, train, held_out, judged))
            print(f"seed {seed}, {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    for name in given.models:
        show(name, results[name])


if __name__ == "__main__":
    main()
