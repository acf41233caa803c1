"""Pictures a little moved, turned and bent, so that a model sees more of them than there are.

One warp a picture: what each pixel of the new picture shows is looked up in the old one, between pixels bilinearly and
outside it at the nearest edge. All moves are composed before that, so that a picture is blurred once.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from danlu.core.config import Config

__all__ = ["AugmentConfig", "augment", "matrices", "warp"]

_N_DRAWS = 8
"""Random numbers of a picture, used or not, so that one setting does not change what another one draws."""
_N_BENDS = 4
"""Points along a side at which a bend is drawn; between them it is smooth."""


class AugmentConfig(Config):
    """How far a training picture may be moved; each picture draws evenly between the two extremes. 0 is off."""

    shift: float = Field(0.0, ge=0, lt=1)
    """Up to so far along each axis, as a share of the picture's side."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Up to so many degrees, either way."""
    scale: float = Field(0.0, ge=0, lt=1)
    """Larger or smaller by up to this share, each axis by its own."""
    shear: float = Field(0.0, ge=0, lt=1)
    """Slanted by up to this much sideways for each pixel downwards."""
    bend: float = Field(0.0, ge=0, lt=1)
    """Elastic distortion (Simard et al., 2003): places moved by up to this share of the side, smoothly."""
    flip_left_right: bool = False
    """Mirror every second picture; not where left and right matter, as in letters and digits."""
    flip_up_down: bool = False
    """Turn every second picture upside down."""

    @property
    def is_on(self) -> bool:
        """Whether anything is to be done."""
        return self != AugmentConfig()


def augment(images_BCYX: torch.Tensor, config: AugmentConfig, generator: np.random.Generator) -> torch.Tensor:
    """Every picture moved by chance.

    Args:
        images_BCYX: float32 pictures, on any device.
        config: How far.
        generator: Draws every random number, so that a step can be repeated.

    Returns:
        Pictures of the same shape; the very same tensor where nothing is on.
    """
    if not config.is_on:
        return images_BCYX
    n_images, _, height, width = images_BCYX.shape
    draws_BR = generator.uniform(-1, 1, (n_images, _N_DRAWS))
    bends_B2YX = None
    if config.bend:
        drawn = generator.uniform(-config.bend, config.bend, (n_images, 2, _N_BENDS, _N_BENDS))
        bends_B2YX = torch.from_numpy(drawn * np.array([width, height])[:, None, None])
    return warp(images_BCYX, matrices(draws_BR, config, (height, width)), bends_B2YX)


def matrices(draws_BR: np.ndarray, config: AugmentConfig, size: tuple[int, int]) -> np.ndarray:
    """The affine move of every picture.

    Args:
        draws_BR: float64 from -1 to 1: for each picture where between its extremes it lies in the shift along x and y,
            the rotation, the scale along x and y, the shear, the flip left-right and up-down.
        config: The extremes.
        size: Height and width in pixels.

    Returns:
        float64 ``[B, 2, 3]``: from (x, y, 1) in the new picture to (x, y) in the old one, in pixels from the middle.
    """
    shift_x, shift_y, turn, scale_x, scale_y, shear, left_right, up_down = draws_BR.T
    angle = np.deg2rad(config.rotate) * turn
    zeros, ones = np.zeros_like(turn), np.ones_like(turn)
    flip_x = np.where((left_right < 0) & config.flip_left_right, -1.0, 1.0)
    flip_y = np.where((up_down < 0) & config.flip_up_down, -1.0, 1.0)
    rotation = _stacked([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = _stacked([[ones, config.shear * shear], [zeros, ones]])
    stretch = _stacked([[flip_x / (1 + config.scale * scale_x), zeros], [zeros, flip_y / (1 + config.scale * scale_y)]])
    height, width = size
    shift = np.stack([width * config.shift * shift_x, height * config.shift * shift_y], -1)[:, :, None]
    return np.concatenate([rotation @ slant @ stretch, shift], -1)


def warp(images_BCYX: torch.Tensor, matrices_B23: np.ndarray, bends_B2YX: torch.Tensor | None = None) -> torch.Tensor:
    """Look up the pixels of new pictures in old ones.

    Args:
        images_BCYX: float32 pictures, on any device.
        matrices_B23: As :func:`matrices` gives them.
        bends_B2YX: How many pixels along x and y the place to look at is moved besides, on a coarse grid that spans the
            picture; None bends nothing.

    Returns:
        Pictures of the same shape.
    """
    height, width = images_BCYX.shape[-2:]
    half = np.array([width, height]) / 2
    # affine_grid counts both axes from -1 to 1, whatever their lengths: a turn must be told in these units.
    units_B23 = matrices_B23 * np.append(half, 1) / half[:, None]
    theta_B23 = torch.from_numpy(units_B23).to(images_BCYX)
    grid_BYX2 = F.affine_grid(theta_B23, list(images_BCYX.shape), align_corners=False)
    if bends_B2YX is not None:
        smooth_B2YX = F.interpolate(bends_B2YX.to(images_BCYX), (height, width), mode="bicubic", align_corners=True)
        grid_BYX2 = grid_BYX2 + smooth_B2YX.permute(0, 2, 3, 1) / grid_BYX2.new_tensor(half)
    return F.grid_sample(images_BCYX, grid_BYX2, mode="bilinear", padding_mode="border", align_corners=False)


def _stacked(rows: list[list[np.ndarray]]) -> np.ndarray:
    """A matrix for every picture from the values of its entries over all pictures."""
    return np.stack([np.stack(row, -1) for row in rows], -2)
