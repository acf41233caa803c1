"""Tokenizers: trained on the training texts alone, kept in a model's folder as ``tokenizer.json``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.core.files import write_atomic
from danlu.data.batches import Tokens

__all__ = [
    "PAD",
    "SPECIAL",
    "SpecialTokens",
    "TokenizerConfig",
    "encode",
    "load_tokenizer",
    "save_tokenizer",
    "special_tokens",
    "train_tokenizer",
]

SPECIAL = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
"""Ids 0 to 4 of every tokenizer that danlu trains."""
PAD = SPECIAL.index("<pad>")
_FIXED = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
"""The first tokens of a vocabulary of characters: the bytes stand for those that it lacks."""

_CALLED = {
    "mask": ("<mask>", "[MASK]"),
    "begin": ("<cls>", "[CLS]", "<s>", "<|begin_of_text|>", "<|endoftext|>", "<|im_start|>"),
    "end": ("<sep>", "[SEP]", "</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>"),
}
"""What tokenizers call the special tokens, ours first."""

_RARE = 3
"""Characters seen less often than this get no token of their own; their bytes stand for them."""
_AT_ONCE = 10_000
"""Texts that are cut at a time: what the library keeps of each until then is many times its tokens."""
_LONGEST = 16
"""The most characters of a token: words, not whole phrases learnt by heart."""


class TokenizerConfig(Config):
    """How text becomes tokens."""

    kind: Literal["char-bpe", "bpe", "char"] = "char-bpe"
    """``char-bpe``: byte-pair encoding over characters, bytes for rare ones; best for Chinese. ``bpe``: over bytes.
    ``char``: one token a character, bytes for rare ones. No text is unknown to any of them."""
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
    """Byte-pair encoding over the most frequent characters."""
    # A third of the vocabulary at least is left for pairs.
    room = vocab_size - len(_FIXED)
    alphabet = _frequent(texts, max(1, 2 * room // 3))
    tokenizer = _over_characters(_FIXED)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\p{P}\p{S}]|[A-Za-z]+|[0-9]+|\s+"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=len(_FIXED) + room,
        special_tokens=_FIXED,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        max_token_length=_LONGEST,
        min_frequency=_RARE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer takes the bytes as special tokens; they are not, for they stand for text.
    made = json.loads(tokenizer.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in SPECIAL]
    return Tokenizer.from_str(json.dumps(made))


def _char(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """The most frequent characters: with no pair to merge, there is nothing to train."""
    tokenizer = _over_characters([*_FIXED, *sorted(_frequent(texts, vocab_size - len(_FIXED)))])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _over_characters(names: Sequence[str]) -> Tokenizer:
    """Characters, and bytes for those without a token of their own; nothing is merged yet."""
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=SPECIAL[1], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _frequent(texts: Sequence[str], n_most: int) -> list[str]:
    """The most frequent characters that are not rare, at most so many."""
    counts = Counter(chain.from_iterable(texts))
    # Sorted, for the trainer would choose by chance among characters that are equally frequent.
    return sorted((c for c, count in counts.items() if count >= _RARE), key=lambda c: (-counts[c], c))[:n_most]


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


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that stand for no text; 0 where a tokenizer has none.

    Attributes:
        mask: A hidden token.
        begin: Before the first token of a text.
        end: After its last.
    """

    mask: int
    begin: int
    end: int


def special_tokens(tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens of any tokenizer."""
    ids = {
        role: next((found for name in names if (found := tokenizer.token_to_id(name)) is not None), 0)
        for role, names in _CALLED.items()
    }
    return SpecialTokens(**ids)


def save_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write a ``tokenizer.json``."""
    write_atomic(path, tokenizer.to_str(pretty=True).encode())


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


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_len: int | None, *, special: bool = True) -> Tokens:
    """Token ids of texts; of one that is too long, the first and the last half of ``max_len`` tokens.

    The end of a long text often says what it comes to (Sun et al., 2019). An empty text has no tokens, save those that
    a pretrained tokenizer puts around every text.

    Args:
        tokenizer: The model's.
        texts: n texts.
        max_len: The most tokens a text may keep; None: all of them.
        special: Whether a pretrained tokenizer puts its special tokens around every text.
    """
    parts = [Tokens.of([])]
    for start in range(0, len(texts), _AT_ONCE):
        encoded = tokenizer.encode_batch_fast(list(texts[start : start + _AT_ONCE]), add_special_tokens=special)
        all_ids = [encoding.ids for encoding in encoded]
        if max_len is not None:
            first, last = max_len // 2, max_len - max_len // 2
            all_ids = [ids if len(ids) <= max_len else ids[:first] + ids[-last:] for ids in all_ids]
        parts.append(Tokens.of(all_ids))
    return Tokens.joined(parts)
