"""What passes through a model: one record in, one record out.

The shape letters of the whole project: B batch, T tokens, S source tokens, H heads, K head width, D model width,
F feed-forward width, V vocabulary, C channels, Y height, X width, N classes, M predicted positions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["NOT_PREDICTED", "Batch", "Output", "Unscored", "Whole"]

NOT_PREDICTED = -100
"""The target where nothing is to be predicted."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What a step asks for in all.

    Attributes:
        n_records: Records.
        n_targets: Tokens to predict.
    """

    n_records: int
    n_targets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch of records: whichever of the columns its task has, padded on the right.

    Attributes:
        rows_B: int64; the number of each record in its split.
        tokens_BT: int64 token ids.
        mask_BT: bool; True where there is a token, False on padding.
        positions_BT: int64; the position of each token in its own text.
        texts_BT: int64; which of several texts in a row a token belongs to, where rows are packed.
        segments_BT: int64; which of two texts a token belongs to.
        source_BS: int64 token ids of the text to translate.
        source_mask_BS: bool; True where there is a source token.
        images_BCYX: float32 pictures from 0 (black) to 1.
        labels_B: int64 class, for classification; whether the second text follows the first, for pre-training.
        targets_BT: int64 token to predict, ``NOT_PREDICTED`` where there is none, for language modelling.
        asked_M: int64; where in ``targets_BT``, read row by row, there is a target. None: to be looked for.
        whole: What a step asks for in all, where this batch is only a part of it.
    """

    rows_B: torch.Tensor
    tokens_BT: torch.Tensor | None = None
    mask_BT: torch.Tensor | None = None
    positions_BT: torch.Tensor | None = None
    texts_BT: torch.Tensor | None = None
    segments_BT: torch.Tensor | None = None
    source_BS: torch.Tensor | None = None
    source_mask_BS: torch.Tensor | None = None
    images_BCYX: torch.Tensor | None = None
    labels_B: torch.Tensor | None = None
    targets_BT: torch.Tensor | None = None
    asked_M: torch.Tensor | None = None
    whole: Whole | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; what is asked for is looked up before, so that the device need not wait."""
        asked_M = None if self.targets_BT is None else self.asked
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, **moved | ({} if asked_M is None else {"asked_M": asked_M.to(device, non_blocking=True)}))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU copies from by itself; what is repeated is written out."""
        return replace(self, **{name: tensor.contiguous().pin_memory() for name, tensor in self._tensors().items()})

    def parts(self, n: int) -> list[Batch]:
        """The batch cut into n of about as many records each, or into fewer where it has fewer records.

        Each takes its means over what the whole batch asks for, so that their losses and gradients add up to those of
        the whole; padding that a part does not need is cut off.
        """
        n = min(n, len(self.rows_B))
        if n == 1:
            return [self]
        whole = Whole(self.n_records, self.n_targets if self.targets_BT is not None else 0)
        bounds = [len(self.rows_B) * part // n for part in range(n + 1)]
        return [self._cut(slice(*some), whole) for some in pairwise(bounds)]

    def _cut(self, rows: slice, whole: Whole) -> Batch:
        masks = {"T": self.mask_BT, "S": self.source_mask_BS}
        longest = {axis: int(mask[rows].sum(1).max()) for axis, mask in masks.items() if mask is not None}
        tensors = {
            name: tensor[rows] if (width := longest.get(name[-1])) is None else tensor[rows, :width]
            for name, tensor in self._tensors().items()
            if name != "asked_M"
        }
        return replace(self, **tensors, asked_M=None, whole=whole)

    def _tensors(self) -> dict[str, Any]:
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}

    @property
    def n_records(self) -> int:
        """Records of the step: over so many a mean is taken."""
        return len(self.rows_B) if self.whole is None else self.whole.n_records

    @property
    def n_targets(self) -> int:
        """Tokens that the step asks for: over so many a mean is taken."""
        return len(self.asked) if self.whole is None else self.whole.n_targets

    @property
    def asked(self) -> torch.Tensor:
        """``asked_M``."""
        if self.asked_M is not None:
            return self.asked_M
        return (self.targets != NOT_PREDICTED).flatten().nonzero().squeeze(1)

    @property
    def text(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``tokens_BT``, ``mask_BT`` and ``positions_BT`` of a batch that has text."""
        assert self.tokens_BT is not None, "this batch has no text"
        assert self.mask_BT is not None
        assert self.positions_BT is not None
        return self.tokens_BT, self.mask_BT, self.positions_BT

    @property
    def source(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``source_BS`` and ``source_mask_BS`` of a batch that has a text to translate."""
        assert self.source_BS is not None, "this batch has nothing to translate"
        assert self.source_mask_BS is not None
        return self.source_BS, self.source_mask_BS

    @property
    def images(self) -> torch.Tensor:
        """``images_BCYX`` of a batch that has pictures."""
        assert self.images_BCYX is not None, "this batch has no pictures"
        return self.images_BCYX

    @property
    def targets(self) -> torch.Tensor:
        """``targets_BT`` of a batch that asks for tokens."""
        assert self.targets_BT is not None, "this batch asks for no token"
        return self.targets_BT

    def count(self) -> tuple[int, int]:
        """Tokens and positions (padding included) of the batch; a picture counts as one of each."""
        masks = [mask for mask in (self.mask_BT, self.source_mask_BS) if mask is not None]
        if not masks:
            return len(self.rows_B), len(self.rows_B)
        return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unscored:
    """Where the scores of tokens come from, while they are not computed.

    Attributes:
        x_MD: What is scored.
        weight_VD: A vector a token.
        bias_V: Added to the scores; None: nothing.
    """

    x_MD: torch.Tensor
    weight_VD: torch.Tensor
    bias_V: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What a model answers.

    Attributes:
        scored: See :attr:`logits`; None where they would be too many to be computed for a loss.
        unscored: What they would be computed from.
        pair_logits_B2: Whether the second text of each pair follows the first, where that was trained.
    """

    scored: torch.Tensor | None = None
    unscored: Unscored | None = None
    pair_logits_B2: torch.Tensor | None = None

    @property
    def logits(self) -> torch.Tensor:
        """``logits_BN`` of a classifier; ``logits_MV`` or ``logits_BTV`` of a language model.

        M are the places with a target: logits elsewhere would be computed to be thrown away. BT, all places, are of a
        batch without targets.
        """
        if self.scored is not None:
            return self.scored
        assert self.unscored is not None, "there is nothing to score"
        return F.linear(self.unscored.x_MD, self.unscored.weight_VD, self.unscored.bias_V)
