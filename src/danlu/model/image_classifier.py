"""A neural classifier of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch

from danlu.core.batch import Batch
from danlu.model.base import Model
from danlu.model.module import load_module, save_module

__all__ = ["NeuralImageClassifier", "image_batch"]

_BATCH = 500


class NeuralImageClassifier:
    """Pictures in, class probabilities out.

    Args:
        module: The trained module; it is put into evaluation mode.
    """

    def __init__(self, module: Model) -> None:
        self.module = module.eval()

    @property
    def n_parameters(self) -> int:
        """Parameters."""
        return self.module.n_parameters()

    def predict_proba(self, images_nCYX: np.ndarray) -> np.ndarray:
        """Probabilities of pictures.

        Args:
            images_nCYX: uint8, of the size that the module was made for.

        Returns:
            float32 ``[n, N]``; each row sums to 1.

        Raises:
            DataError: The pictures have another size.
        """
        found = np.zeros((len(images_nCYX), self.module.signature.n_classes), np.float32)
        device = next(self.module.parameters()).device
        self.module.eval()
        with torch.inference_mode():
            for start in range(0, len(images_nCYX), _BATCH):
                batch = image_batch(images_nCYX, np.arange(start, min(start + _BATCH, len(images_nCYX)))).to(device)
                found[start : start + _BATCH] = self.module(batch).logits.float().softmax(-1).numpy(force=True)
        return found

    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs into a folder."""
        save_module(folder, self.module)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is missing or not what was written.
        """
        return cls(load_module(folder))


def image_batch(images_nCYX: np.ndarray, rows: np.ndarray, labels: np.ndarray | None = None) -> Batch:
    """A batch of some pictures, from 0 to 1.

    Args:
        images_nCYX: uint8.
        rows: int [B]; which of them.
        labels: int [n]; the class of every picture, where there is one.
    """
    return Batch(
        rows_B=torch.from_numpy(rows.astype(np.int64)),
        images_BCYX=torch.from_numpy(images_nCYX[rows]).float() / 255,
        labels_B=None if labels is None else torch.from_numpy(labels[rows].astype(np.int64)),
    )
