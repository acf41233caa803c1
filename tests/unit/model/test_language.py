from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from danlu.core.batch import Batch
from danlu.data.tokenizer import TokenizerConfig, encode, train_tokenizer
from danlu.model import language
from danlu.model.language import NeuralLanguageModel
from danlu.train.language import bits_per_character
from small import made_up, make_module, signature_of

TEXTS = [text for text, _ in made_up(12)]
TOKENIZER = train_tokenizer([text for text, _ in made_up()], TokenizerConfig(kind="char", vocab_size=300))
SIGNATURE = signature_of("language-modelling", TOKENIZER)
BEGIN, END = SIGNATURE.begin_token, SIGNATURE.end_token


def model_of(family="gpt", **changes):
    module = make_module(family, SIGNATURE, **changes)
    with torch.no_grad():  # sharper opinions than those of small initial weights
        for parameter in module.parameters():
            parameter.mul_(2.0)
    return NeuralLanguageModel(module, TOKENIZER)


def by_hand(model, read, asked):
    """Minus the log-probability of the tokens asked for, where read[i] asks for asked[i]; None asks for nothing."""
    tokens_BT = torch.tensor([read])
    batch = Batch(
        rows_B=torch.tensor([0]),
        tokens_BT=tokens_BT,
        mask_BT=torch.ones_like(tokens_BT, dtype=torch.bool),
        positions_BT=torch.arange(len(read))[None],
    )
    with torch.inference_mode():
        log_p_TV = model.module(batch).logits[0].double().log_softmax(-1)
    return -sum(log_p_TV[place, token].item() for place, token in enumerate(asked) if token is not None)


@pytest.mark.parametrize("family", ["gpt", "gru"])
@pytest.mark.parametrize("text", ["", "好", TEXTS[0], "龘"])
def test_a_short_text_is_read_whole_and_its_end_is_asked_for(family, text):
    model = model_of(family)
    ids = encode(TOKENIZER, [text], None).ids.tolist()
    assert model.count_tokens([text]).tolist() == [len(ids) + 1]
    # float32 logits about 3: measured 2e-6 of up to 160 nats.
    assert model.nats([text])[0] == pytest.approx(by_hand(model, [BEGIN, *ids], [*ids, END]), rel=1e-6)


@pytest.mark.parametrize("n", [31, 32, 33, 48, 49, 100])
def test_a_long_text_is_read_in_windows_that_overlap_by_half(n):
    model = model_of(max_len=32)
    text = "".join(TEXTS)[:n]
    ids = encode(TOKENIZER, [text], None).ids.tolist()
    assert len(ids) == n
    read, asked = [BEGIN, *ids], [*ids, END]
    expected, start, done = 0.0, 0, 0
    while done < len(asked):
        width = asked[start : start + 32]
        wanted = [None if start + place < done else token for place, token in enumerate(width)]
        assert done == 0 or done - start == 16, "each token but the first has half a window before it"
        expected += by_hand(model, read[start : start + 32], wanted)
        done, start = start + len(width), start + 16
    assert model.nats([text])[0] == pytest.approx(expected, rel=1e-6)


def test_many_texts_are_read_in_batches_that_fit(monkeypatch):
    model, texts = model_of(), [*TEXTS, "".join(TEXTS), ""]
    whole = model.nats(texts)
    for room in (1, 64):
        monkeypatch.setattr(language, "_BATCH_TOKENS", room)
        np.testing.assert_allclose(model.nats(texts), whole, rtol=1e-6)


def test_bits_per_character_are_all_nats_over_all_characters():
    class Fixed:
        def nats(self, texts):
            return np.array([len(text) + 1 for text in texts], np.float64)

    assert bits_per_character(Fixed(), ["ab", "cdefgh"]) == pytest.approx(10 / math.log(2) / 8)


def test_probabilities_of_all_next_tokens_sum_to_one():
    """What nats says of every text of one token, and of the end at once: a distribution."""
    model = model_of()
    singles = [TOKENIZER.decode([token]) for token in range(261, TOKENIZER.get_vocab_size())]
    ids = encode(TOKENIZER, singles, None)
    assert ids.lengths.tolist() == [1] * len(singles)
    first = [by_hand(model, [BEGIN], [token]) for token in range(TOKENIZER.get_vocab_size())]
    assert sum(math.exp(-nats) for nats in first) == pytest.approx(1, abs=1e-9)
    ends = [by_hand(model, [BEGIN, token], [None, END]) for token in ids.ids.tolist()]
    expected = [first[token] + end for token, end in zip(ids.ids.tolist(), ends, strict=True)]
    np.testing.assert_allclose(model.nats(singles), expected, rtol=1e-6)
