"""In what order a run takes its training records: written down before the first step, regenerated from the seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from danlu.core.artifact import Artifact
from danlu.core.chain import RunChain
from danlu.core.workspace import Workspace
from danlu.train.prepare import Prepared
from danlu.train.replay import reopened

__all__ = ["RunOrder", "reopened_order", "run_order"]


@dataclass(frozen=True)
class RunOrder:
    """The records of every batch of a run, as planned before its first step.

    Attributes:
        epochs: The batches of each epoch, in the order in which they are taken: of each the numbers of its records,
            int64 [B], which are rows of the dataset's train split. Of a text that is cut into several windows the
            number comes once a window. Within an epoch the *batches* are in random order (all orders are equally
            likely, given which records share a batch); which records share a batch follows from their lengths too.
        root: Merkle root over the steps (:func:`danlu.core.merkle.merkle_root`), of each the little-endian int64
            record numbers; the chain's ``order_root``.
        n_taken: Steps after which the weights were kept; from what comes later the model has not learnt. As many as
            there are for a run that has not ended yet.
    """

    epochs: tuple[tuple[np.ndarray, ...], ...]
    root: str
    n_taken: int

    @property
    def batches(self) -> list[np.ndarray]:
        """The batches of all epochs, one a step."""
        return [batch for epoch in self.epochs for batch in epoch]


def run_order(prepared: Prepared) -> RunOrder:
    """The order of a run that is ready to take its first step."""
    feed = prepared.feed
    epochs = tuple(tuple(feed.records(step) for step in steps) for steps in feed.epochs)
    return RunOrder(epochs, feed.order_root, feed.n_steps)


def reopened_order(workspace: Workspace, model: Artifact) -> RunOrder | str:
    """The order in which a finished model of ours saw its records, from the run's seeds; nothing is trained.

    Args:
        workspace: Where the run's folder with ``seeds.json`` and the dataset are.
        model: An artifact of kind ``model`` or ``pretrained``.

    Returns:
        The order, which the chain of the run committed to before its first step; or in a sentence why there is none:
        the seeds or the dataset are not here, or what they give is not what the chain says.

    Raises:
        CorruptError: A file is damaged.
    """
    found = reopened(workspace, model)
    if isinstance(found, str):
        return found
    if not found.commitments:
        return "the seeds that are here are not those that the run committed to"
    if not found.order:
        return "the order that seeds and dataset give is not the one that the run committed to"
    order = run_order(found.prepared)
    return RunOrder(order.epochs, order.root, RunChain.read(model.path / "chain.jsonl").end["kept"])
