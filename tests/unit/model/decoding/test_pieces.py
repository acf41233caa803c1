from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model.decoding.pieces import Pieces, Spelling

TEXTS = ["春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少？", "the cat sat on the mat", "naïve café, 100% 😀!"] * 8


@functools.cache
def tokenizer(kind: str) -> Tokenizer:
    if kind != "sentencepiece":
        return train_tokenizer(TEXTS, TokenizerConfig(kind=kind, vocab_size=400))
    # As Llama's: spaces are marked, the first one of a text is dropped, rare characters are bytes.
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "▁the", "▁cat", "s", "a", "好", "▁好", "▁▁", ".", "�"]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<s>", "</s>"])
    return made


KINDS = ["bpe", "char-bpe", "char", "sentencepiece"]
WRITTEN = st.sampled_from([*TEXTS[:4], "好", "s the cat", "☃", "é", " ", "  a", "a ", "\n", "🏳️‍🌈"])


def cut(spelling: Spelling, tokens: list[int], stops: tuple[str, ...] = (), continues: bool = False) -> list[str]:
    pieces = Pieces(spelling, stops, continues)
    return [*map(pieces.push, tokens), pieces.finish()]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_pieces_of_random_tokens_make_up_the_text(kind, data):
    made = tokenizer(kind)
    tokens = data.draw(st.lists(st.integers(0, made.get_vocab_size() - 1), max_size=30))
    spelling = Spelling(made)
    for continues in (False, True):
        pieces = cut(spelling, tokens, continues=continues)
        assert "".join(pieces) == spelling.whole(tokens, continues)
        if kind == "bpe":  # its decoder works on the bytes of all tokens, broken or not
            assert "".join(pieces) == made.decode(tokens)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(texts=st.lists(WRITTEN, max_size=12))
def test_pieces_of_whole_characters_are_what_the_tokenizer_decodes(kind, texts):
    made = tokenizer(kind)
    tokens = [token for text in texts for token in made.encode(text, add_special_tokens=False).ids]
    whole = made.decode(tokens)
    pieces = cut(Spelling(made), tokens)
    assert "".join(pieces) == Spelling(made).whole(tokens, continues=False) == whole
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in whole
    # Behind other text the same is spelt, with the space that a first word goes without.
    before = made.encode("s", add_special_tokens=False).ids
    assert made.decode(before) + "".join(cut(Spelling(made), tokens, continues=True)) == made.decode(before + tokens)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(texts=st.lists(WRITTEN, max_size=12), stop=st.text("春眠the ca😀é", min_size=1, max_size=4))
def test_a_stop_string_cuts_the_text_wherever_the_pieces_meet(kind, texts, stop):
    made = tokenizer(kind)
    tokens = [token for text in texts for token in made.encode(text, add_special_tokens=False).ids]
    whole = made.decode(tokens)
    pieces = Pieces(Spelling(made), (stop, "never written"), continues=False)
    shown = ""
    for token in tokens:
        shown += pieces.push(token)
        assert whole.split(stop)[0].startswith(shown)
    shown += pieces.finish()
    assert shown == whole.split(stop)[0]
    assert pieces.stopped == (stop in whole)


def test_a_character_is_shown_when_it_is_whole():
    made = tokenizer("char-bpe")
    snowman = made.encode("☃", add_special_tokens=False).ids
    assert len(snowman) == 3  # bytes
    assert cut(Spelling(made), snowman) == ["", "", "☃", ""]
    assert cut(Spelling(made), snowman[:2]) == ["", "", "\ufffd\ufffd"]


def test_what_was_whole_before_a_broken_byte_is_kept():
    made = tokenizer("char-bpe")
    tokens = made.encode("☃☃", add_special_tokens=False).ids[:4]
    assert made.decode(tokens) == "\ufffd" * 4  # all bytes of a run, for one that is broken
    assert "".join(cut(Spelling(made), tokens)) == "☃\ufffd" == Spelling(made).whole(tokens, continues=False)


def test_what_may_become_a_stop_string_is_held_back():
    made = tokenizer("char")
    pieces = Pieces(Spelling(made), ("the m", "t t!"), continues=False)
    shown = [pieces.push(token) for token in made.encode("the cat the mat", add_special_tokens=False).ids]
    assert shown == ["", "", "", "", "the c", "a", "", "", "", "t ", "", "", "", "", ""]
    assert pieces.stopped
    assert pieces.finish() == pieces.push(5) == ""


def test_the_stop_string_that_begins_first_counts():
    made = tokenizer("bpe")
    (token,) = made.encode(" the", add_special_tokens=False).ids
    pieces = Pieces(Spelling(made), ("e", "th"), continues=True)
    assert pieces.push(token) == " "
    assert pieces.stopped


def test_special_tokens_spell_nothing():
    made = tokenizer("sentencepiece")
    the, end = made.token_to_id("▁the"), made.token_to_id("</s>")
    assert cut(Spelling(made), [end, the, end, the, end]) == ["", "the", "", " the", "", ""]
