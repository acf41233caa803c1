"""Tokenizers: trained on the training texts alone, kept in a model's folder as ``tokenizer.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.data.batches import Tokens

__all__ = ["MASK", "PAD", "SPECIAL", "TokenizerConfig", "encode", "load_tokenizer", "train_tokenizer"]

SPECIAL = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
"""Ids 0 to 4 of every tokenizer that danlu trains."""
PAD, MASK = SPECIAL.index("<pad>"), SPECIAL.index("<mask>")


_RARE = 3
"""Characters seen less often than this get no token of their own in ``char-bpe``; their bytes stand for them."""
_LONGEST = 16
"""The most characters of a token: words, not whole phrases learnt by heart."""


class TokenizerConfig(Config):
    """How text becomes tokens."""

    kind: Literal["char-bpe", "bpe", "char"] = "char-bpe"
    """``char-bpe``: byte-pair encoding over characters, bytes for rare ones; best for Chinese. ``bpe``: over bytes (no
    text is unknown to either). ``char``: one token a character."""
    vocab_size: int = Field(6000, ge=300)
    """The most tokens that the vocabulary may hold, special tokens included."""


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    """Learn a vocabulary.

    Args:
        texts: The training texts; nothing of the validation or test split may be among them.
        config: What kind, and how large.

    Raises:
        DataError: There is no text to learn from.
    """
    if not any(texts):
        raise DataError("no text to learn a vocabulary from", advice="danlu data shows what was dropped, and why")
    learn = {"char-bpe": _char_bpe, "bpe": _byte_bpe, "char": _char}[config.kind]
    tokenizer = learn(texts, config.vocab_size)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _char_bpe(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    counts = Counter(character for text in texts for character in text)
    # Sorted, for the trainer would choose by chance among characters that are equally frequent.
    frequent = sorted((c for c, count in counts.items() if count >= _RARE), key=lambda c: (-counts[c], c))
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    special = [*SPECIAL, *byte_tokens]
    # A third of the vocabulary at least is left for pairs.
    n_characters = min(len(frequent), max(1, 2 * (vocab_size - len(special)) // 3))
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[1], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\p{P}\p{S}]|[A-Za-z]+|[0-9]+|\s+"), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=frequent[:n_characters],
        limit_alphabet=n_characters,
        max_token_length=_LONGEST,
        min_frequency=_RARE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_bpe(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _char(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Raises:
        CorruptError: It is not one.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptError(f"not a tokenizer: {error}", where=str(path)) from error
    tokenizer.encode_special_tokens = True  # a text that says "<mask>" means these characters
    return tokenizer


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
