from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from danlu.core.errors import CorruptError, DataError
from danlu.data.tokenizer import (
    PAD,
    SPECIAL,
    SpecialTokens,
    TokenizerConfig,
    encode,
    load_tokenizer,
    save_tokenizer,
    special_tokens,
    train_tokenizer,
)

MASK = SPECIAL.index("<mask>")
KINDS = ["char-bpe", "bpe", "char"]
TEXTS = [f"质量很差{n % 7}，退货了 not good{'!' * (n % 3)}" for n in range(50)]


def trained(kind: str, texts: list[str] = TEXTS, vocab_size: int = 400):
    return train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=vocab_size))


TRAINED = {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_the_first_ids_in_every_kind(kind):
    tokenizer = trained(kind)
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    assert (PAD, MASK) == (0, 4)
    assert special_tokens(tokenizer) == SpecialTokens(mask=MASK, begin=2, end=3)
    assert tokenizer.get_vocab_size() <= 400


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_no_text_is_unknown_and_every_one_comes_back(kind, text):
    tokenizer = TRAINED[kind]
    ids = encode(tokenizer, [text], 10**6).ids.tolist()
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & set(range(len(SPECIAL)))


def test_characters_one_by_one_and_rare_ones_by_their_bytes():
    tokenizer = trained("char")
    tokens = encode(tokenizer, ["质量", "质龘", ""], 10)
    assert tokens.lengths.tolist() == [2, 1 + len("龘".encode()), 0]
    assert tokens.ids[0] == tokens.ids[2]
    spelt = [tokenizer.id_to_token(number) for number in tokens.ids[3:].tolist()]
    assert spelt == [f"<0x{byte:02X}>" for byte in "龘".encode()]
    n_characters = len(set("".join(TEXTS)))
    assert tokenizer.get_vocab_size() == len(SPECIAL) + 256 + n_characters
    assert all(len(token) == 1 for token in list_of_tokens(tokenizer)[len(SPECIAL) + 256 :])


def test_a_small_vocabulary_holds_the_most_frequent_characters():
    texts = ["甲乙丙丁" * 5, "甲乙丙" * 5, "甲乙戊己戊己"]
    assert set(list_of_tokens(trained("char", texts, 300))[261:]) == set("甲乙丙丁")  # 戊 and 己 are too rare
    texts = [chr(0x4E00 + i) * (100 - i) for i in range(60)]
    assert list_of_tokens(trained("char", texts, 300))[261:] == sorted(chr(0x4E00 + i) for i in range(39))


def list_of_tokens(tokenizer) -> list[str]:
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


@pytest.mark.parametrize("kind", ["char-bpe", "char"])
def test_bytes_stand_for_text_and_are_no_special_tokens(kind):
    tokenizer = trained(kind)
    ids = encode(tokenizer, ["龘"], 10).ids.tolist()
    assert tokenizer.decode(ids, skip_special_tokens=True) == "龘"
    added = tokenizer.get_added_tokens_decoder()
    assert [added[number].content for number in sorted(added)] == list(SPECIAL)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_says_mask_means_these_characters_after_reload_too(tmp_path, kind):
    tokenizer = trained(kind, ["<mask>", "<pad><0x41>", *TEXTS])
    save_tokenizer(tmp_path / "tokenizer.json", tokenizer)
    for each in (tokenizer, load_tokenizer(tmp_path / "tokenizer.json")):
        ids = encode(each, ["a<mask>b<pad>"], 100).ids.tolist()
        assert not {PAD, MASK} & set(ids)
        assert ids == encode(tokenizer, ["a<mask>b<pad>"], 100).ids.tolist()


def test_a_long_text_keeps_its_first_and_its_last_half():
    tokenizer = trained("char", ["abcdefghij"])
    ids = encode(tokenizer, ["abcdefghij"], 100).ids.tolist()
    assert encode(tokenizer, ["abcdefghij"], 5).ids.tolist() == [*ids[:2], *ids[-3:]]
    assert encode(tokenizer, ["abcdefghij"], 4).ids.tolist() == [*ids[:2], *ids[-2:]]
    assert encode(tokenizer, ["abcde"], 5).ids.tolist() == ids[:5]


def test_without_a_limit_every_token_is_kept():
    text = "abcdefghij" * 500
    tokens = encode(TRAINED["char"], [text], None)
    assert TRAINED["char"].decode(tokens.ids.tolist()) == text


def pretrained(names: tuple[str, str, str]) -> Tokenizer:
    """Words between two special tokens, as the tokenizer of a checkpoint has it."""
    begin, end, mask = names
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(["x", begin, end, mask, "good", "bad"]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([begin, end, mask])
    marks = [(begin, vocabulary[begin]), (end, vocabulary[end])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=marks)
    return tokenizer


@pytest.mark.parametrize(
    "names",
    [("[CLS]", "[SEP]", "[MASK]"), ("<s>", "</s>", "<mask>"), ("<|endoftext|>", "<|endoftext|>", "<mask>")],
)
def test_the_special_tokens_of_other_tokenizers_are_found_by_what_they_are_called(names):
    tokenizer = pretrained(names)
    begin, end, mask = (tokenizer.token_to_id(name) for name in names)
    assert special_tokens(tokenizer) == SpecialTokens(mask=mask, begin=begin, end=end)
    good = tokenizer.token_to_id("good")
    assert encode(tokenizer, ["good good"], 10).ids.tolist() == [begin, good, good, end]
    assert encode(tokenizer, ["good good"], 10, special=False).ids.tolist() == [good, good]


def test_a_tokenizer_without_special_tokens_has_none():
    assert special_tokens(Tokenizer(models.WordLevel({"x": 0, "good": 1}, unk_token="x"))) == SpecialTokens(0, 0, 0)


TRAIN = """
import random, sys
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
letters = [chr(0x4E00 + i) for i in range(600)] * 5
random.Random(1).shuffle(letters)
texts = ["".join(letters[i : i + 7]) for i in range(0, len(letters), 7)]
for kind in ("char-bpe", "bpe", "char"):
    sys.stdout.write(train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=400)).to_str())
"""


def test_training_gives_the_same_bytes_in_every_process_also_where_characters_are_equally_frequent():
    digests = set()
    for seed in ("0", "1"):
        environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": "2"}
        done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, check=True)
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_learn_from(kind):
    for texts in ([], ["", ""]):
        with pytest.raises(DataError, match="no text to learn a vocabulary from"):
            trained(kind, texts)


def test_a_vocabulary_that_could_not_hold_the_bytes_is_refused():
    with pytest.raises(ValidationError, match="vocab_size"):
        TokenizerConfig(vocab_size=10)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CorruptError, match="not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(CorruptError):
        load_tokenizer(tmp_path / "none.json")
