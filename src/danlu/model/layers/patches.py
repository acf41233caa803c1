"""From a picture to a sequence."""

from __future__ import annotations

import torch
from torch import nn

from danlu.model.layers.positions import LearnedPositions

__all__ = ["PatchEmbedding"]


class PatchEmbedding(nn.Module):
    """A vector for every square patch of a picture and for where it is (Dosovitskiy et al., 2021).

    Args:
        image_size: Channels C, height Y and width X.
        patch_size: Side of a patch in pixels.
        d_model: Width D of the vectors.

    Raises:
        ValueError: The patches do not fill the picture.
    """

    positions_1T: torch.Tensor

    def __init__(self, image_size: tuple[int, int, int], patch_size: int, d_model: int) -> None:
        super().__init__()
        n_channels, height, width = image_size
        if height % patch_size or width % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide pictures of {height} x {width} pixels")
        n_patches = (height // patch_size) * (width // patch_size)
        self.project = nn.Conv2d(n_channels, d_model, patch_size, stride=patch_size)
        self.positions = LearnedPositions(n_patches, d_model)
        self.register_buffer("positions_1T", torch.arange(n_patches)[None], persistent=False)

    def forward(self, images_BCYX: torch.Tensor) -> torch.Tensor:
        """``[B, C, Y, X]`` to ``[B, T, D]``, row by row."""
        patches_BTD = self.project(images_BCYX).flatten(2).transpose(1, 2)
        embedded: torch.Tensor = patches_BTD + self.positions(self.positions_1T)
        return embedded
