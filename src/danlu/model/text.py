"""A family's module with the tokenizer that feeds it: what every neural answerer of texts is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tokenizers import Tokenizer

from danlu.data.tokenizer import SpecialTokens, load_tokenizer, save_tokenizer
from danlu.model.base import Model, TextConfig, text_config
from danlu.model.module import load_module, save_module

__all__ = ["TextModel"]


class TextModel:
    """A module that reads text.

    Args:
        module: The trained module; it is put into evaluation mode.
        tokenizer: The tokenizer that it was trained with.
    """

    def __init__(self, module: Model, tokenizer: Tokenizer) -> None:
        self.module = module.eval()
        self.tokenizer = tokenizer

    @property
    def config(self) -> TextConfig:
        """The module's config."""
        return text_config(self.module.config)

    @property
    def special(self) -> SpecialTokens:
        """The ids that stand for no text."""
        signature = self.module.signature
        return SpecialTokens(signature.mask_token, signature.begin_token, signature.end_token)

    @property
    def n_parameters(self) -> int:
        """Parameters."""
        return self.module.n_parameters()

    def save(self, folder: Path) -> None:
        """Write all that :meth:`load` needs into a folder."""
        save_module(folder, self.module)
        save_tokenizer(folder / "tokenizer.json", self.tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is missing or not what was written.
        """
        return cls(load_module(folder), load_tokenizer(folder / "tokenizer.json"))
