"""A neural text classifier: a family's module and the tokenizer that feeds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from danlu.core.batch import Batch
from danlu.data.batches import Tokens, collate, in_order
from danlu.data.tokenizer import PAD, encode
from danlu.model.text import TextModel

__all__ = ["NeuralClassifier"]

_BATCH_TOKENS, _BATCH_TOKENS_CPU = 8192, 1024
"""Tokens, padding included, that are looked at together: as many as fill a GPU, or as stay in a CPU's cache."""


class NeuralClassifier(TextModel):
    """Texts in, class probabilities out."""

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Token ids of texts, cut to what the module can see."""
        return encode(self.tokenizer, texts, self.config.max_len)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """float32 ``[n, N]``; each row sums to 1."""
        return self.probabilities(self.encode(texts))

    def probabilities(self, tokens: Tokens) -> np.ndarray:
        """Probabilities of texts that are tokens already; float32 ``[n, N]``."""
        found = np.zeros((len(tokens), self.module.signature.n_classes), np.float32)
        with torch.inference_mode():
            for rows, batch in self._batches(tokens):
                found[rows] = self.module(batch).logits.float().softmax(-1).numpy(force=True)
        return found

    def _batches(self, tokens: Tokens) -> Iterator[tuple[np.ndarray, Batch]]:
        device = next(self.module.parameters()).device
        most = _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS
        for rows in in_order(tokens.lengths, most):
            yield rows, collate(tokens, rows, PAD).to(device)
