"""GRU: a bidirectional gated recurrent network (Cho et al., 2014) over the tokens of a text.

tokens -> embedding -> n_layers x bidirectional GRU -> head
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from danlu.core.batch import Batch, Output
from danlu.model.base import FamilyConfig, Model
from danlu.model.layers.embedding import TokenEmbedding
from danlu.model.layers.heads import ClassificationHead
from danlu.model.layers.pooling import masked_max, masked_mean

__all__ = ["Gru", "GruConfig"]


class GruConfig(FamilyConfig):
    """A bidirectional GRU."""

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
    """Share of tokens hidden in training."""
    max_len: int = Field(96, gt=1)
    """The most tokens of a text that the model sees: the first half and the last half of a longer one."""

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


class Gru(Model):
    """The recurrent network; see :class:`danlu.model.base.Model` for the arguments. It names classes only."""

    Config = GruConfig
    config: GruConfig

    def __init__(self, config: GruConfig, *, vocab_size: int, mask_token: int, n_classes: int | None) -> None:
        super().__init__()
        if n_classes is None:
            raise ValueError("a gru is not trained to name hidden tokens")
        self.config = config
        self.embedding = TokenEmbedding(vocab_size, config.d_model, mask_token, config.token_dropout, config.dropout)
        self.gru = nn.GRU(config.d_model, config.d_hidden, config.n_layers, batch_first=True, bidirectional=True)
        self.head = ClassificationHead(2 * config.d_hidden, n_classes, config.dropout, [masked_mean, masked_max])

    def forward(self, batch: Batch) -> Output:
        """``logits_BN`` of a batch of texts; the state of a text never sees padding."""
        lengths_B = batch.mask_BT.sum(1).clamp(min=1).cpu()
        x_BTD = self.embedding(batch.tokens_BT)
        packed = pack_padded_sequence(x_BTD, lengths_B, batch_first=True, enforce_sorted=False)
        x_BTD, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=batch.tokens_BT.shape[1])
        answer: Output = self.head(x_BTD, batch)
        return answer
