"""Tokenizers: trained on the training texts alone, kept in a model's folder as ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.data.batches import Tokens

__all__ = ["MASK", "PAD", "SPECIAL", "TokenizerConfig", "encode", "load_tokenizer", "train_tokenizer"]

SPECIAL = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
"""Ids 0 to 4 of every tokenizer that danlu trains."""
PAD, MASK = SPECIAL.index("<pad>"), SPECIAL.index("<mask>")


class TokenizerConfig(Config):
    """How text becomes tokens."""

    kind: Literal["bpe", "char"] = "bpe"
    """``bpe``: byte-level byte-pair encoding (no text is unknown to it); ``char``: one token a character."""
    vocab_size: int = 6000
    """The most tokens that the vocabulary may hold, special tokens included."""


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Learn a vocabulary.

    Args:
        texts: The training texts; nothing of the validation or test split may be among them.
        config: What kind, and how large.

    Raises:
        DataError: There is no text to learn from.
    """
    if config.kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=None))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: trainers.Trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))  # noqa: S106 - a token of text, not a secret
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(
            vocab_size=config.vocab_size, special_tokens=list(SPECIAL), show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= len(SPECIAL):
        raise DataError("no text to learn a vocabulary from", advice="danlu data shows what was dropped, and why")
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Raises:
        CorruptError: It is not one.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptError(f"not a tokenizer: {error}", where=str(path)) from error


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_len: int) -> Tokens:
    """Token ids of texts; of one that is too long, the first and the last half of ``max_len`` tokens.

    The end of a long text often says what it comes to (Sun et al., 2019). An empty text has no tokens.

    Args:
        tokenizer: The model's.
        texts: n texts.
        max_len: The most tokens a text may keep.
    """
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    first, last = max_len // 2, max_len - max_len // 2
    all_ids = (encoding.ids for encoding in encoded)
    return Tokens.of([ids if len(ids) <= max_len else ids[:first] + ids[-last:] for ids in all_ids])
