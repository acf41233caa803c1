"""A neural translator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from danlu.data.batches import in_order
from danlu.data.sequences import collate_pairs
from danlu.data.tokenizer import encode
from danlu.model.base import Generative
from danlu.model.decode import DecodeConfig, generate
from danlu.model.text import TextModel

__all__ = ["TRANSLATING", "NeuralTranslator"]

TRANSLATING = DecodeConfig(n_beams=4, length_penalty=1.0, max_new_tokens=500)
"""How translations are searched unless something else is asked for."""

_BATCH_TOKENS = 2048


class NeuralTranslator(TextModel):
    """Texts in, their translations out."""

    def translate(self, texts: Sequence[str], config: DecodeConfig = TRANSLATING) -> list[str]:
        """The translation of each text; of one that is too long, that of its beginning and its end.

        Args:
            texts: n texts.
            config: How the translations are searched.
        """
        sources = encode(self.tokenizer, texts, self.config.max_len - 1, special=False)
        found = np.empty(len(texts), dtype=object)
        model = cast("Generative", self.module.eval())
        for rows in in_order(sources.lengths + 1, _BATCH_TOKENS):
            batch = collate_pairs(sources, None, rows, self.special)
            written = generate(model, self.tokenizer, batch, config, [self.special.end])
            found[rows] = [each.text for each in written]
        return list(found)
