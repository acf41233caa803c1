"""A neural translator."""

from __future__ import annotations

from collections.abc import Sequence

from danlu.model.text import TextModel

__all__ = ["NeuralTranslator"]


class NeuralTranslator(TextModel):
    """Texts in, their translations out."""

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text."""
        raise NotImplementedError
