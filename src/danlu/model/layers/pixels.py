"""Where every family of pictures begins: pictures of the right size, on a scale that suits learning."""

from __future__ import annotations

import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.errors import DataError

__all__ = ["MOVES", "Pixels"]

MOVES = {"shift": 0.08, "rotate": 10.0, "scale": 0.1, "shear": 0.1}
"""How far the size dial of every family moves training pictures: what a hand or a camera may do. No flips: a mirrored
digit is none."""


class Pixels(nn.Module):
    """The pictures of a batch, if they are of the size that the model was made for, from -1 to 1.

    Args:
        image_size: Channels C, height Y and width X.

    Raises:
        ValueError: There is no size.
    """

    def __init__(self, image_size: tuple[int, int, int] | None) -> None:
        super().__init__()
        if image_size is None:
            raise ValueError("a model of pictures is made for pictures of one size, and the signature has none")
        self.size = image_size

    def forward(self, batch: Batch) -> torch.Tensor:
        """``[B, C, Y, X]`` from -1 (black) to 1.

        Raises:
            DataError: The pictures are of another size.
        """
        images_BCYX = batch.images
        if images_BCYX.shape[1:] != self.size:
            raise DataError(
                f"the model takes pictures of {_words(self.size)}, not {_words(tuple(images_BCYX.shape[1:]))}"
                " (channels x height x width)",
                where="pictures",
                advice="bring them to the size of the training pictures, or train a model on pictures of this size",
            )
        return images_BCYX * 2 - 1


def _words(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)
