"""GRU: a gated recurrent network (Cho et al., 2014) over the tokens of a text.

    tokens -> embedding -> n_layers x GRU -> head

It reads in both directions to name classes, and forwards only to name the next token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from danlu.core.batch import Batch, Output
from danlu.model.base import Model, Signature, TextConfig
from danlu.model.layers.embedding import TokenEmbedding, hide
from danlu.model.layers.heads import ClassificationHead, LanguageHead
from danlu.model.layers.pooling import masked_max, masked_mean

__all__ = ["Gru", "GruConfig", "GruState"]


class GruConfig(TextConfig):
    """A GRU."""

    family: Literal["gru"]
    """Which family."""
    d_model: int = Field(gt=0)
    """Width of the embedding."""
    n_layers: int = Field(gt=0)
    """Recurrent layers."""
    d_hidden: int = Field(gt=0)
    """Width of the state, in each direction."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share dropped of token vectors and of the text's vector, in training."""
    token_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of tokens hidden while it is trained to name classes."""
    max_len: int = Field(96, gt=1)
    """The most tokens of a text that the model sees."""
    embedding_from: Literal["cooccurrence", "random"] = "cooccurrence"
    """What the token vectors start from: which tokens stand near which in the training texts, or random numbers."""

    sizes: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {
        "tiny": {
            "model": {"d_model": 128, "n_layers": 1, "d_hidden": 64},
            "train": {"epochs": 2, "learning_rate": 2e-3},
        },
        "small": {
            "model": {"d_model": 256, "n_layers": 1, "d_hidden": 256},
            "train": {"epochs": 4, "learning_rate": 1e-3},
        },
        "base": {
            "model": {"d_model": 512, "n_layers": 2, "d_hidden": 512},
            "train": {"epochs": 6, "learning_rate": 5e-4},
        },
    }


@dataclass(slots=True)
class GruState:
    """What the network keeps of the texts that it has read.

    Attributes:
        hidden: ``[n_layers, B, d_hidden]``.
        lengths_B: int64; tokens read so far of each text.
    """

    hidden: torch.Tensor
    lengths_B: torch.Tensor

    def select(self, rows_B: torch.Tensor) -> Self:
        """The state of some texts, in this order; a text may come several times."""
        return type(self)(self.hidden[:, rows_B], self.lengths_B[rows_B])


class Gru(Model):
    """The recurrent network; see :class:`danlu.model.base.Model`."""

    Config = GruConfig
    tasks = frozenset({"text-classification", "language-modelling"})
    config: GruConfig

    def __init__(self, config: GruConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.names_classes = signature.task == "text-classification"
        self.embedding = TokenEmbedding(signature.vocab_size, config.d_model, norm_eps=1e-5, dropout=config.dropout)
        self.gru = nn.GRU(
            config.d_model, config.d_hidden, config.n_layers, batch_first=True, bidirectional=self.names_classes
        )
        self.head = (
            ClassificationHead(2 * config.d_hidden, signature.n_classes, config.dropout, [masked_mean, masked_max])
            if self.names_classes
            else LanguageHead(None, signature.vocab_size, config.d_hidden)
        )

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of texts, or ``logits_MV`` of next tokens; the state of a text never sees padding."""
        tokens_BT, mask_BT, positions_BT = batch.text
        if self.names_classes and self.training and self.config.token_dropout:
            tokens_BT = hide(tokens_BT, self.config.token_dropout, self.signature.mask_token)
        x_BTD, _ = self._read(self.embedding(tokens_BT, positions_BT), mask_BT)
        answer: Output = self.head(x_BTD, batch)
        return answer

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, GruState]:  # noqa: ARG002  as the protocol has it
        """See :class:`danlu.model.base.Generative`; the state is as large for a long text as for a short one."""
        tokens_BT, mask_BT, positions_BT = batch.text
        _, hidden = self._read(self.embedding(tokens_BT, positions_BT), mask_BT)
        return self._scores(hidden), GruState(hidden, mask_BT.sum(1))

    def advance(self, tokens_B: torch.Tensor, state: GruState) -> torch.Tensor:
        """See :class:`danlu.model.base.Generative`."""
        x_BTD = self.embedding(tokens_B[:, None], state.lengths_B[:, None])
        _, state.hidden = self.gru(x_BTD, state.hidden)
        state.lengths_B = state.lengths_B + 1
        return self._scores(state.hidden)

    def _read(self, x_BTD: torch.Tensor, mask_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs at every token, and the state after each text's last."""
        lengths_B = mask_BT.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(x_BTD, lengths_B, batch_first=True, enforce_sorted=False)
        out, hidden = self.gru(packed)
        return pad_packed_sequence(out, batch_first=True, total_length=x_BTD.shape[1])[0], hidden

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.head, LanguageHead)
        return self.head.scores(hidden[-1])
