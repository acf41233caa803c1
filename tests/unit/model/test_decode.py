from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer
from torch import nn

from danlu.core.batch import Batch
from danlu.core.errors import UsageError
from danlu.data.batches import Tokens
from danlu.data.sequences import collate_pairs
from danlu.data.tokenizer import TokenizerConfig, encode, special_tokens, train_tokenizer
from danlu.model.base import Model, Signature
from danlu.model.decode import DecodeConfig, Generated, generate, prompt_batch, stream
from danlu.model.decoding import engine
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.gru import Gru, GruConfig
from danlu.model.transformer import Transformer, TransformerConfig

POEMS = [
    "春眠不觉晓，处处闻啼鸟。",
    "夜来风雨声，花落知多少？",
    "白日依山尽，黄河入海流。",
    "欲穷千里目，更上一层楼。",
] * 4
MAX_LEN = 40
FAMILIES = ["gpt", "gpt-2", "gru", "transformer"]
SAMPLING = {"temperature": 0.9, "top_k": 30, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 7}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(POEMS, TokenizerConfig(kind="char-bpe", vocab_size=330))


def make(family: str, tokenizer: Tokenizer, seed: int = 0) -> Any:
    special = special_tokens(tokenizer)
    task = "translation" if family == "transformer" else "language-modelling"
    signature = Signature(
        task=task, vocab_size=tokenizer.get_vocab_size(), begin_token=special.begin, end_token=special.end
    )
    size: dict[str, Any] = {"d_model": 24, "n_layers": 2, "max_len": MAX_LEN}
    heads = {"n_heads": 2, "d_ff": 32}
    module: Model
    if family == "gru":
        module = Gru(GruConfig(family="gru", d_hidden=24, **size), signature)
    elif family == "transformer":
        module = Transformer(TransformerConfig(family="transformer", n_decoder_layers=2, **heads, **size), signature)
    else:
        style = {"positions": "learned", "norm": "layer", "bias": True} if family == "gpt-2" else {}
        module = Gpt(GptConfig(family="gpt", **heads, **size, **style), signature)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        spread = 0.1 if parameter.ndim == 1 else 0.3 if "tokens" in name else 0.8
        nn.init.normal_(parameter, float(is_scale), spread, generator=generator)
        if len(parameter) == signature.vocab_size:
            with torch.no_grad():
                parameter[5:261] *= 0.3  # bytes: whole characters shall be written more often
    return module.eval()


def ask(family: str, tokenizer: Tokenizer, rows: list[int]) -> Batch:
    """Prompts of 1 to 11 characters, or sources."""
    texts = [(POEMS[row % 4] * 2)[row % 5 : row % 5 + 1 + row % 11] for row in rows]
    special = special_tokens(tokenizer)
    if family == "transformer":
        tokens = encode(tokenizer, texts, None)
        return collate_pairs(tokens, None, torch.arange(len(rows)).numpy(), special)
    ids = [[special.begin, *tokenizer.encode(text).ids] for text in texts]
    return prompt_batch(ids, special.begin)


def run(family: str, tokenizer: Tokenizer, rows: list[int], **config: Any) -> list[Generated]:
    module, special = make(family, tokenizer), special_tokens(tokenizer)
    return generate(module, tokenizer, ask(family, tokenizer, rows), DecodeConfig(**config), [special.end])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "choice", [{}, SAMPLING, {"n_beams": 3, "length_penalty": 0.8}], ids=["greedy", "drawn", "beams"]
)
def test_a_batch_of_ragged_prompts_gives_what_each_prompt_gives_alone(family, tokenizer, choice):
    rows = list(range(20))
    config = {"max_new_tokens": 24, **choice}
    together = run(family, tokenizer, rows, **config)
    alone = [run(family, tokenizer, [row], **config)[0] for row in rows]
    assert [text.tokens for text in together] == [text.tokens for text in alone]
    assert [(text.text, text.ended) for text in together] == [(text.text, text.ended) for text in alone]
    assert len({tuple(text.tokens) for text in together}) > 10
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)  # 2e-5 measured, of numbers down to -12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", [{}, SAMPLING, {"n_beams": 2}], ids=["greedy", "drawn", "beams"])
def test_log_probabilities_are_those_of_a_whole_pass(family, tokenizer, choice):
    module = make(family, tokenizer)
    (text,) = run(family, tokenizer, [7], max_new_tokens=12, **choice)
    prompt = ask(family, tokenizer, [7])
    tokens = prompt.text[0][0].tolist()
    whole = prompt_batch([tokens + text.tokens[:-1]], 2)
    if family == "transformer":
        source_BS, source_mask_BS = prompt.source
        whole = Batch(
            rows_B=whole.rows_B,
            tokens_BT=whole.tokens_BT,
            mask_BT=whole.mask_BT,
            positions_BT=whole.positions_BT,
            source_BS=source_BS,
            source_mask_BS=source_mask_BS,
        )
    with torch.inference_mode():
        logprobs_TV = module(whole).logits[0, len(tokens) - 1 :].log_softmax(1)
    expected = [float(logprobs_T[token]) for logprobs_T, token in zip(logprobs_TV, text.tokens, strict=True)]
    assert text.logprobs == pytest.approx(expected, abs=1e-4)
    if not choice:
        assert text.tokens == logprobs_TV.argmax(1).tolist()


class Counting:
    """A model that says how many texts it is asked about."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config
        self.n_texts: list[int] = []

    def begin(self, batch: Batch, max_len: int) -> Any:
        return self.model.begin(batch, max_len)

    def advance(self, tokens_B: torch.Tensor, state: Any) -> torch.Tensor:
        self.n_texts.append(len(tokens_B))
        return self.model.advance(tokens_B, state)


def test_a_text_that_has_ended_is_no_longer_asked_about(tokenizer):
    ends = range(261, 268)  # so that texts end at many lengths
    model = Counting(make("gpt", tokenizer))
    config = DecodeConfig(max_new_tokens=20)
    found = generate(model, tokenizer, ask("gpt", tokenizer, list(range(20))), config, list(ends))
    lengths = [len(text.tokens) for text in found]
    assert {text.ended for text in found} == {"end", "length"}
    assert model.n_texts == [sum(length > n for length in lengths) for n in range(1, max(lengths))]
    for text in found:
        assert not set(text.tokens[:-1]) & set(ends)
        assert (text.tokens[-1] in ends) == (text.ended == "end")
        assert text.tokens.count(text.tokens[-1]) == 1 or text.ended == "length"


def test_no_text_grows_longer_than_the_model_sees(tokenizer):
    prompts = prompt_batch([[2, *range(10, 10 + n)] for n in (1, 20, MAX_LEN - 2)], 2)
    for choice in ({}, {"n_beams": 2}):
        found = generate(make("gpt-2", tokenizer), tokenizer, prompts, DecodeConfig(max_new_tokens=100, **choice), [])
        assert [len(text.tokens) for text in found] == [MAX_LEN - 2, MAX_LEN - 21, 1]
        assert {text.ended for text in found} == {"length"}


@pytest.mark.parametrize("n_tokens", [MAX_LEN, MAX_LEN + 5])
def test_a_prompt_without_room_is_an_error_that_says_which(tokenizer, n_tokens):
    prompts = prompt_batch([[2], [7] * n_tokens, [2]], 2)
    with pytest.raises(UsageError, match=rf"prompt of {n_tokens} tokens .* sees {MAX_LEN}") as caught:
        generate(make("gpt", tokenizer), tokenizer, prompts, DecodeConfig(), [3])
    assert caught.value.where == "prompt 2 of 3"
    assert f"{MAX_LEN - 1} tokens" in caught.value.advice


def test_a_source_that_is_too_long_is_an_error(tokenizer):
    special = special_tokens(tokenizer)
    batch = collate_pairs(Tokens.of([[7] * MAX_LEN]), None, torch.arange(1).numpy(), special)  # and its end
    with pytest.raises(UsageError, match=f"source of {MAX_LEN + 1} tokens"):
        generate(make("transformer", tokenizer), tokenizer, batch, DecodeConfig(), [3])


def test_an_empty_prompt_begins_a_text(tokenizer):
    batch = prompt_batch([[], [2], [5, 6]], 2)
    assert batch.text[0].tolist() == [[2, 0], [2, 0], [5, 6]]
    assert batch.text[1].tolist() == [[True, False], [True, False], [True, True]]
    first, second, _ = generate(make("gpt", tokenizer), tokenizer, batch, DecodeConfig(max_new_tokens=5), [3])
    assert first == second


def test_draws_repeat_with_their_seed_and_differ_between_copies_of_a_prompt(tokenizer):
    def texts(rows: list[int], **config: Any) -> list[list[int]]:
        return [text.tokens for text in run("gpt", tokenizer, rows, max_new_tokens=15, temperature=1.0, **config)]

    first, second, third = texts([8, 8, 8], seed=3)
    assert first != second != third != first
    assert texts([8], seed=3) == [first]
    assert texts([1, 8, 2, 8], seed=3)[1::2] == [first, second]
    assert texts([8], seed=4) != [first]


def test_sources_tell_draws_apart(tokenizer):
    first, second = run("transformer", tokenizer, [6, 7], max_new_tokens=12, temperature=5.0)
    assert first.tokens != second.tokens


def test_draws_come_from_the_filtered_tokens_only(tokenizer):
    greedy = run("gpt", tokenizer, list(range(6)), max_new_tokens=15)
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        drawn = run("gpt", tokenizer, list(range(6)), max_new_tokens=15, temperature=2.0, **narrow)
        assert [text.tokens for text in drawn] == [text.tokens for text in greedy]


def test_a_penalty_stops_a_text_from_repeating_itself(tokenizer):
    rows = list(range(6))
    free, bound = (run("gpt", tokenizer, rows, max_new_tokens=20, repetition_penalty=penalty) for penalty in (1.0, 1e6))
    prompts = ask("gpt", tokenizer, rows)
    assert any(len(set(text.tokens)) < len(text.tokens) for text in free)
    for text, tokens, mask in zip(bound, prompts.text[0], prompts.text[1], strict=True):
        assert len({*text.tokens, *tokens[mask].tolist()}) == len({*tokens[mask].tolist()}) + len(text.tokens)


def drained(pieces: Generator[str, None, Generated]) -> tuple[list[str], Generated]:
    results = []

    def through() -> Iterator[str]:
        results.append((yield from pieces))

    return list(through()), results[0]


@pytest.mark.parametrize("family", ["gpt", "gru", "transformer"])
@pytest.mark.parametrize("choice", [{}, SAMPLING], ids=["greedy", "drawn"])
def test_a_stream_shows_the_text_in_pieces(family, tokenizer, choice):
    special = special_tokens(tokenizer)
    seen = 0
    for row in range(12):
        prompt = ask(family, tokenizer, [row])
        (whole,) = run(family, tokenizer, [row], max_new_tokens=24, **choice)
        config = DecodeConfig(max_new_tokens=24, **choice)
        shown, result = drained(stream(make(family, tokenizer), tokenizer, prompt, config, [special.end]))
        assert result == whole
        assert "".join(shown) == whole.text
        assert all(shown)
        seen += len(shown)
    assert seen > 60


def test_a_stop_string_ends_the_text_before_it_and_the_batch_goes_on(tokenizer):
    rows = list(range(12))
    free = run("gpt", tokenizer, rows, max_new_tokens=24)
    stop = next(text.text[9:12] for text in free if len(text.text) > 14 and "\ufffd" not in text.text)
    stopped = run("gpt", tokenizer, rows, max_new_tokens=24, stop=[stop, "不会写的"])
    assert {text.ended for text in stopped} > {"stop"}
    for before, after in zip(free, stopped, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert (after.ended == "stop") == (stop in before.text)
        assert after.ended == "stop" or after == before


def test_beams_are_not_streamed(tokenizer):
    with pytest.raises(UsageError, match="no text to show"):
        next(stream(make("gpt", tokenizer), tokenizer, prompt_batch([[2]], 2), DecodeConfig(n_beams=2), [3]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_k": 5}, "top_k .* temperature 0 nothing is drawn"),
        ({"top_p": 0.9}, "top_p .* temperature 0"),
        ({"min_p": 0.1}, "min_p .* temperature 0"),
        ({"temperature": 1e-9}, "below 0.001"),
        ({"temperature": -1.0}, "greater than or equal to 0"),
        ({"n_beams": 4, "temperature": 1.0}, "draws nothing"),
        ({"n_beams": 4, "stop": ["x"]}, "stop strings"),
        ({"length_penalty": 2.0}, "give n_beams"),
        ({"stop": ["x", ""]}, "empty stop string"),
        ({"top_p": 0.0, "temperature": 1.0}, "greater than 0"),
        ({"max_new_tokens": 0}, "greater than 0"),
        ({"n_beams": True}, "a number is due"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        DecodeConfig(**values)


def test_a_model_in_training_is_refused(tokenizer):
    with pytest.raises(AssertionError, match="eval"):
        generate(make("gpt", tokenizer).train(), tokenizer, prompt_batch([[2]], 2), DecodeConfig(), [3])


def test_the_engine_is_used_and_writes_what_the_module_writes(tokenizer, monkeypatch):
    rows = list(range(9))
    fast = run("gpt", tokenizer, rows, max_new_tokens=24)
    asked = []
    advance = engine.QuickDecoder.advance
    monkeypatch.setattr(engine.QuickDecoder, "advance", lambda *words: asked.append(1) or advance(*words))
    assert run("gpt", tokenizer, rows, max_new_tokens=24) == fast
    assert len(asked) == 23
    plain = Counting(make("gpt", tokenizer))
    slow = generate(plain, tokenizer, ask("gpt", tokenizer, rows), DecodeConfig(max_new_tokens=24), [3])
    assert [text.tokens for text in slow] == [text.tokens for text in fast]
