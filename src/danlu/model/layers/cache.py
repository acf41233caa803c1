"""Keys and values of the tokens that a model has read, kept in memory that is reserved once."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch

__all__ = ["KVCache", "KeysValues"]


class KeysValues(NamedTuple):
    """What queries look at: keys and values, ``[B, H, S, K]`` each."""

    keys: torch.Tensor
    values: torch.Tensor


class KVCache:
    """Room for the keys and values of every layer, token t of a text in slot t.

    A row's tokens stand at the beginning of its slots whatever the length of the others, so that prompts of different
    length need no padding on the left.

    Args:
        n_layers: Layers.
        shape: Texts B, key-value heads H, slots S, head width K.
        like: A tensor of the type and on the device wanted.

    Attributes:
        keys, values: One tensor ``[B, H, S, K]`` a layer.
        lengths_B: int64; tokens read so far of each text.
        memory: Keys and values of the source text, one pair a layer, where there is one; never changed.
        memory_mask: bool ``[B, 1, 1, S]``; True where there is a source token. None: everywhere.
    """

    def __init__(self, n_layers: int, shape: tuple[int, int, int, int], like: torch.Tensor) -> None:
        self.keys = [like.new_zeros(shape) for _ in range(n_layers)]
        self.values = [like.new_zeros(shape) for _ in range(n_layers)]
        self.lengths_B = torch.zeros(shape[0], dtype=torch.int64, device=like.device)
        self.memory: list[KeysValues] = []
        self.memory_mask: torch.Tensor | None = None

    def write(self, layer: int, keys_BHTK: torch.Tensor, values_BHTK: torch.Tensor) -> None:
        """Put the keys and values of the next T tokens of every text behind those that are there."""
        n_new = keys_BHTK.shape[2]
        slots_BT = self.lengths_B[:, None] + torch.arange(n_new, device=keys_BHTK.device)
        where_BHTK = slots_BT[:, None, :, None].expand_as(keys_BHTK)
        self.keys[layer].scatter_(2, where_BHTK, keys_BHTK)
        self.values[layer].scatter_(2, where_BHTK, values_BHTK)

    def select(self, rows_B: torch.Tensor) -> Self:
        """The cache of some texts, in this order; a text may come several times."""
        chosen = object.__new__(type(self))
        chosen.keys = [keys[rows_B] for keys in self.keys]
        chosen.values = [values[rows_B] for values in self.values]
        chosen.lengths_B = self.lengths_B[rows_B]
        chosen.memory = [KeysValues(keys[rows_B], values[rows_B]) for keys, values in self.memory]
        chosen.memory_mask = None if self.memory_mask is None else self.memory_mask[rows_B]
        return chosen
