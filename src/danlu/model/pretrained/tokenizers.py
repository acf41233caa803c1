"""The tokenizer of a checkpoint, read and written, and what fits a model to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from danlu.core.errors import CorruptError, UsageError
from danlu.core.files import read_json, write_atomic, write_json
from danlu.data.tokenizer import SpecialTokens, load_tokenizer, save_tokenizer, special_tokens
from danlu.model.base import Model, Signature, Task, text_config
from danlu.model.pretrained.config import is_ours, read_stored

__all__ = [
    "is_like_qwen",
    "read_signature",
    "read_special_tokens",
    "read_tokenizer",
    "save_tokenizer_files",
    "special_names",
]

_SAVE_THERE = "load it with transformers where it came from and save it again: that writes a tokenizer.json"
_ROLES = {"mask": ("mask_token",), "begin": ("cls_token", "bos_token"), "end": ("sep_token", "eos_token")}
"""Our special tokens, and what a checkpoint calls them."""
_PADS = ("<pad>", "[PAD]")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint: ``tokenizer.json``, or else made from its vocabulary.

    A text that spells a special token means these characters, not the token.

    Args:
        folder: A checkpoint, or a model that danlu saved.

    Raises:
        UsageError: There is none, or only one of a kind that danlu does not read.
        CorruptError: A file is damaged.
    """
    if (folder / "tokenizer.json").exists():
        tokenizer = load_tokenizer(folder / "tokenizer.json")
    elif (folder / "vocab.txt").exists():
        tokenizer = _made(folder, _word_pieces)
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        tokenizer = _made(folder, _byte_pairs)
    elif (folder / "tokenizer.model").exists():
        raise UsageError("danlu does not read tokenizer.model", where=str(folder), advice=_SAVE_THERE)
    else:
        advice = "copy tokenizer.json from where the checkpoint came from"
        raise UsageError("there is no tokenizer in this folder", where=str(folder), advice=advice)
    # Some files say how long a text may be or how it is padded: that is the batch's business.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def read_special_tokens(folder: Path, tokenizer: Tokenizer) -> SpecialTokens:
    """The special tokens of a checkpoint: as its files say, or else guessed by their names.

    Args:
        folder: A checkpoint, or a model that danlu saved.
        tokenizer: Its tokenizer.
    """
    guessed = special_tokens(tokenizer)
    found = {}
    for role, keys in _ROLES.items():
        ids = (_as_id(value, tokenizer) for key in keys for value in _told(folder, key))
        found[role] = next((number for number in ids if number is not None), getattr(guessed, role))
    return SpecialTokens(**found)


def read_signature(folder: Path, tokenizer: Tokenizer, task: Task, n_classes: int = 0) -> Signature:
    """What a model that starts from a checkpoint takes and answers.

    Args:
        folder: A checkpoint in Hugging Face layout, or a model that danlu saved.
        tokenizer: Its tokenizer.
        task: What the model is to be trained for.
        n_classes: Classes N, where it names classes.

    Raises:
        UsageError: The tokenizer has tokens that the checkpoint has no vector for. The other way round is common:
            vectors are padded to a round number.
        CorruptError: ``config.json`` is damaged.
    """
    n_tokens = max(tokenizer.get_vocab().values(), default=0) + 1
    file = folder / ("signature.json" if is_ours(folder) else "config.json")
    vocab_size = _read_if_there(file).get("vocab_size")
    if type(vocab_size) is not int or vocab_size < 1:
        raise CorruptError(f"vocab_size is {vocab_size!r}, not a size", where=str(file))
    if n_tokens > vocab_size:
        what = f"the tokenizer has {n_tokens} tokens and the checkpoint vectors for {vocab_size}"
        raise UsageError(what, where=str(folder), advice="copy the tokenizer that belongs to this checkpoint")
    special = read_special_tokens(folder, tokenizer)
    return Signature(
        task=task,
        vocab_size=vocab_size,
        mask_token=special.mask,
        begin_token=special.begin,
        end_token=special.end,
        n_classes=n_classes,
    )


def is_like_qwen(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer is of the make of Qwen's: composed characters, split by a rule of its own, then bytes."""
    return (
        isinstance(tokenizer.model, models.BPE)
        and isinstance(tokenizer.normalizer, normalizers.NFC)
        and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.Sequence)
    )


def special_names(module: Model, tokenizer: Tokenizer) -> dict[str, str]:
    """What transformers calls the special tokens of a model, those that it has: ``eos_token`` -> ``<sep>``, ..."""
    signature, added = module.signature, tokenizer.get_added_tokens_decoder()
    if signature.task == "language-modelling":
        numbers = {"bos_token": signature.begin_token, "eos_token": signature.end_token}
    else:
        numbers = {
            "cls_token": signature.begin_token,
            "sep_token": signature.end_token,
            "mask_token": signature.mask_token,
        }
    numbers["pad_token"] = next((found for name in _PADS if (found := tokenizer.token_to_id(name)) is not None), -1)
    # 0 stands for none where it is the number of an ordinary token.
    names = {role: added[number].content for role, number in numbers.items() if number in added}
    unknown = getattr(tokenizer.model, "unk_token", None)
    return {**names, "unk_token": unknown} if unknown else names


def save_tokenizer_files(folder: Path, module: Model, tokenizer: Tokenizer) -> None:
    """Write a model's tokenizer so that transformers reads it as it is.

    Args:
        folder: A folder that exists.
        module: The model.
        tokenizer: Its tokenizer.

    Raises:
        DanluError: The disk is full or may not be written to.
    """
    names = special_names(module, tokenizer)
    generates = module.signature.task == "language-modelling"
    if generates and tokenizer.post_processor is None and "bos_token" in names:
        # A tokenizer of our own puts nothing around a text; the model is trained on texts after a begin token.
        begin = names["bos_token"]
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[begin, "$A"], pair=[begin, "$A", "$B"], special_tokens=[(begin, module.signature.begin_token)]
        )
    save_tokenizer(folder / "tokenizer.json", tokenizer)
    write_json(folder / "special_tokens_map.json", names)
    inputs = ["input_ids", "attention_mask"] if generates else ["input_ids", "token_type_ids", "attention_mask"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # it takes tokenizer.json as it is
        "model_max_length": text_config(module.config).max_len,
        "model_input_names": inputs,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", {**settings, **names})
    if isinstance(tokenizer.model, models.WordPiece):
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
        write_atomic(folder / "vocab.txt", lines.encode())


def _told(folder: Path, key: str) -> Iterator[Any]:
    """What the files of a checkpoint say of a special token, the most trusted first: its text, or its number."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        yield _read_if_there(folder / file).get(key)
    for file in ("generation_config.json", "config.json"):
        yield _read_if_there(folder / file).get(f"{key}_id")


def _as_id(value: Any, tokenizer: Tokenizer) -> int | None:
    """The number of a token that is given as a text, as an object with one, as a number or as a list of these."""
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, dict):
        value = value.get("content")
    if isinstance(value, str):
        number: int | None = tokenizer.token_to_id(value)
        return number
    return value if isinstance(value, int) and tokenizer.id_to_token(value) is not None else None


def _read_if_there(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    values = read_json(path)
    if not isinstance(values, dict):
        raise CorruptError("not a JSON object", where=str(path))
    return values


def _made(folder: Path, make: Callable[[Path, Mapping[str, Any]], Tokenizer]) -> Tokenizer:
    """A tokenizer from a vocabulary and ``tokenizer_config.json``."""
    settings = _read_if_there(folder / "tokenizer_config.json")
    tokenizer = make(folder, settings)
    listed: dict[str, Any] = settings.get("added_tokens_decoder") or {}
    added = [*_read_if_there(folder / "added_tokens.json").items()]
    added += [(_text(token) or "", int(number)) for number, token in listed.items()]
    for token, number in added:
        if tokenizer.token_to_id(token) != number:
            what = f"{token!r} is added to the vocabulary, which danlu reads from a tokenizer.json only"
            raise UsageError(what, where=str(folder), advice=_SAVE_THERE)
    return tokenizer


def _word_pieces(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """BERT's tokenizer (Devlin et al., 2019) from ``vocab.txt``: one token a line."""
    path = folder / "vocab.txt"
    for key, due in {"do_basic_tokenize": True, "never_split": None}.items():
        if settings.get(key, due) not in (due, []):
            what = f"danlu does not do {key} = {settings[key]!r}, only {due}"
            raise UsageError(what, where=str(folder / "tokenizer_config.json"), advice=_SAVE_THERE)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CorruptError(f"not a vocabulary: {error}", where=str(path)) from error
    vocabulary: dict[str, int] = {token: number for number, token in enumerate(lines if lines[-1] else lines[:-1])}
    names = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    special = {role: _text(settings.get(f"{role}_token")) or name for role, name in names.items()}
    for role in ("unk", "cls", "sep"):
        if special[role] not in vocabulary:
            raise CorruptError(f"the vocabulary lacks {special[role]}", where=str(path), advice="copy the file again")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in special.values() if token in vocabulary])
    cls, sep = special["cls"], special["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
    )
    return tokenizer


def _byte_pairs(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's tokenizer (Radford et al., 2019) from ``vocab.json`` and ``merges.txt``."""
    # Others keep these two files as well, but split a text by a rule of their own that stands in neither.
    kind = settings.get("tokenizer_class") or read_stored(folder).get("model_type")
    if kind not in ("GPT2Tokenizer", "GPT2TokenizerFast", "gpt2"):
        what = f"danlu makes no tokenizer of {kind} from vocab.json and merges.txt"
        raise UsageError(what, where=str(folder), advice=_SAVE_THERE)
    if settings.get("add_bos_token"):
        raise UsageError("danlu does not do add_bos_token", where=str(folder), advice=_SAVE_THERE)
    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptError(f"not a vocabulary: {error}", where=str(folder / "vocab.json")) from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    told = {_text(settings.get(f"{role}_token")) or "<|endoftext|>" for role in ("bos", "eos")}
    tokenizer.add_special_tokens([token for token in sorted(told) if tokenizer.token_to_id(token) is not None])
    return tokenizer


def _text(value: Any) -> str | None:
    """The text of a token that is given as one, or as an object with one."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
