"""A neural language model: how likely a text is, and what comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from torch.nn import functional as F

from danlu.core.batch import NOT_PREDICTED
from danlu.data.batches import in_order
from danlu.data.sequences import collate_windows, windows
from danlu.data.tokenizer import encode
from danlu.model.base import Generative
from danlu.model.decode import DecodeConfig, generate, prompt_batch
from danlu.model.text import TextModel

__all__ = ["NeuralLanguageModel"]

_BATCH_TOKENS = 4096


class NeuralLanguageModel(TextModel):
    """Texts in, their likelihood out."""

    def nats(self, texts: Sequence[str]) -> np.ndarray:
        """float64 [n]: minus the log-likelihood of each text and its end.

        It is that of the text as its tokenizer cuts it; other ways to spell it would add to the likelihood. A token of
        a text that is longer than the model sees has at least half of what it sees before it.
        """
        max_len = self.config.max_len
        tokens = encode(self.tokenizer, texts, None, special=False)
        found = windows(tokens, self.special, max_len, max_len // 2)
        total = np.zeros(len(texts))
        device = next(self.module.parameters()).device
        with torch.inference_mode():
            for rows in in_order(found.lengths, _BATCH_TOKENS):
                batch = collate_windows(found, rows).to(device)
                asked_BT = batch.targets != NOT_PREDICTED
                nats_M = F.cross_entropy(
                    self.module(batch).logits.float(), batch.targets[asked_BT], reduction="none"
                ).double()
                owner_M = torch.arange(len(rows), device=device)[:, None].expand_as(asked_BT)[asked_BT]
                nats_B = torch.zeros(len(rows), dtype=torch.float64, device=device).index_add_(0, owner_M, nats_M)
                np.add.at(total, found.texts[rows], nats_B.numpy(force=True))
        return total

    def write(self, prompts: Sequence[str], config: DecodeConfig) -> list[str]:
        """What comes after each prompt.

        Args:
            prompts: Beginnings of texts; an empty one lets the model begin by itself.
            config: How tokens are chosen.

        Raises:
            UsageError: A prompt is longer than the model can see.
        """
        tokens = encode(self.tokenizer, prompts, None, special=False)
        begun = [
            [self.special.begin, *tokens.ids[start:end].tolist()] for start, end in pairwise(tokens.offsets.tolist())
        ]
        model = cast("Generative", self.module.eval())
        batch = prompt_batch(begun, self.special.begin)
        return [each.text for each in generate(model, self.tokenizer, batch, config, [self.special.end])]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """int64 [n]: tokens of each text, its end included."""
        return encode(self.tokenizer, texts, None, special=False).lengths + 1
