"""Places for the texts that are being written: memory for their keys and values is reserved once.

Texts in places 0 to n - 1 are written; the last of them moves into the place of one that leaves. A model goes on with
the first n places as if they had been one batch from the beginning.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch

from danlu.model.base import Generative, State
from danlu.model.decode import prompt_batch
from danlu.model.decoding.engine import QuickState
from danlu.model.gru import GruState
from danlu.model.layers.cache import KVCache

__all__ = ["Slots"]

_Part = tuple[torch.Tensor, int | None]
"""A tensor of a state, and its axis of slots, if it has one."""


class Slots:
    """What a model keeps of up to so many texts.

    Args:
        model: A generating model, or what :func:`danlu.model.decoding.engine.quick` made of it.
        n_places: Places.
        begin: A token that may begin a text, by which it is found out what the model keeps.

    Attributes:
        n_texts: Texts that are being written.
        n_places: Places.
    """

    @torch.inference_mode()
    def __init__(self, model: Generative, n_places: int, begin: int) -> None:
        self.n_texts = 0
        self.n_places = n_places
        self._model = model
        _, self._form = model.begin(prompt_batch([[begin]], begin), 1)
        self._reserved = [
            part.new_zeros([_size(part, place, n_places, slot, model.config.max_len) for place in range(part.ndim)])
            for part, slot in _parts(self._form)
        ]
        self._lengths_B = torch.zeros(n_places, dtype=torch.int64, device=self._form.lengths_B.device)

    @torch.inference_mode()
    def read(self, prompts: list[list[int]]) -> tuple[torch.Tensor, State]:
        """Read prompts: ``logits_BV`` of the token after each, and what :meth:`add` takes."""
        return self._model.begin(prompt_batch(prompts, prompts[0][0]), max(map(len, prompts)))

    @torch.inference_mode()
    def add(self, read: State, row: int) -> None:
        """Give a text that was read the next place; it may be given several, where it is to go on in several ways."""
        assert self.n_texts < self.n_places, "there is no place left"
        n_read = int(read.lengths_B[row])
        self._copy(_text(_parts(read), row, n_read), self.n_texts)
        self._lengths_B[self.n_texts] = n_read
        self.n_texts += 1

    @torch.inference_mode()
    def remove(self, place: int) -> int:
        """Free a place; the text of the last one moves there. Returns where the moved text was."""
        last = self.n_texts - 1
        if place != last:
            n_read = int(self._lengths_B[last])
            kept = [(part, slot) for part, (_, slot) in zip(self._reserved, _parts(self._form), strict=True)]
            self._copy(_text(kept, last, n_read), place)
            self._lengths_B[place] = n_read
        self.n_texts = last
        return last

    @torch.inference_mode()
    def advance(self, tokens: list[int]) -> torch.Tensor:
        """Read one more token of every text: ``logits_BV`` of the token after it."""
        state = copy.copy(self._form)
        n = self.n_texts
        state.lengths_B = self._lengths_B[:n]
        used = [
            part.narrow(_axis(part, slot), 0, n)
            for part, (_, slot) in zip(self._reserved, _parts(self._form), strict=True)
        ]
        _set_parts(state, used)
        logits_BV = self._model.advance(torch.tensor(tokens, device=self._lengths_B.device), state)
        self._lengths_B[:n] += 1
        if isinstance(state, GruState):  # it is the one state that is not changed in place
            self._reserved[0][:, :n] = state.hidden
        return logits_BV

    def _copy(self, parts: list[_Part], place: int) -> None:
        """Copy what is kept of one text into a place."""
        for reserved, (part, slot) in zip(self._reserved, parts, strict=True):
            mine = reserved.select(_axis(reserved, slot), place)
            used = mine if slot is None else mine.narrow(slot - 1, 0, part.shape[slot - 1])
            used.copy_(part)


def _text(parts: list[_Part], row: int, n_read: int) -> list[_Part]:
    """What is kept of one text: the slots that it has used, or all of a state without slots."""
    found = [(part.select(_axis(part, slot), row), slot) for part, slot in parts]
    return [(text if slot is None else text.narrow(slot - 1, 0, n_read), slot) for text, slot in found]


def _parts(state: State) -> list[_Part]:
    """The tensors of a state, and which axis of each is that of the slots for tokens, where there is one."""
    if isinstance(state, QuickState):
        return [(layer, 3) for layer in state.layers]
    if isinstance(state, KVCache):
        return [(part, 2) for part in (*state.keys, *state.values)]
    assert isinstance(state, GruState), f"{type(state).__name__} is no state that texts can be moved in"
    return [(state.hidden, None)]


def _set_parts(state: State, parts: list[torch.Tensor]) -> None:
    if isinstance(state, QuickState):
        state.layers = parts
    elif isinstance(state, KVCache):
        state.keys, state.values = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    else:
        cast("Any", state).hidden = parts[0].contiguous()


def _axis(part: torch.Tensor, slot: int | None) -> int:
    """The axis of the texts: the first, but the second of a recurrent state."""
    return 0 if slot is not None else part.ndim - 2


def _size(part: torch.Tensor, axis: int, n_places: int, slot: int | None, max_len: int) -> int:
    if axis == _axis(part, slot):
        return n_places
    return max_len if axis == slot else part.shape[axis]
