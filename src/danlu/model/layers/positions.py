"""How a sequence knows its order."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Rotary"]


class Rotary(nn.Module):
    """Rotary position embedding (Su et al., 2021): pairs of channels turned by an angle that grows with position.

    Channel i is paired with channel i + K/2, as Llama does.

    Args:
        d_head: Width K of a head; even.
        base: The slowest channel turns once in about ``2 pi base`` positions.
    """

    frequencies: torch.Tensor

    def __init__(self, d_head: int, base: float = 10000.0) -> None:
        super().__init__()
        if d_head % 2:
            raise ValueError(f"rotary positions need an even head width, not {d_head}")
        exponents = torch.arange(0, d_head, 2, dtype=torch.float32) / d_head
        self.register_buffer("frequencies", base**-exponents, persistent=False)

    def forward(self, x_BHTK: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
        """Turn queries or keys.

        Args:
            x_BHTK: Queries or keys.
            positions_BT: int64 position of each token.
        """
        angles_B1Th = positions_BT[:, None, :, None].float() * self.frequencies
        cos, sin = angles_B1Th.cos().to(x_BHTK.dtype), angles_B1Th.sin().to(x_BHTK.dtype)
        left, right = x_BHTK.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
