"""How a sequence knows its order: learnt vectors, sines, or rotation of queries and keys."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn

from danlu.core.config import Config

__all__ = ["LearnedPositions", "Rotary", "RotaryScaling", "Rotation", "SinusoidalPositions", "rotate"]

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, ``[B, 1, T, K]`` each, by which queries and keys are turned."""


class LearnedPositions(nn.Module):
    """A vector a position, learnt (Devlin et al., 2019; Radford et al., 2019).

    Args:
        max_len: Positions.
        d_model: Width D.
    """

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(max_len, d_model)

    def forward(self, positions_BT: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` positions to ``[B, T, D]``."""
        found: torch.Tensor = self.vectors(positions_BT)
        return found


class SinusoidalPositions(nn.Module):
    """Sines and cosines of geometrically growing wavelength (Vaswani et al., 2017); nothing is learnt.

    Args:
        d_model: Width D; even.
    """

    frequencies: torch.Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        if d_model % 2:
            raise ValueError(f"sinusoidal positions need an even width, not {d_model}")
        self.register_buffer("frequencies", _frequencies(d_model, 10000.0), persistent=False)

    def forward(self, positions_BT: torch.Tensor) -> torch.Tensor:
        """``[B, T]`` positions to ``[B, T, D]``: sines on even channels, cosines on odd ones."""
        angles = positions_BT[..., None].float() * self.frequencies
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


class RotaryScaling(Config):
    """How Llama 3 stretches its rotation to texts longer than those it was first trained on."""

    factor: float = Field(gt=0)
    """How much slower the slow channels turn."""
    low_factor: float = Field(gt=0)
    """Channels with fewer turns than this in ``original_len`` positions are slow."""
    high_factor: float = Field(gt=0)
    """Channels with more turns than this stay as they are."""
    original_len: int = Field(gt=0)
    """Length of the texts at first."""


class Rotary(nn.Module):
    """Rotary position embedding (Su et al., 2021): pairs of channels turned by an angle that grows with position.

    Channel i is paired with channel i + K/2, as Llama does.

    Args:
        d_head: Width K of a head; even.
        base: The slowest channel turns once in about ``2 pi base`` positions.
        scaling: See :class:`RotaryScaling`.
    """

    frequencies: torch.Tensor

    def __init__(self, d_head: int, base: float = 10000.0, scaling: RotaryScaling | None = None) -> None:
        super().__init__()
        if d_head % 2:
            raise ValueError(f"rotary positions need an even head width, not {d_head}")
        frequencies = _frequencies(d_head, base)
        self.register_buffer("frequencies", _stretched(frequencies, scaling) if scaling else frequencies, False)

    def forward(self, positions_BT: torch.Tensor) -> Rotation:
        """The rotation of every position, once for all layers."""
        angles_B1Th = positions_BT[:, None, :, None].float() * self.frequencies
        angles_B1TK = torch.cat([angles_B1Th, angles_B1Th], dim=-1)
        return angles_B1TK.cos(), angles_B1TK.sin()


def rotate(x_BHTK: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Queries or keys, turned."""
    cos, sin = rotation
    left, right = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cos.to(x_BHTK.dtype) + torch.cat([-right, left], dim=-1) * sin.to(x_BHTK.dtype)


def _frequencies(width: int, base: float) -> torch.Tensor:
    return base ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)


def _stretched(frequencies: torch.Tensor, scaling: RotaryScaling) -> torch.Tensor:
    turns = scaling.original_len * frequencies / (2 * math.pi)
    share = (turns - scaling.low_factor) / (scaling.high_factor - scaling.low_factor)
    share = share.clamp(0, 1)  # of the frequency as it was; the rest is slowed down
    return frequencies * (share + (1 - share) / scaling.factor)
